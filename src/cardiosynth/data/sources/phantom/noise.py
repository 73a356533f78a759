"""Image noise of a CT: correlated within the slice as the kernel has it, a little across slices."""

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from cardiosynth.core.random import numpy_generator
from cardiosynth.data.sources.phantom.protocol import Protocol

NEIGHBOR_SHARE = 0.45
"""Weight of each neighboring slice: slices of a helical scan overlap."""


def slice_noise(
    protocol: Protocol,
    seed: int,
    patient: int,
    shape: tuple[int, int],
    slices: range,
    spacing_mm: tuple[float, ...],
) -> Float[np.ndarray, "x y z"]:
    """Return the noise of some slices in HU, float32.

    Every slice has its own generator, so that any range of slices has the bits it has in the whole volume.

    Args:
        protocol: level and grain.
        seed: the run's seed.
        patient: the patient's index.
        shape: voxels per slice.
        slices: which slices, consecutive.
        spacing_mm: voxel size.
    """
    deviation = _deviation(protocol, spacing_mm)
    widths = [min(protocol.grain_mm / spacing, 6.0) for spacing in spacing_mm[:2]]
    grain = [
        _grain(numpy_generator(seed, "phantom", patient, "noise", index), shape, widths)
        for index in range(slices.start - 1, slices.stop + 1)
    ]
    scale = np.float32(deviation / np.sqrt(1 + 2 * NEIGHBOR_SHARE**2))
    share = np.float32(NEIGHBOR_SHARE)
    noise = np.empty((*shape, len(slices)), np.float32)
    for k in range(len(slices)):
        noise[:, :, k] = scale * (grain[k + 1] + share * (grain[k] + grain[k + 2]))
    return noise


def _deviation(protocol: Protocol, spacing_mm: tuple[float, ...]) -> float:
    """Noise falls with the voxel's size, less than photon counting has it because the kernel smooths too."""
    return float(protocol.noise_hu * np.clip(1 / np.mean(spacing_mm), 0.4, 2.0) ** 0.5)


def _grain(rng: np.random.Generator, shape: tuple[int, int], widths: list[float]) -> np.ndarray:
    """Return unit-variance noise smoothed by a Gaussian of these widths in voxels."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    for axis, width in enumerate(widths):
        weights = _gaussian(width)
        noise = ndimage.correlate1d(noise, weights / np.sqrt((weights**2).sum()), axis=axis, mode="wrap")
    return noise


def _gaussian(width: float) -> np.ndarray:
    reach = max(1, round(3 * width))
    return np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
