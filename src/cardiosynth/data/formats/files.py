"""Image files by their ending, so that whoever reads one does not care which format it is.

Whatever the format, the result is the same: axis order closest to RAS+, millimeters, values as the header scales
them, an affine that is known or said to be unknown.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from cardiosynth.core.errors import InputError
from cardiosynth.data.formats.hdf5 import read_hdf5
from cardiosynth.data.formats.nifti import read_nifti
from cardiosynth.data.formats.nrrd import read_nrrd
from cardiosynth.data.formats.png import read_png
from cardiosynth.data.formats.volume import Volume, as_confidence, as_image, as_mask

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".png", ".h5", ".hdf5")
"""What names of readable files end in, in lower case; of two that fit, the longer stands first."""


def ending(path: Path) -> str:
    """Return the ending of the file's name that says its format; an empty text where no format is known by it."""
    name = path.name.lower()
    return next((ending for ending in ENDINGS if name.endswith(ending)), "")


def is_image_file(path: Path) -> bool:
    """Whether a format is known for the file; hidden files (half-written, or macOS's doubles) are passed over."""
    return bool(ending(path)) and not path.name.startswith(".")


def stem(path: Path) -> str:
    """Return the file's name without the ending that says its format."""
    return path.name[: len(path.name) - len(ending(path))]


def read_volume(path: Path, content: Literal["image", "mask"] = "image") -> Volume:
    """Read one file, values scaled as its header says, as its own or a floating type.

    Args:
        path: the file.
        content: what is wanted of a file that may hold either (HDF5), or says differently (a palette).

    Raises:
        InputError: missing, damaged, an unknown format, complex, RGB, more than three-dimensional, or an unusable
            affine.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path.")
    match ending(path):
        case ".nii.gz" | ".nii":
            return read_nifti(path)
        case ".nrrd" | ".nhdr":
            return read_nrrd(path)
        case ".png":
            return read_png(path, content)
        case ".h5" | ".hdf5":
            return read_hdf5(path, content)
        case _:
            raise InputError(f"{path} is none of {', '.join(ENDINGS)}; convert it to .nii.gz first.")


def read_image(path: Path) -> Volume:
    """Read an image: int16 where every value is an integer that int16 holds, else float32.

    Raises:
        InputError: as `read_volume`, or voxels that are not finite.
    """
    return as_image(read_volume(path), Path(path))


def read_mask(path: Path, codes: Mapping[int, int] | None = None) -> Volume:
    """Read a label mask as uint8 codes.

    Args:
        path: the file.
        codes: code in the file -> code wanted, where files count beyond 255 or have strays; None keeps them.

    Raises:
        InputError: as `read_volume`, or values that are not whole numbers from 0 to 255, or not in ``codes``.
    """
    return as_mask(read_volume(path, "mask"), Path(path), codes)


def read_confidence(path: Path) -> Volume:
    """Read a confidence map as float32 in [0, 1].

    Raises:
        InputError: as `read_image`, or values outside [0, 1].
    """
    return as_confidence(read_volume(path), Path(path))
