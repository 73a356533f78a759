"""What a NIfTI header says more than once, read without the voxels: where the file is, and how large a voxel is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Image
from nibabel.spatialimages import HeaderDataError

from cardiosynth.core.errors import InputError
from cardiosynth.core.volume import Grid
from cardiosynth.data.formats.nifti import MILLIMETERS


@dataclass(frozen=True, eq=False)
class Header:
    """The parts of a header that may contradict each other.

    Attributes:
        sform: grid by the sform, None where its code is 0.
        qform: grid by the qform, None where its code is 0.
        pixdim_mm: voxel size per axis.
        description: free text, ``SYNTHETIC ...`` for an image that no scanner made.
    """

    sform: Grid | None
    qform: Grid | None
    pixdim_mm: tuple[float, ...]
    description: str


def read_header(path: Path) -> Header:
    """Read the header of a NIfTI file.

    Raises:
        InputError: missing, damaged or not NIfTI.
    """
    try:
        image = nib.load(path)  # pyright: ignore[reportPrivateImportUsage]
    except (OSError, EOFError, ValueError, ImageFileError, HeaderDataError) as error:
        raise InputError(f"{path} cannot be read as NIfTI ({error}); copy or export it again.") from error
    assert isinstance(image, Nifti1Image), type(image)
    header, shape = image.header, tuple(image.shape[:3])
    shape += (1,) * (3 - len(shape))
    scale = MILLIMETERS.get(int(header["xyzt_units"]) & 7, 1.0)
    return Header(
        sform=_grid(header.get_sform(coded=True), shape, scale),
        qform=_grid(header.get_qform(coded=True), shape, scale),
        pixdim_mm=tuple(float(v) * scale for v in header["pixdim"][1:4]),
        description=bytes(header["descrip"]).split(b"\0")[0].decode("latin-1").strip(),
    )


def _grid(coded: Any, shape: tuple[int, ...], scale: float) -> Grid | None:
    """Return the grid of an affine with its code, None where the code says that there is none."""
    affine, code = coded
    return Grid(shape, np.diag([scale, scale, scale, 1.0]) @ np.asarray(affine)) if int(code) > 0 else None
