"""DICOM images, read here only: what the header of a file says of each frame, and a frame's voxels.

A file of one slice holds one frame, an enhanced multi-frame file holds many; both look the same from here on. Names
of patients stay in this record and in `stack`; nothing that is stored or printed carries them.
"""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cardiosynth.core.errors import InputError

AIR_HU = -1024.0
"""What takes the place of padding in CT: the lowest value that scanners write for air."""
HIGHEST_HU = 3071.0
"""What 12 bits hold; a padding value between air and this would stand for tissue and is not believed."""
SCANNER = (
    "Manufacturer", "ManufacturerModelName", "ProtocolName", "ConvolutionKernel", "KVP", "SliceThickness",
    "ContrastBolusAgent", "GantryDetectorTilt", "MagneticFieldStrength",
)  # fmt: skip
"""What is read of the scanner and its settings."""
MOMENTS = {
    "NominalPercentageOfCardiacPhase": "cardiac phase",
    "NominalCardiacTriggerDelayTime": "trigger time",
    "TriggerTime": "trigger time",
    "TemporalPositionIdentifier": "temporal position",
    "TemporalPositionIndex": "temporal position",
    "AcquisitionNumber": "acquisition",
    "EffectiveEchoTime": "echo time",
    "EchoTime": "echo time",
    "ConvolutionKernel": "kernel",
    "ImageType": "image type",
}
"""What may tell slices at one place apart, and its name in words."""
GROUPS = (
    "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence", "PixelValueTransformationSequence",
    "FrameContentSequence", "CardiacSynchronizationSequence", "MREchoSequence", "MRAveragesSequence",
    "CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "CTReconstructionSequence", "CTXRayDetailsSequence",
    "CTAcquisitionDetailsSequence",
)  # fmt: skip
"""Functional groups of an enhanced file that hold what an ordinary file has at its top."""
OF_FRAME = (
    *SCANNER, *MOMENTS, "FrameType", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
    "RescaleIntercept", "RescaleType",
)  # fmt: skip
"""What may stand at a file's top or in a functional group."""
OF_FILE = (
    "Modality", "SOPInstanceUID", "PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID", "Rows",
    "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "PixelRepresentation", "SyntheticData", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    """What all frames of an ordinary series share.

    Attributes:
        patient: the hospital's identifier, else the name, else the study's; never stored as it is.
        study: the study's unique identifier.
        series: the series' unique identifier.
        modality: CT, MR, ...
        image_type: e.g. ``("ORIGINAL", "PRIMARY", "AXIAL")``.
        photometric: ``MONOCHROME2``, where greater is brighter, or another.
        rescale_type: what the rescaled values are, ``HU`` or empty in CT.
        synthetic: whether the file says that no scanner made it.
        scanner: keyword of `SCANNER` -> its value, where there is one.
    """

    patient: str
    study: str
    series: str
    modality: str
    image_type: tuple[str, ...]
    photometric: str
    rescale_type: str
    synthetic: bool
    scanner: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """One slice in space.

    Attributes:
        path: the file.
        index: number of the frame in its file, 0 in an ordinary one.
        header: what it shares with others.
        instance: the file's unique identifier.
        position_mm: center of the first voxel, in DICOM's axes (left, posterior, superior).
        orientation: direction of a row's voxels and of a column's voxels, two unit vectors in the same axes.
        spacing_mm: distance of neighboring rows, of neighboring columns.
        shape: number of rows, of columns.
        slope: stored values times this ...
        intercept: ... plus this are the image's values.
        padding: lowest and highest stored value that stand for no measurement, None where there is none.
        moments: keyword of `MOMENTS` -> its value, where there is one.
    """

    path: Path
    index: int
    header: Header
    instance: str
    position_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    shape: tuple[int, int]
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    moments: tuple[tuple[str, Any], ...]

    @property
    def normal(self) -> np.ndarray:
        """The unit vector (3,) at right angles to the slice, in DICOM's axes."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def is_whole(self) -> bool:
        """Whether every rescaled value is a whole number."""
        return self.slope == round(self.slope) and self.intercept == round(self.intercept)


def pydicom_package() -> ModuleType:
    """Return pydicom.

    Raises:
        InputError: it is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise InputError("DICOM needs the extra dicom; run: pip install 'cardiosynth[dicom]'") from error
    return pydicom


def read_frames(path: Path) -> tuple[list[Frame], str]:
    """Return the frames of a file, or none and the reason in words: it is passed over, not broken."""
    pydicom = pydicom_package()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values that break a rule of spelling are read all the same
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*OF_FRAME, *OF_FILE])
            return _frames(path, dataset)
    except pydicom.errors.InvalidDicomError:
        return [], "no DICOM"
    except (OSError, EOFError, ValueError, TypeError, AttributeError, NotImplementedError, IndexError) as error:
        return [], f"damaged ({type(error).__name__})"


def read_voxels(frame: Frame) -> np.ndarray:
    """Return the values of a frame (rows, columns), rescaled, padding replaced by air (CT) or 0 (MR).

    Whole numbers come as int32, others as float32.

    Raises:
        InputError: truncated, or compressed in a way for which nothing is installed.
    """
    pixels = pydicom_package().pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stored = pixels.pixel_array(frame.path, index=frame.index, raw=True, correct_unused_bits=True)
    except RuntimeError as error:
        raise InputError(
            f"{frame.path}: its compression cannot be read ({error}); run: pip install 'cardiosynth[dicom]', or "
            "decompress the files first."
        ) from error
    except (OSError, EOFError, ValueError, AttributeError) as error:
        raise InputError(f"{frame.path} is truncated or damaged ({error}); copy or export it again.") from error
    values = stored.astype(np.int32 if frame.is_whole else np.float32)
    values = values * values.dtype.type(frame.slope) + values.dtype.type(frame.intercept)
    if (fill := _padding_fill(frame)) is not None and frame.padding is not None:
        values[(stored >= frame.padding[0]) & (stored <= frame.padding[1])] = fill
    return values


def _padding_fill(frame: Frame) -> float | None:
    """Return what replaces padding, None where its value lies within what tissue measures."""
    if frame.padding is None:
        return None
    if frame.header.modality != "CT":
        return 0.0
    low, high = (value * frame.slope + frame.intercept for value in frame.padding)
    return AIR_HU if high < AIR_HU or low > HIGHEST_HU else None


def _frames(path: Path, dataset: Any) -> tuple[list[Frame], str]:
    if "Modality" not in dataset:
        return [], "no image (a directory of files)"
    modality = str(dataset.Modality)
    if "Rows" not in dataset or "Columns" not in dataset:
        return [], f"no image ({modality})"
    if dataset.get("SamplesPerPixel", 1) != 1:
        return [], f"a color picture ({modality})"
    count = int(dataset.get("NumberOfFrames", 1) or 1)
    frames = [_frame(path, dataset, index) for index in range(count)]
    placed = [frame for frame in frames if frame is not None]
    return (placed, "") if len(placed) == count else ([], f"an image without a place in space ({modality})")


def _frame(path: Path, dataset: Any, index: int) -> Frame | None:
    found = _attributes(dataset, index)
    places = [found.get(name) for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")]
    if [len(place or ()) for place in places] != [3, 6, 2]:
        return None
    position, orientation, spacing = (tuple(float(v) for v in place or ()) for place in places)
    return Frame(
        path=path,
        index=index,
        header=_header(dataset, found),
        instance=str(dataset.get("SOPInstanceUID", path.name)),
        position_mm=position,
        orientation=orientation,
        spacing_mm=spacing,
        shape=(int(dataset.Rows), int(dataset.Columns)),
        slope=float(found.get("RescaleSlope", 1.0)),
        intercept=float(found.get("RescaleIntercept", 0.0)),
        padding=_padding(dataset),
        moments=tuple((name, found[name]) for name in MOMENTS if name in found),
    )


def _attributes(dataset: Any, index: int) -> dict[str, Any]:
    """Return keyword -> plain value of one frame: of its own functional groups, the shared ones, the file's top."""
    places = [dataset]
    for name, item in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", index)):
        if name in dataset:
            group = dataset[name].value[item]
            places += [group[part].value[0] for part in GROUPS if part in group and len(group[part].value)]
    found = {}
    for place in places:
        for keyword in OF_FRAME:
            if keyword in place and (value := place.get(keyword)) not in (None, ""):
                found["ImageType" if keyword == "FrameType" else keyword] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    """Return a number as float, a text as str, several values as a tuple of them."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_plain(item) for item in value)
    return float(value) if isinstance(value, float | int) else str(value)


def _header(dataset: Any, found: Mapping[str, Any]) -> Header:
    study = str(dataset.get("StudyInstanceUID", ""))
    image_type = found.get("ImageType", ())
    return Header(
        patient=str(dataset.get("PatientID") or dataset.get("PatientName") or study),
        study=study,
        series=str(dataset.get("SeriesInstanceUID", "")),
        modality=str(dataset.Modality),
        image_type=image_type if isinstance(image_type, tuple) else (image_type,),
        photometric=str(dataset.get("PhotometricInterpretation", "MONOCHROME2")),
        rescale_type=str(found.get("RescaleType", "")),
        synthetic=dataset.get("SyntheticData") == "YES",
        scanner=tuple((name, found[name]) for name in SCANNER if name in found),
    )


def _padding(dataset: Any) -> tuple[int, int] | None:
    """Return the range of stored padding values, read as signed where the voxels are."""
    ends = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        value = dataset.get(keyword)
        with suppress(TypeError, ValueError):  # not a number: there is no padding to be known
            number = int(value)
            signed = dataset.get("PixelRepresentation", 0) == 1
            number %= 1 << 16
            ends.append(number - (1 << 16) if signed and number >= 1 << 15 else number)
    return (min(ends), max(ends)) if ends else None
