"""DICOM for clinical viewers: of each case one CT (or MR) series and, where there is a mask, one DICOM-SEG.

``OUT/CASE/image/0001.dcm`` ... from the feet upwards, ``OUT/CASE/segmentation.dcm``; ``OUT/manifest.jsonl`` has one
row per case and ``OUT/segments.json`` says which code each segment number was. A case exists when its files and its
row do. Images are marked as no original: image type DERIVED, Synthetic Data (0008,001C) YES for phantoms and
synthetic cases, whose names and descriptions begin with SYNTHETIC; nothing is burned into pixels. Unique identifiers
follow from the case's files, so the same case is the same series wherever it is exported. Confidence maps are left
out: no viewer has a use for them.
"""

import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cardiosynth import __version__
from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import Progress, say
from cardiosynth.core.store import (
    append_row,
    file_sha256,
    fingerprint,
    read_rows,
    remove_partial,
    whole_folder,
    write_json,
)
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.export.nnunet import consecutive
from cardiosynth.data.export.segmentation import segmentation
from cardiosynth.data.formats.dicom import pydicom_package
from cardiosynth.data.layout import FOLDERS, is_whole, stored_image

MANIFEST, SEGMENTS = "manifest.jsonl", "segments.json"
NAMESPACE = uuid.UUID("8b3c1f0e-52f1-5d0b-9a55-5f0c2f8c8a11")
LAYOUT = 1
"""Raised when the same case is written otherwise: one identifier must not stand for two contents."""
KINDS: dict[str, dict[str, Any]] = {
    "hu": {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "Modality": "CT",
        "ImageType": ["DERIVED", "SECONDARY", "AXIAL"],
        "KVP": None,
        "RescaleType": "HU",
        "WindowCenter": 250,
        "WindowWidth": 900,
    },
    "mr": {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
        "Modality": "MR",
        "ImageType": ["DERIVED", "SECONDARY", "OTHER"],
        "ScanningSequence": "RM",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "3D",
        "EchoTime": None,
        "EchoTrainLength": None,
    },
}
"""What the two kinds of image say differently; the window shows contrast-filled vessels."""

EMPTY = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID", "PatientBirthDate", "PatientSex",
    "PositionReferenceIndicator", "AcquisitionNumber",
)  # fmt: skip
"""What the standard wants to be there and we do not know."""

PIXELS = {
    "SpecificCharacterSet": "ISO_IR 192",
    "BurnedInAnnotation": "NO",
    "LossyImageCompression": "00",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 1,
}
"""How every voxel is stored: signed, 16 bits, nothing drawn into it, nothing lost."""


def export_dicom(dataset: Dataset, out: Path) -> list[Path]:
    """Write the cases of ``dataset`` that have an image as DICOM. Cases that are there already are kept.

    Returns:
        The folder of each case.

    Raises:
        InputError: the extra is missing, no case has an image, or, at the end, cases that could not be exported.
    """
    pydicom_package()
    images = dataset.with_images()
    if len(images) < len(dataset):
        say(f"{dataset.root}: {len(dataset) - len(images)} cases have no image and are left out.")
    if not len(images):
        raise InputError(f"{dataset.root} holds no image to export; give a dataset with images.")
    if any(dataset.has("confidence", case_id) for case_id in images.case_ids):
        say(f"{dataset.root}: confidence maps are not exported; they stay in the dataset folder.")
    remove_partial(out)
    rows = {row["case_id"]: row for row in read_rows(out / MANIFEST)}
    broken = []
    with Progress("export", len(images)) as progress:
        for case_id in images.case_ids:
            digest = _digest(dataset, case_id)
            row = rows.get(case_id, {"digest": None, "files": []})
            if row["digest"] != digest or not is_whole(out, row):
                try:
                    append_row(out / MANIFEST, _written(images.case(case_id), out, digest))
                except InputError as error:
                    broken.append(str(error))
            progress.update()
    names = {x.code: x for x in consecutive(dataset.labels)}
    write_json(
        out / SEGMENTS, {i: {"name": x.name, "code": dataset.labels.named(x.name).code} for i, x in names.items()}
    )
    if broken:
        raise InputError(f"{len(broken)} cases cannot be exported: {' | '.join(broken)} The others are in {out}.")
    return [out / case_id for case_id in images.case_ids]


def _digest(dataset: Dataset, case_id: str) -> str:
    """Return what identifies the content of a case: its files, its labels and how we write them."""
    files = {folder: dataset.file(part, case_id) for part, (folder, _) in FOLDERS.items() if dataset.has(part, case_id)}
    hashes = dataset.row(case_id).get("files") or {folder: file_sha256(path) for folder, path in files.items()}
    return fingerprint([LAYOUT, case_id, hashes, dataset.labels.model_dump(mode="json")])


def _written(case: Case, out: Path, digest: str) -> dict[str, Any]:
    """Write one case and return its row."""
    slices = image_series(case, digest)
    with whole_folder(out / case.case_id) as partial:
        (partial / "image").mkdir()
        for number, one in enumerate(slices, start=1):
            one.save_as(partial / "image" / f"{number:04d}.dcm", enforce_file_format=True)
        if case.mask is not None:
            mask = np.stack(_planes(case.mask))
            made = segmentation(case, slices, mask, _uid(digest, "mask"), _uid(digest, "masks"))
            made.save_as(partial / "segmentation.dcm", enforce_file_format=True)
        files = sorted(path.relative_to(partial).as_posix() for path in partial.rglob("*.dcm"))
    return {"case_id": case.case_id, "digest": digest, "files": [f"{case.case_id}/{name}" for name in files]}


def image_series(case: Case, digest: str) -> list[Any]:
    """Return the slices of a case as pydicom datasets, from the feet upwards (or along the third axis).

    Args:
        case: with an image in ``hu`` or ``mr``.
        digest: what the unique identifiers are made of.

    Raises:
        InputError: a sheared grid, an unknown voxel size, or an unknown intensity unit.
    """
    _check(case)
    pydicom = pydicom_package()
    stored, scale = stored_image(case.required_image(), case.intensity_unit)
    common = _common(pydicom, case, digest, scale or (1.0, 0.0))
    slices = []
    for index, plane in enumerate(_planes(stored)):
        one = pydicom.Dataset()
        one.update(common)
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        one.SOPInstanceUID = _uid(digest, f"slice {index}")
        one.InstanceNumber = index + 1
        one.ImagePositionPatient = _numbers(_corner(case, index))
        one.PixelData = np.ascontiguousarray(plane).tobytes()
        slices.append(one)
    return slices


def _check(case: Case) -> None:
    if case.grid.is_sheared:
        raise InputError(
            f"case {case.case_id}: its grid is sheared, which DICOM viewers draw wrongly; straighten it first with "
            "`cardiosynth prepare nnunet DATASET OUT --shape X Y Z`."
        )
    if not case.spacing_known:
        raise InputError(f"case {case.case_id}: its voxel size is unknown; write it into the header first.")
    if case.intensity_unit not in KINDS:
        raise InputError(f"case {case.case_id}: its intensities are neither HU nor MR; state the unit and prepare it.")


def _planes(array: np.ndarray) -> list[np.ndarray]:
    """Return (1, X, Y[, Z]) as slices (rows, columns): rows go backwards, columns to the patient's left."""
    volume = array[0] if array.ndim == 4 else array[0][..., None]
    return [volume[::-1, ::-1, index].T for index in range(volume.shape[2])]


def _corner(case: Case, index: int) -> np.ndarray:
    """Return where the first voxel of a slice lies, in DICOM's axes (left, posterior, superior), mm."""
    voxel = np.array([case.grid.shape[0] - 1, case.grid.shape[1] - 1, index, 1.0])
    return (case.affine @ voxel)[:3] * (-1, -1, 1)


def _numbers(values: Any) -> list[str]:
    """Return numbers as DICOM stores them, in at most 16 characters."""
    valuerep = pydicom_package().valuerep
    return [valuerep.format_number_as_ds(float(value) + 0.0) for value in values]


def _uid(digest: str, what: str) -> str:
    """Return the unique identifier of a part of a case (a UUID of its name, under 2.25)."""
    return f"2.25.{uuid.uuid5(NAMESPACE, f'{digest} {what}').int}"


def _common(pydicom: ModuleType, case: Case, digest: str, scale: tuple[float, float]) -> Any:
    """Return what every slice of a case carries."""
    common = pydicom.Dataset()
    for keyword in EMPTY:
        setattr(common, keyword, "")
    values = {**KINDS[case.intensity_unit], **_identity(case, digest), **_geometry(case), **PIXELS}
    values["RescaleSlope"], values["RescaleIntercept"] = _numbers(scale)
    for keyword, value in values.items():
        setattr(common, keyword, value)
    return common


def _identity(case: Case, digest: str) -> dict[str, Any]:
    mark = "SYNTHETIC" if case.is_simulated else "DERIVED"
    return {
        "SyntheticData": "YES" if case.is_simulated else "NO",
        "PatientName": f"{mark}^{case.case_id}"[:64],
        "PatientID": case.case_id[:64],
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "written from a dataset that holds no identities",
        "StudyInstanceUID": _uid(digest, "study"),
        "SeriesInstanceUID": _uid(digest, "image"),
        "FrameOfReferenceUID": _uid(digest, "space"),
        "SeriesNumber": 1,
        "SeriesDescription": f"{mark} {case.origin} {case.case_id}"[:64],
        "DerivationDescription": f"{case.origin} image by cardiosynth {__version__}; not for diagnosis",
        "Manufacturer": "cardiosynth",
        "ManufacturerModelName": "cardiosynth",
        "SoftwareVersions": __version__,
        "DeviceSerialNumber": "none",
    }


def _geometry(case: Case) -> dict[str, Any]:
    lengths = np.linalg.norm(case.affine[:3, :3], axis=0)
    directions = (case.affine[:3, :3] / lengths) * np.array([[-1], [-1], [1]])
    return {
        "PatientPosition": "HFS",
        "ImageOrientationPatient": _numbers([*-directions[:, 0], *-directions[:, 1]]),
        "PixelSpacing": _numbers([lengths[1], lengths[0]]),
        "SliceThickness": _numbers([lengths[2]])[0],
        "SpacingBetweenSlices": _numbers([lengths[2]])[0],
        "Rows": case.grid.shape[1],
        "Columns": case.grid.shape[0],
    }
