"""Random changes of a training example."""

import pydantic
import torch
from jaxtyping import Float
from torch import Tensor

from cardiosynth.core.config import Settings
from cardiosynth.core.random import draw_int


class Augmentation(Settings):
    """Random changes of an example, in model units. Anatomy is lateralized, so nothing is flipped by default.

    Attributes:
        noise: standard deviation of Gaussian noise per voxel.
        contrast: standard deviation of the relative change of contrast about mid gray.
        brightness: standard deviation of the shift.
        flip_axes: axes (0 is X) that are mirrored in every other example.
    """

    noise: float = pydantic.Field(default=0.01, ge=0)
    contrast: float = pydantic.Field(default=0.1, ge=0)
    brightness: float = pydantic.Field(default=0.025, ge=0)
    flip_axes: tuple[int, ...] = ()

    def change(self, image: Float[Tensor, "1 *grid"], rng: torch.Generator) -> Float[Tensor, "1 *grid"]:
        """Return ``image`` with random contrast, brightness and noise."""
        contrast, brightness = torch.randn(2, generator=rng).tolist()
        noise = torch.randn(image.shape, generator=rng)
        changed = (image - 0.5) * (1 + self.contrast * contrast) + 0.5 + self.brightness * brightness
        return changed + self.noise * noise

    def draw_flips(self, rng: torch.Generator) -> list[int]:
        """Return the array axes (1 is X) along which one example is mirrored."""
        return [axis + 1 for axis in self.flip_axes if draw_int(2, rng)]
