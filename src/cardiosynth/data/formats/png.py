"""PNG slices: 8 or 16 bits of gray as images, gray values or palette indices as masks.

A PNG says nothing of space. Rows are taken to run from anterior to posterior and columns from the patient's right to
left, as radiologists look at an axial slice; the spacing is unknown.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from cardiosynth.core.errors import InputError
from cardiosynth.data.formats.volume import Volume, upright, without_trailing_axes

SEEN_FROM_BELOW = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Affine of a picture of an axial slice: x to the patient's left, y to the back; lengths are not millimeters."""


def read_png(path: Path, content: Literal["image", "mask"] = "image") -> Volume:
    """Read one PNG file as a slice.

    Args:
        path: the file.
        content: what it holds. The palette of an ``image`` must be gray; of a ``mask`` the indices count.

    Raises:
        InputError: damaged, not PNG, or colors where codes or gray values are wanted.
    """
    values = without_trailing_axes(_pixels(path, content).T, path)
    return upright(values, SEEN_FROM_BELOW, spacing_known=False, affine_from="nothing")


def _pixels(path: Path, content: Literal["image", "mask"]) -> np.ndarray:
    """Return the (rows, columns) gray values or codes."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            if picture.mode == "P" and content == "image":
                picture = picture.convert("RGB")
            pixels = np.asarray(picture)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise InputError(f"{path} is truncated, damaged or no PNG ({error}); copy or export it again.") from error
    if pixels.dtype == bool:
        return pixels.astype(np.uint8)
    if pixels.ndim == 2:
        return pixels
    gray = pixels[..., 0]
    if pixels.shape[-1] > 2 and (pixels[..., 1:3] != gray[..., None]).any():
        mend = "one gray value per structure" if content == "mask" else "gray values"
        raise InputError(f"{path} holds colors; export {mend} instead.")
    return gray
