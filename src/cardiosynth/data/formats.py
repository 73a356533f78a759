"""NIfTI files, read and written here only: RAS+ axis order, millimeters, values as the header scales them.

What a file says is kept: no voxel value is touched, oblique and sheared affines stay as they are. The sform counts
before the qform, as everywhere; a file with neither has NIfTI's base affine (voxel size only, x to the left, origin
in the center), and where even the voxel sizes are all 1 the spacing is unknown. Trailing axes of length one are
dropped: (X, Y, 1) is a slice, (X, Y, Z, 1) a volume.
"""

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.spatialimages import HeaderDataError

from cardiosynth.core.errors import InputError
from cardiosynth.core.store import whole_file
from cardiosynth.core.volume import Grid, to_ras

ENDINGS = (".nii.gz", ".nii")
MILLIMETERS = {1: 1000.0, 2: 1.0, 3: 0.001}
"""NIfTI's code of the spatial unit (meter, millimeter, micrometer) -> millimeters; unknown is taken as millimeters."""


@dataclass(frozen=True, eq=False)
class Volume:
    """One image file.

    Attributes:
        array: (1, X, Y, Z) or (1, X, Y), axes closest to RAS+.
        affine: (4, 4) float64, voxel index to RAS+ millimeters.
        spacing_known: False where the file carries no voxel size.
        facts: what the header says: ``affine_from`` (sform, qform or voxel_size), ``axis_codes`` as stored,
            ``sheared``, ``description``.
    """

    array: np.ndarray
    affine: np.ndarray
    spacing_known: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """Shape and affine."""
        return Grid(self.array.shape[1:], self.affine)


def is_nifti(path: Path) -> bool:
    """Whether the name ends like a NIfTI file's; hidden files (half-written, or macOS's doubles) are passed over."""
    return path.name.lower().endswith(ENDINGS) and not path.name.startswith(".")


def stem(path: Path) -> str:
    """Return the file's name without ``.nii.gz`` or ``.nii``."""
    for ending in ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.name


def read_volume(path: Path) -> Volume:
    """Read one NIfTI file, values scaled by its slope and intercept, as its own or a floating type.

    Raises:
        InputError: missing, damaged, not NIfTI, complex, RGB, more than three-dimensional, or an unusable affine.
    """
    path = Path(path)
    header, values = _load(path)
    values = _without_trailing_axes(values, path)
    affine, facts = _affine(header, values.ndim, path)
    array, affine = to_ras(values[None], affine)
    facts["sheared"] = Grid(values.shape, affine).is_sheared
    zooms = [float(v) for v in header["pixdim"][1 : 1 + values.ndim]]
    known = facts["affine_from"] != "voxel_size" or any(zoom not in (0.0, 1.0) for zoom in zooms)
    return Volume(array, affine, known, facts)


def read_image(path: Path) -> Volume:
    """Read an image: int16 where every value is an integer that int16 holds, else float32.

    Raises:
        InputError: as `read_volume`, or voxels that are not finite.
    """
    volume = read_volume(path)
    values = volume.array
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise InputError(f"{path}: {bad} voxels are not finite; replace NaN and infinity by the value of air.")
    fits = values.min() >= -32768 and values.max() <= 32767
    whole = values.dtype.kind != "f" or bool((values == np.rint(values)).all())
    array = values.astype(np.int16 if fits and whole else np.float32)
    return Volume(array, volume.affine, volume.spacing_known, volume.facts)


def read_mask(path: Path) -> Volume:
    """Read a label mask as uint8 codes.

    Raises:
        InputError: as `read_volume`, or values that are not whole numbers from 0 to 255.
    """
    volume = read_volume(path)
    values = volume.array
    if values.dtype.kind == "f" and not (values == np.rint(values)).all():
        raise InputError(f"{path}: the mask holds fractions; export it with one whole number per structure.")
    low, high = values.min(), values.max()
    if low < 0 or high > 255:
        raise InputError(f"{path}: mask codes run from {low:g} to {high:g}; renumber the structures to 1..255.")
    return Volume(values.astype(np.uint8), volume.affine, volume.spacing_known, volume.facts)


def read_confidence(path: Path) -> Volume:
    """Read a confidence map as float32 in [0, 1].

    Raises:
        InputError: as `read_image`, or values outside [0, 1].
    """
    volume = read_image(path)
    values = volume.array.astype(np.float32)
    if values.min() < -1e-6 or values.max() > 1 + 1e-6:
        raise InputError(f"{path}: confidence runs from {values.min():g} to {values.max():g}; scale it to [0, 1].")
    return Volume(values.clip(0, 1), volume.affine, volume.spacing_known, volume.facts)


def write_nifti(
    path: Path,
    array: np.ndarray,
    affine: np.ndarray,
    *,
    description: str = "",
    scale: tuple[float, float] | None = None,
) -> None:
    """Write one NIfTI file, whole or not at all; equal content gives equal bytes (gzip level 1, no time stamp).

    Args:
        path: file to write, ``.nii.gz`` or ``.nii``.
        array: (1, X, Y, Z) or (1, X, Y), stored as it is; a slice is stored as (X, Y, 1).
        affine: (4, 4); goes to the sform, and to the qform too where it is not sheared, both with code 1 (scanner).
        description: at most 79 ASCII characters.
        scale: slope and intercept that readers apply to the stored values.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    voxels = array[0] if array.ndim == 4 else array[0][..., None]
    image = Nifti1Image(voxels, affine, dtype=voxels.dtype)
    sheared = Grid(voxels.shape, affine).is_sheared
    image.set_sform(affine, code=1)
    image.set_qform(None if sheared else affine, code=0 if sheared else 1)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(*(scale or (1.0, 0.0)))
    image.header["descrip"] = description.encode("ascii", "replace")[:79]
    content = image.to_bytes()
    with whole_file(Path(path)) as partial:
        partial.write_bytes(gzip.compress(content, 1, mtime=0) if path.name.endswith(".gz") else content)


def _load(path: Path) -> tuple[Nifti1Header, np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path.")
    if not path.name.lower().endswith(ENDINGS):
        raise InputError(f"{path} is not NIfTI; convert it to .nii.gz first.")
    try:
        image = nib.load(path)  # pyright: ignore[reportPrivateImportUsage]
        assert isinstance(image, Nifti1Image), type(image)
        _check_voxel_type(image.header.get_data_dtype(), path)
        return image.header, np.asanyarray(image.dataobj)
    except InputError:
        raise
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError) as error:
        raise InputError(f"{path} is truncated or damaged ({error}); copy or export it again.") from error


def _check_voxel_type(dtype: np.dtype, path: Path) -> None:
    if dtype.names is not None:
        raise InputError(f"{path} holds RGB colors; export the gray values instead.")
    if dtype.kind == "c":
        raise InputError(f"{path} holds complex numbers; export the magnitude image instead.")
    if dtype.kind not in "iuf":
        raise InputError(f"{path} holds voxels of type {dtype}; export integers or floating-point numbers.")


def _without_trailing_axes(values: np.ndarray, path: Path) -> np.ndarray:
    while values.ndim > 2 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim > 3:
        frames = int(np.prod(values.shape[3:]))
        raise InputError(f"{path} holds {frames} frames of {values.shape[:3]}; write one frame to a file of its own.")
    if values.ndim < 2 or 0 in values.shape:
        raise InputError(f"{path} has the shape {values.shape}; give a slice or a volume.")
    return values


def _affine(header: Nifti1Header, ndim: int, path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    origin = "sform" if int(header["sform_code"]) > 0 else "qform" if int(header["qform_code"]) > 0 else "voxel_size"
    affine = np.array(header.get_best_affine(), np.float64)
    affine[:3] *= MILLIMETERS.get(int(header["xyzt_units"]) & 7, 1.0)
    if ndim == 2 and not affine[:3, 2].any():
        affine[:3, 2] = np.cross(affine[:3, 0], affine[:3, 1]) / max(np.linalg.norm(affine[:3, 0]), 1e-9)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{path}: its {origin} is not an invertible finite matrix; mend the header's orientation.")
    codes = "".join(nib.orientations.aff2axcodes(affine))
    description = bytes(header["descrip"]).split(b"\0")[0].decode("latin-1").strip()
    return affine, {"affine_from": origin, "axis_codes": codes, "description": description}
