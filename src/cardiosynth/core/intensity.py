"""Intensities: HU (or MR values) outside, model units in [0, 1] inside. Nothing else scales.

The window is configuration; what an MR volume measures is not, so it is fitted per volume and travels with the case.
"""

from typing import Literal, TypeVar

import numpy as np
import pydantic
import torch

from cardiosynth.core.config import Settings

Array = TypeVar("Array", np.ndarray, torch.Tensor)


class Window(Settings):
    """A linear map of [low, high] to model units [0, 1]; values outside are clipped."""

    low: float
    high: float

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> "Window":
        if not self.high > self.low:
            raise ValueError(f"the window [{self.low}, {self.high}] is empty")
        return self

    @property
    def width(self) -> float:
        """``high - low`` in image units."""
        return self.high - self.low

    def to_model(self, image: Array) -> Array:
        """Map image units to [0, 1], clipping."""
        return ((image - self.low) / self.width).clip(0, 1)

    def from_model(self, x: Array) -> Array:
        """Map model units to image units, clipping to the window."""
        return x.clip(0, 1) * self.width + self.low


PERCENTILES = (0.5, 99.5)
"""Of a volume of MR: what lies beyond is noise and fold-over."""
NORMALIZED = Window(low=0.0, high=1000.0)
"""Where the two percentiles of a volume are put by `normalized`; int16 then keeps three digits."""


class IntensityScale(Settings):
    """How a model sees intensities.

    Attributes:
        unit: what the images must be in; a model of HU refuses MR and the other way round.
        window: fixed window for ``hu``. Published (MAISI) [-1000, 1000]; ours [-1000, 2000], so that calcium and
            stents survive.
        percentiles: for ``mr``, the two percentiles of each volume (or slice) that become 0 and 1. None takes
            ``window``, as for MR that was normalized when it was prepared: slices then keep their volume's scale.
    """

    unit: Literal["hu", "mr"] = "hu"
    window: Window = Window(low=-1000.0, high=2000.0)
    percentiles: tuple[float, float] | None = PERCENTILES

    def window_of(self, image: np.ndarray) -> Window:
        """Return the window for this image: the fixed one for HU and normalized MR, its own percentiles for MR."""
        if self.unit == "hu" or self.percentiles is None:
            return self.window
        low, high = (float(v) for v in np.percentile(image, self.percentiles))
        return Window(low=low, high=max(high, low + 1e-3))


NORMALIZED_MR = IntensityScale(unit="mr", window=NORMALIZED, percentiles=None)
"""Of models of MR that was normalized when it was prepared."""


def normalized(image: np.ndarray) -> tuple[np.ndarray, Window]:
    """Return a volume of MR as int16 whose `PERCENTILES` lie at the ends of `NORMALIZED`, and where they lay before.

    What lies beyond them stays beyond; nothing is clipped.
    """
    own = IntensityScale(unit="mr").window_of(image)
    return rounded_image((image.astype(np.float32) - own.low) / own.width * NORMALIZED.width + NORMALIZED.low), own


def rounded_image(image: np.ndarray) -> np.ndarray:
    """Return ``image`` as int16, rounded and clipped to what int16 holds: the stored form of every image."""
    return np.clip(np.rint(image), -32768, 32767).astype(np.int16)


def why_not_hu(image: np.ndarray) -> str | None:
    """Return why these values cannot be Hounsfield units, None where they can.

    Air is -1000 HU and nothing in a body but metal exceeds 3000: an image that never falls below 0 and rises above
    3000 is MR, or CT stored without its rescale intercept; one within [0, 1] has been normalized.
    """
    low, high = float(image.min()), float(image.max())
    if low >= 0 and high > 3000:
        return f"values from {low:g} to {high:g} cannot be HU, where air is -1000"
    if low >= 0 and 0 < high <= 1 and image.dtype == np.float32:
        return f"values from {low:g} to {high:g} have been normalized and are not HU"
    return None
