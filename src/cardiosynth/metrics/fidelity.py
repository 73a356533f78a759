"""How alike two images are, and whether structures keep their intensity and their contrast.

Every function takes images in the caller's unit: HU (or MR values) as stored, or [0, 1] behind an intensity window.
What is computed per structure is NaN where the structure is absent.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import ndimage

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import Label

SSIM_SIGMA = 1.5
SSIM_SIDE = 11
"""Side in voxels of the Gaussian window at sigma 1.5 (Wang et al. 2004)."""

SMALLEST_CONTRAST = 20.0
"""HU below which the ratio of two contrasts is noise over noise."""


def rmse(x: Shaped[np.ndarray, "*grid"], y: Shaped[np.ndarray, "*grid"]) -> float:
    """Return the root mean square difference in the images' unit, 0 or more (FCaS Eq. 11)."""
    return float(np.sqrt(np.mean(np.square(np.subtract(x, y, dtype=np.float64)))))


def psnr(x: Shaped[np.ndarray, "*grid"], y: Shaped[np.ndarray, "*grid"], data_range: float) -> float:
    """Return the peak signal-to-noise ratio, 20 log10(data_range / RMSE), in dB; infinite for equal images.

    Args:
        x: one image.
        y: the other, in the same unit.
        data_range: the width of the intensity window: 1 for images in [0, 1].
    """
    error = rmse(x, y)
    return 20 * float(np.log10(data_range / error)) if error else float("inf")


def ssim_map(
    x: Shaped[np.ndarray, "*grid"], y: Shaped[np.ndarray, "*grid"], data_range: float
) -> Float[np.ndarray, "*grid"]:
    """Return the local structural similarity at every voxel, in [-1, 1] (FCaS Eq. 10).

    Gaussian window with sigma 1.5 voxels, K1 = 0.01, K2 = 0.03, population covariance (Wang et al. 2004), in 3D.
    Along an axis with fewer voxels than the window has (11), such as the slices of a short-axis stack, each
    slice is compared on its own.

    Args:
        x: one image, (X, Y, Z) or (X, Y).
        y: the other, in the same unit.
        data_range: the width of the intensity window.

    Raises:
        InputError: fewer than two axes have 11 voxels.
    """
    from skimage.metrics import structural_similarity

    short = [axis for axis, size in enumerate(x.shape) if size < SSIM_SIDE]
    if x.ndim - len(short) < 2:
        raise InputError(f"SSIM needs 11 voxels along two axes and the image is {x.shape}; use a larger grid.")
    if short:
        axis = short[0]
        slices = [ssim_map(np.take(x, i, axis), np.take(y, i, axis), data_range) for i in range(x.shape[axis])]
        return np.stack(slices, axis)
    local = structural_similarity(
        x.astype(np.float32), y.astype(np.float32), data_range=data_range,
        gaussian_weights=True, sigma=SSIM_SIGMA, use_sample_covariance=False, full=True,
    )[1]  # fmt: skip
    return np.asarray(local)


def ssim(
    x: Shaped[np.ndarray, "*grid"],
    y: Shaped[np.ndarray, "*grid"],
    data_range: float,
    region: Bool[np.ndarray, "*grid"] | None = None,
) -> float:
    """Return the mean structural similarity, in [-1, 1] (FCaS Eq. 10, windows and edges as in ``ssim_map``).

    Args:
        x: one image, (X, Y, Z) or (X, Y).
        y: the other, in the same unit.
        data_range: the width of the intensity window: 1 for images in [0, 1].
        region: where to take the mean, e.g. the heart; None for every voxel whose window lies inside the image.
            An empty region gives NaN.
    """
    local = ssim_map(x, y, data_range)
    if region is not None:
        return float(local[region].mean(dtype=np.float64)) if region.any() else float("nan")
    margin = SSIM_SIDE // 2
    inner = tuple(slice(margin, n - margin) if n >= SSIM_SIDE else slice(None) for n in local.shape)
    return float(local[inner].mean(dtype=np.float64))


def slice_step(image: Shaped[np.ndarray, "*grid"], axis: int) -> float:
    """Return the mean absolute difference of neighboring slices across an axis, in the image's unit; NaN for one slice.

    A volume that was made slice by slice has larger steps across its slices than real ones have.
    """
    steps = np.abs(np.diff(image.astype(np.float64), axis=axis))
    return float(steps.mean()) if steps.size else float("nan")


def structure_means(image: Shaped[np.ndarray, "*grid"], mask: Shaped[np.ndarray, "*grid"]) -> Float[np.ndarray, "256"]:
    """Return the mean intensity inside every code 0..255 of ``mask``, in the image's unit; NaN where absent."""
    codes = mask.ravel()
    count = np.bincount(codes, minlength=256).astype(np.float64)
    total = np.bincount(codes, weights=image.ravel().astype(np.float64), minlength=256)
    return np.divide(total, count, out=np.full(256, np.nan), where=count > 0)


def structure_contrast(
    image_hu: Shaped[np.ndarray, "*grid"], mask: Shaped[np.ndarray, "*grid"], code: int, shell_voxels: int = 2
) -> float:
    """Return the mean inside a structure minus the mean in the shell around it, in the image's unit.

    The shell holds every voxel outside the structure within ``shell_voxels`` (Euclidean, in voxels) of it, whatever
    it is: fat around a coronary artery, myocardium around a ventricle. NaN where the structure or the shell is empty.
    """
    box = _box(mask == code, shell_voxels)
    if box is None:
        return float("nan")
    inside, values = mask[box] == code, image_hu[box]
    shell = ~inside & (np.asarray(ndimage.distance_transform_edt(~inside)) <= shell_voxels)
    if not shell.any():
        return float("nan")
    return float(values[inside].mean(dtype=np.float64) - values[shell].mean(dtype=np.float64))


def contrast_kept(
    reconstructed: Shaped[np.ndarray, "*grid"],
    original: Shaped[np.ndarray, "*grid"],
    mask: Shaped[np.ndarray, "*grid"],
    labels: Iterable[Label],
    shell_voxels: int = 2,
) -> dict[str, float]:
    """Return each structure's contrast in ``reconstructed`` over its contrast in ``original``, by name.

    1 is a structure that stands out as before, 0 one that has vanished into its surroundings. NaN where the structure
    is absent or its original contrast is below ``SMALLEST_CONTRAST``. Both images in HU, on one grid.
    """
    kept = {}
    for label in labels:
        before = structure_contrast(original, mask, label.code, shell_voxels)
        after = structure_contrast(reconstructed, mask, label.code, shell_voxels)
        kept[label.name] = after / before if abs(before) >= SMALLEST_CONTRAST else float("nan")
    return kept


def structure_psnr(
    x: Shaped[np.ndarray, "*grid"],
    y: Shaped[np.ndarray, "*grid"],
    mask: Shaped[np.ndarray, "*grid"],
    labels: Iterable[Label],
    data_range: float,
) -> dict[str, float]:
    """Return, by name, the peak signal-to-noise ratio of the voxels inside each structure, in dB; NaN where absent.

    Args:
        x: one image.
        y: the other, in the same unit.
        mask: codes on the same grid.
        labels: the structures.
        data_range: the width of the intensity window.
    """
    squares = structure_means(np.square(np.subtract(x, y, dtype=np.float64)), mask)
    with np.errstate(divide="ignore"):
        return {label.name: float(10 * np.log10(data_range**2 / squares[label.code])) for label in labels}


def mean_hu_error(
    reconstructed: Shaped[np.ndarray, "*grid"],
    original: Shaped[np.ndarray, "*grid"],
    mask: Shaped[np.ndarray, "*grid"],
    labels: Iterable[Label],
) -> dict[str, float]:
    """Return, by name, mean intensity inside each structure in ``reconstructed`` minus in ``original``, with sign."""
    error = structure_means(reconstructed, mask) - structure_means(original, mask)
    return {label.name: float(error[label.code]) for label in labels}


def _box(inside: Bool[np.ndarray, "*grid"], margin: int) -> tuple[slice, ...] | None:
    """Return the bounding box of ``inside`` widened by ``margin`` voxels, None where it is empty."""
    box: Sequence[slice] | None = next(iter(ndimage.find_objects(inside.astype(np.uint8))), None)
    return None if box is None else tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in box)
