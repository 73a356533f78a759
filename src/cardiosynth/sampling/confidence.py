"""Confidence by Skip-Sampling Variance (SSV, section 3.2.1, Eq. 7): how much the predicted image moves while sampling.

Eq. 7 as printed is Norm(sum_i (I_i - mean) / r). That sum is signed, and the sum of deviations from a mean is zero
for any images: the printed map would be blank. The name says variance and r = N - 1 of the N = r + 1 images is
Bessel's divisor, so we take the standard deviation over the images, sqrt(sum_i (I_i - mean)^2 / r), and
CM = 1 - its normalized value, because the text wants higher values to mean a more stable generation.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pydantic
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cardiosynth.core.config import Settings

Decode = Callable[[Tensor], np.ndarray]
"""Latent (c, *latent) -> image (1, *grid) in image units."""


class ConfidenceSettings(Settings):
    """How the confidence map is computed.

    Attributes:
        interval: k, every k-th step is decoded, from the first on.
        decoded: ``x0`` decodes the predicted data; ``noisy`` the state itself, as printed (measured: worthless, because
            noisy latents are outside the decoder's range).
        box: side in voxels of the cube over which the standard deviation is averaged; 1 for none.
        percentiles: of the standard deviation over the case; they become confidence 1 and 0.
    """

    interval: int = pydantic.Field(default=2, ge=1)
    decoded: Literal["x0", "noisy"] = "x0"
    box: int = pydantic.Field(default=3, ge=1)
    percentiles: tuple[float, float] = (1.0, 99.0)

    @pydantic.model_validator(mode="after")
    def _usable(self) -> "ConfidenceSettings":
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"percentiles {self.percentiles} must rise within 0 to 100")
        if self.box % 2 == 0:
            raise ValueError(f"box {self.box} must be odd")
        return self

    def num_images(self, num_steps: int) -> int:
        """Return r + 1: how many of ``num_steps`` steps are decoded."""
        return -(-num_steps // self.interval)


class Dispersion:
    """Mean and variance over images that come one by one (Welford, 1962), in two float32 volumes."""

    def __init__(self):
        self.count = 0
        self._mean: np.ndarray | None = None
        self._squares: np.ndarray | None = None

    def add(self, image: Float[np.ndarray, "1 *grid"]) -> None:
        """Take in one image."""
        self.count += 1
        if self._mean is None or self._squares is None:
            self._mean, self._squares = np.zeros(image.shape, np.float32), np.zeros(image.shape, np.float32)
        deviation = image - self._mean
        self._mean += deviation / np.float32(self.count)
        deviation *= image - self._mean
        self._squares += deviation

    def std(self) -> Float[np.ndarray, "1 *grid"]:
        """Return the standard deviation with the printed divisor r, one less than the images."""
        assert self.count >= 2, "a dispersion needs two images"
        assert self._squares is not None
        return np.sqrt(self._squares / np.float32(self.count - 1))


class SkipSamplingVariance:
    """Watches a solver as its callback and turns what it saw into a confidence map.

    Args:
        settings: interval, smoothing and normalization.
        decode: latent -> image in image units.
    """

    def __init__(self, settings: ConfidenceSettings, decode: Decode):
        self._settings, self._decode = settings, decode
        self._dispersion = Dispersion()

    def __call__(self, step: int, x: Tensor, t: Tensor, denoised: Tensor) -> None:
        """See one solver step of a single case, (1, c, *latent)."""
        assert len(x) == 1, "a confidence map belongs to one case"
        if step % self._settings.interval == 0:
            self._dispersion.add(self._decode((denoised if self._settings.decoded == "x0" else x)[0]))

    def confidence(self) -> tuple[Float[np.ndarray, "1 *grid"], dict[str, float | int | str]]:
        """Return the map in [0, 1], float32, and the constants that made it, for the case's provenance."""
        spread = smoothed(self._dispersion.std(), self._settings.box)
        confidence, (low, high) = normalized_confidence(spread, self._settings.percentiles)
        facts = {
            "images": self._dispersion.count, "divisor": self._dispersion.count - 1,
            "interval": self._settings.interval, "decoded": self._settings.decoded, "box": self._settings.box,
            "std_at_confidence_1": low, "std_at_confidence_0": high,
        }  # fmt: skip
        return confidence, facts


def smoothed(values: Float[np.ndarray, "1 *grid"], box: int) -> Float[np.ndarray, "1 *grid"]:
    """Return the mean over a cube of ``box`` voxels; at the border over the voxels that are there."""
    x = torch.from_numpy(values)[None]
    pool = F.avg_pool3d if x.ndim == 5 else F.avg_pool2d
    return pool(x, box, stride=1, padding=box // 2, count_include_pad=False)[0].numpy()


def normalized_confidence(
    spread: Float[np.ndarray, "1 *grid"], percentiles: tuple[float, float]
) -> tuple[Float[np.ndarray, "1 *grid"], tuple[float, float]]:
    """Return 1 - spread, normalized by its percentiles over the case and clipped to [0, 1], and the two values.

    A spread that is the same everywhere gives confidence 1.
    """
    low, high = (float(v) for v in np.percentile(spread, percentiles))
    if high <= low:
        return np.ones_like(spread), (low, high)
    return (1 - np.clip((spread - low) / (high - low), 0, 1)).astype(np.float32), (low, high)
