"""Structural similarity at several scales at once: MS-SSIM, of an image with its original or of synthetic images.

Between an image and its original, higher is more faithful; among synthetic images, lower is more diverse.
"""

import numpy as np
from jaxtyping import Float, Shaped
from scipy import ndimage

from cardiosynth.core.errors import InputError
from cardiosynth.metrics.fidelity import SSIM_SIDE, SSIM_SIGMA

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponent of each scale, finest first (Wang et al. 2003)."""


def num_scales(shape: tuple[int, ...]) -> int:
    """Return how many of the five scales an image has: halved so often, its shortest long axis still has 11 voxels.

    Axes with fewer than 11 voxels do not count, since slices across them are compared one by one.

    Raises:
        InputError: fewer than two axes have 11 voxels.
    """
    long = [size for size in shape if size >= SSIM_SIDE]
    if len(long) < 2:
        raise InputError(f"MS-SSIM needs 11 voxels along two axes and the image is {shape}; use a larger grid.")
    return min(len(SCALE_WEIGHTS), int(np.log2(min(long) / SSIM_SIDE)) + 1)


def ms_ssim(x: Shaped[np.ndarray, "*grid"], y: Shaped[np.ndarray, "*grid"], data_range: float) -> float:
    """Return multi-scale structural similarity, in [0, 1] (Wang et al. 2003, Eq. 7; FQCDM Eq. 22 with the product).

    At every scale but the coarsest the contrast and structure terms count, at the coarsest luminance too; each to the
    power of its weight, and all multiplied. Windows and constants as in ``ssim``, means over the windows that lie
    inside the image, scales made by averaging 2 voxels along each axis. An image too small for five scales
    (:func:`num_scales`) has fewer, and their weights are divided by their sum. Along an axis with fewer than 11
    voxels, such as the slices of a short-axis stack, each slice is compared on its own.

    Args:
        x: one image, (X, Y, Z) or (X, Y).
        y: the other, in the same unit.
        data_range: the width of the intensity window: 1 for images in [0, 1].

    Raises:
        InputError: fewer than two axes have 11 voxels.
    """
    weights = np.array(SCALE_WEIGHTS[: num_scales(x.shape)])
    short = [axis for axis, size in enumerate(x.shape) if size < SSIM_SIDE]
    if short:
        axis = short[0]
        each = [ms_ssim(np.take(x, i, axis), np.take(y, i, axis), data_range) for i in range(x.shape[axis])]
        return float(np.mean(each))
    a, b, terms = x.astype(np.float32), y.astype(np.float32), []
    for _ in weights:
        terms.append(_similarity_and_structure(a, b, data_range))
        a, b = _halved(a), _halved(b)
    values = [structure for _, structure in terms[:-1]] + [terms[-1][0]]
    return float(np.prod(np.maximum(values, 0.0) ** (weights / weights.sum())))


def _similarity_and_structure(
    x: Float[np.ndarray, "*grid"], y: Float[np.ndarray, "*grid"], data_range: float
) -> tuple[float, float]:
    """Return the means of SSIM and of its contrast and structure terms over the windows inside the image."""
    inner = (slice(SSIM_SIDE // 2, -(SSIM_SIDE // 2)),) * x.ndim
    mean_x, mean_y, xx, yy, xy = (
        ndimage.gaussian_filter(image, SSIM_SIGMA, radius=SSIM_SIDE // 2)[inner]
        for image in (x, y, x * x, y * y, x * y)
    )
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    structure = (2 * (xy - mean_x * mean_y) + c2) / (xx - mean_x**2 + yy - mean_y**2 + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float((luminance * structure).mean(dtype=np.float64)), float(structure.mean(dtype=np.float64))


def _halved(x: Float[np.ndarray, "*grid"]) -> Float[np.ndarray, "*half"]:
    """Return the means of neighboring voxels, two along each axis; an odd last one is left out."""
    even = x[tuple(slice(size // 2 * 2) for size in x.shape)]
    blocks = [part for size in x.shape for part in (size // 2, 2)]
    return even.reshape(blocks).mean(axis=tuple(range(1, 2 * x.ndim, 2)))
