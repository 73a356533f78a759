"""Image files by their ending, so that whoever reads one does not care which format it is.

Whatever the format, the result is the same: axis order closest to RAS+, millimeters, values as the header scales
them, an affine that is known or said to be unknown.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from cardiosynth.core.errors import InputError
from cardiosynth.data.formats.nifti import read_nifti
from cardiosynth.data.formats.volume import Volume, as_confidence, as_image, as_mask

READERS: Mapping[str, Callable[[Path], Volume]] = {
    ".nii.gz": read_nifti,
    ".nii": read_nifti,
}
"""Ending in lower case -> its reader; of two endings that fit, the longer stands first."""


def ending(path: Path) -> str:
    """Return the ending of the file's name that says its format; an empty text where no format is known by it."""
    name = path.name.lower()
    return next((ending for ending in READERS if name.endswith(ending)), "")


def is_image_file(path: Path) -> bool:
    """Whether a format is known for the file; hidden files (half-written, or macOS's doubles) are passed over."""
    return bool(ending(path)) and not path.name.startswith(".")


def stem(path: Path) -> str:
    """Return the file's name without the ending that says its format."""
    return path.name[: len(path.name) - len(ending(path))]


def read_volume(path: Path) -> Volume:
    """Read one file, values scaled as its header says, as its own or a floating type.

    Raises:
        InputError: missing, damaged, an unknown format, complex, RGB, more than three-dimensional, or an unusable
            affine.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path.")
    if not ending(path):
        raise InputError(f"{path} is none of {', '.join(READERS)}; convert it to .nii.gz first.")
    return READERS[ending(path)](path)


def read_image(path: Path) -> Volume:
    """Read an image: int16 where every value is an integer that int16 holds, else float32.

    Raises:
        InputError: as `read_volume`, or voxels that are not finite.
    """
    return as_image(read_volume(path), Path(path))


def read_mask(path: Path) -> Volume:
    """Read a label mask as uint8 codes.

    Raises:
        InputError: as `read_volume`, or values that are not whole numbers from 0 to 255.
    """
    return as_mask(read_volume(path), Path(path))


def read_confidence(path: Path) -> Volume:
    """Read a confidence map as float32 in [0, 1].

    Raises:
        InputError: as `read_image`, or values outside [0, 1].
    """
    return as_confidence(read_volume(path), Path(path))
