"""Random changes of a training example."""

import math

import pydantic
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cardiosynth.core.config import Settings
from cardiosynth.core.random import draw_int
from cardiosynth.segmentation.spatial import SpatialChange

BLUR_REACH = 3.0
"""Standard deviations that a Gaussian reaches."""


class Augmentation(Settings):
    """Random changes of an example, in model units. Anatomy is lateralized, so nothing is flipped by default.

    Attributes:
        noise: standard deviation of Gaussian noise per voxel.
        contrast: standard deviation of the relative change of contrast about mid gray.
        brightness: standard deviation of the shift.
        flip_axes: axes (0 is X) that are mirrored in every other example.
        gamma: standard deviation of the logarithm of the exponent that gray values are raised to.
        blur_voxels: largest standard deviation of the Gaussian that smooths.
        share: share of examples to which gamma and blur are done, each drawn for itself.
        spatial: changes of where things lie; mask and confidence follow.
    """

    noise: float = pydantic.Field(default=0.01, ge=0)
    contrast: float = pydantic.Field(default=0.1, ge=0)
    brightness: float = pydantic.Field(default=0.025, ge=0)
    flip_axes: tuple[int, ...] = ()
    gamma: float = pydantic.Field(default=0.0, ge=0)
    blur_voxels: float = pydantic.Field(default=0.0, ge=0)
    share: float = pydantic.Field(default=1.0, ge=0, le=1)
    spatial: SpatialChange = SpatialChange()

    def change(self, image: Float[Tensor, "1 *grid"], rng: torch.Generator) -> Float[Tensor, "1 *grid"]:
        """Return ``image`` with random blur, gamma, contrast, brightness and noise, in this order."""
        contrast, brightness = torch.randn(2, generator=rng).tolist()
        noise = torch.randn(image.shape, generator=rng)
        image = self._with_gamma(self._blurred(image, rng), rng)
        changed = (image - 0.5) * (1 + self.contrast * contrast) + 0.5 + self.brightness * brightness
        return changed + self.noise * noise

    def draw_flips(self, rng: torch.Generator) -> list[int]:
        """Return the array axes (1 is X) along which one example is mirrored."""
        return [axis + 1 for axis in self.flip_axes if draw_int(2, rng)]

    def _blurred(self, image: Tensor, rng: torch.Generator) -> Tensor:
        if not self._is_done(self.blur_voxels, rng):
            return image
        return blurred(image, self.blur_voxels * float(torch.rand((), generator=rng)))

    def _with_gamma(self, image: Tensor, rng: torch.Generator) -> Tensor:
        if not self._is_done(self.gamma, rng):
            return image
        return image.clamp_min(0) ** math.exp(self.gamma * float(torch.randn((), generator=rng)))

    def _is_done(self, amount: float, rng: torch.Generator) -> bool:
        # Nothing is drawn for what is off, so that adding a kind of change leaves old runs as they were.
        return amount > 0 and float(torch.rand((), generator=rng)) < self.share


STANDARD = Augmentation(
    gamma=0.2, blur_voxels=0.75, share=0.3,
    spatial=SpatialChange(
        share=0.3, rotation_deg=15.0, scaling=0.25, shift_mm=5.0, distortion_mm=4.0, distortion_spacing_mm=24.0
    ),
)  # fmt: skip
"""What segmenters are commonly trained with, of moderate strength; flips are left to those whose anatomy allows it."""


NONE = Augmentation(noise=0.0, contrast=0.0, brightness=0.0)
"""Examples as they are."""
GEOMETRIC = NONE.model_copy(
    update={
        "flip_axes": (0, 1),
        "spatial": SpatialChange(
            share=0.5, rotation_deg=30.0, scaling=0.2, shift_mm=15.0, distortion_mm=6.0, distortion_spacing_mm=32.0
        ),
    }
)
"""What FQCDM trains with (4.1 and 5.3): flips, rotation, distortion, random crops (here a change of size with a shift:
a part of the slice, brought back to its size) and shifts. The paper gives no strengths."""


def blurred(image: Float[Tensor, "c *grid"], sigma_voxels: float) -> Float[Tensor, "c *grid"]:
    """Return ``image`` convolved with a Gaussian along each axis; the border is repeated outward."""
    reach = math.ceil(BLUR_REACH * sigma_voxels)
    if reach == 0:
        return image
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=image.dtype) / sigma_voxels) ** 2)
    kernel = (kernel / kernel.sum())[None, None]
    for axis in range(1, image.ndim):
        rows = image.movedim(axis, -1)
        padded = F.pad(rows.reshape(-1, 1, rows.shape[-1]), (reach, reach), mode="replicate")
        image = F.conv1d(padded, kernel).reshape(rows.shape).movedim(-1, axis)
    return image
