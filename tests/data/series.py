"""DICOM files written for tests: one slice, a series in a folder."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="needs the extra dicom")

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SIZES_MM = (0.5, 0.75)
"""Distance of neighboring rows, of neighboring columns."""


def slice_dataset(values: np.ndarray, position: np.ndarray, number: int, uid: str, **tags: Any):
    """Return an ordinary CT slice; ``values`` (rows, columns) of int16 or uint16 are stored as they are."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = pydicom.uid.CTImageStorage
    dataset.SOPInstanceUID = f"{uid}.{number + 1}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", uid
    dataset.PatientID, dataset.PatientName, dataset.Modality = "4711", "Somebody^Real", "CT"
    dataset.Manufacturer, dataset.ManufacturerModelName = "Maker", "Model 1"
    dataset.ConvolutionKernel, dataset.KVP, dataset.ProtocolName = "B26f", 100, "Heart of Somebody"
    dataset.SliceThickness = 1.0
    dataset.ImagePositionPatient = [round(float(v), 6) for v in position]
    dataset.ImageOrientationPatient, dataset.PixelSpacing = list(AXIAL), list(SIZES_MM)
    dataset.InstanceNumber = number + 1
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.RescaleIntercept, dataset.RescaleSlope = 0, 1
    dataset.PixelData = np.ascontiguousarray(values).tobytes()
    for keyword, value in tags.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    return dataset


def write_series(
    folder: Path,
    values: np.ndarray,
    *,
    step: tuple[float, float, float] = (0.0, 0.0, 2.0),
    origin: tuple[float, float, float] = (-10.0, -20.0, 30.0),
    uid: str = "1.2.3.4",
    of_slice: Callable[[int], Mapping[str, Any]] = lambda number: {},
    **tags: Any,
) -> None:
    """Write ``values`` (slices, rows, columns) as one file per slice, names in no order and without an ending."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(values):
        dataset = slice_dataset(one, np.add(origin, np.multiply(step, number)), number, uid, **tags)
        for keyword, value in of_slice(number).items():
            setattr(dataset, keyword, value)
        name = f"IM{(number * 101) % len(values):03d}_{uid.replace('.', '')}"
        pydicom.dcmwrite(folder / name, dataset, enforce_file_format=True)


def numbers(slices: int, rows: int = 5, columns: int = 4) -> np.ndarray:
    """Return voxels that are all different, from air upwards, (slices, rows, columns) int16."""
    return np.arange(-1000, -1000 + slices * rows * columns, dtype=np.int16).reshape(slices, rows, columns)
