"""Whether an image repeats another one: what is left when the masks' anatomy and the structures' means are taken away.

Two images of the same protocol agree in their means, and an image made for a mask agrees with every image of that mask
at its borders. Neither is copying. What remains deep inside structures - grain, streaks, uneven contrast - is one
image's own; an image that shares it with another has been copied from it.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from scipy import ndimage


def common_interior(
    masks: Sequence[UInt8[np.ndarray, "*grid"]], codes: Sequence[int], margin: int = 2
) -> Bool[np.ndarray, "*grid"]:
    """Return the voxels that hold one and the same structure in every mask, farther than ``margin`` from any other.

    Args:
        masks: at least one, on one grid.
        codes: the structures that count.
        margin: in voxels, along axes and diagonals alike.
    """
    inside, side = np.isin(masks[0], codes), 2 * margin + 1
    for mask in masks:
        uniform = ndimage.minimum_filter(mask, side) == ndimage.maximum_filter(mask, side)
        inside &= uniform & (mask == masks[0])
    return inside


def texture_correlation(
    x: Shaped[np.ndarray, "*grid"],
    y: Shaped[np.ndarray, "*grid"],
    mask: UInt8[np.ndarray, "*grid"],
    region: Bool[np.ndarray, "*grid"],
) -> float:
    """Return the correlation of two images in a region, each structure's mean there taken away, in [-1, 1].

    NaN where one of them does not vary, or where the region is empty.

    Args:
        x: one image.
        y: the other.
        mask: the structures of both, inside the region.
        region: where to look; see :func:`common_interior`.
    """
    codes = mask[region]
    a, b = (_centered(image[region].astype(np.float64), codes) for image in (x, y))
    power = float((a @ a) * (b @ b))
    return float(a @ b) / power**0.5 if power else float("nan")


def _centered(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    count = np.bincount(codes, minlength=256)
    means = np.bincount(codes, weights=values, minlength=256) / np.maximum(count, 1)
    return values - means[codes]
