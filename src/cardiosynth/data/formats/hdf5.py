"""HDF5 files with an image and a mask, as preprocessed data sets (WSL4MIS, SSL4MIS) are passed around.

The datasets are (rows, columns) or (slices, rows, columns), the order of SimpleITK's arrays. HDF5 says nothing of
space: the axes are taken as LPS, and the spacing is unknown.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from cardiosynth.core.errors import InputError
from cardiosynth.data.formats.volume import Volume, check_voxel_type, upright, without_trailing_axes

ENDINGS = (".h5", ".hdf5")
NAMES = {"image": ("image", "img", "data"), "mask": ("label", "labels", "mask", "seg")}
"""What a file holds -> names that its dataset may have; the first that is there is read."""


def read_hdf5(path: Path, content: Literal["image", "mask"] = "image") -> Volume:
    """Read the image or the mask of one HDF5 file.

    Raises:
        InputError: the extra is not installed, the file is damaged, or it has no such dataset.
    """
    with _opened(path) as file:
        name = next((name for name in NAMES[content] if name in file), None)
        if name is None:
            wanted = ", ".join(NAMES[content])
            raise InputError(f"{path} holds {', '.join(file)} and none of {wanted}; rename the {content}'s dataset.")
        values = np.asarray(file[name])
    check_voxel_type(values.dtype, path)
    return upright(
        without_trailing_axes(values.T, path), np.diag([-1.0, -1, 1, 1]), spacing_known=False, affine_from="nothing"
    )


def holds(path: Path, content: Literal["image", "mask"]) -> bool:
    """Whether the file has a dataset of this content.

    Raises:
        InputError: the extra is not installed, or the file is damaged.
    """
    with _opened(path) as file:
        return any(name in file for name in NAMES[content])


def _opened(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"{path} needs h5py; install it with: pip install 'cardiosynth[hdf5]'.") from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} is truncated, damaged or no HDF5 ({error}); copy it again.") from error
