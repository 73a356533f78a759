"""NIfTI files: RAS+ axis order, millimeters, values as the header scales them.

What a file says is kept: no voxel value is touched, oblique and sheared affines stay as they are. The sform counts
before the qform, as everywhere; a file with neither has NIfTI's base affine (voxel size only, x to the left, origin
in the center), and where even the voxel sizes are all 1 the spacing is unknown. Trailing axes of length one are
dropped: (X, Y, 1) is a slice, (X, Y, Z, 1) a volume.
"""

import gzip
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.spatialimages import HeaderDataError

from cardiosynth.core.errors import InputError
from cardiosynth.core.store import whole_file
from cardiosynth.core.volume import Grid
from cardiosynth.data.formats.volume import Volume, check_affine, check_voxel_type, upright, without_trailing_axes

ENDINGS = (".nii.gz", ".nii")
MILLIMETERS = {1: 1000.0, 2: 1.0, 3: 0.001}
"""NIfTI's code of the spatial unit (meter, millimeter, micrometer) -> millimeters; unknown is taken as millimeters."""


def is_nifti(path: Path) -> bool:
    """Whether the name ends like a NIfTI file's; hidden files (half-written, or macOS's doubles) are passed over."""
    return path.name.lower().endswith(ENDINGS) and not path.name.startswith(".")


def read_nifti(path: Path) -> Volume:
    """Read one NIfTI file, values scaled by its slope and intercept, as its own or a floating type.

    Raises:
        InputError: damaged, not NIfTI, complex, RGB, more than three-dimensional, or an unusable affine.
    """
    header, values = _load(path)
    values = without_trailing_axes(values, path)
    affine, affine_from = _affine(header, values.ndim, path)
    zooms = [float(v) for v in header["pixdim"][1 : 1 + values.ndim]]
    known = affine_from != "voxel_size" or any(zoom not in (0.0, 1.0) for zoom in zooms)
    description = bytes(header["descrip"]).split(b"\0")[0].decode("latin-1").strip()
    return upright(values, affine, known, affine_from, description)


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
    try:
        image = nib.load(path)  # pyright: ignore[reportPrivateImportUsage]
        assert isinstance(image, Nifti1Image), type(image)
        check_voxel_type(image.header.get_data_dtype(), path)
        return image.header, np.asanyarray(image.dataobj)
    except InputError:
        raise
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError) as error:
        raise InputError(f"{path} is truncated or damaged ({error}); copy or export it again.") from error


def _affine(header: Nifti1Header, ndim: int, path: Path) -> tuple[np.ndarray, str]:
    origin = "sform" if int(header["sform_code"]) > 0 else "qform" if int(header["qform_code"]) > 0 else "voxel_size"
    affine = np.array(header.get_best_affine(), np.float64)
    affine[:3] *= MILLIMETERS.get(int(header["xyzt_units"]) & 7, 1.0)
    if ndim == 2 and not affine[:3, 2].any():
        affine[:3, 2] = np.cross(affine[:3, 0], affine[:3, 1]) / max(np.linalg.norm(affine[:3, 0]), 1e-9)
    check_affine(affine, path, origin)
    return affine, origin
