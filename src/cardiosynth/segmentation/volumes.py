"""Training volumes in memory, and the examples that are cut from them: crops, more often around structures."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pydantic
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.random import draw_int
from cardiosynth.segmentation.networks import Classes


@dataclass(frozen=True, eq=False)
class TrainingVolume:
    """One case as the network learns from it.

    Attributes:
        case_id: its name.
        image: (1, *grid) in model units, float16 to save memory.
        classes: (1, *grid) uint8 class of every voxel.
        confidence: (1, *grid) float16 in [0, 1], or None where every voxel counts alike.
    """

    case_id: str
    image: Float[Tensor, "1 *grid"]
    classes: UInt8[Tensor, "1 *grid"]
    confidence: Float[Tensor, "1 *grid"] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels per axis."""
        return tuple(self.image.shape[1:])

    @cached_property
    def structures(self) -> list[Tensor]:
        """Flat voxel indices of every structure that is there, background left out."""
        flat = self.classes.flatten()
        return [torch.nonzero(flat == index)[:, 0].int() for index in flat.unique().tolist() if index > 0]


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

    def flips(self, rng: torch.Generator) -> list[int]:
        """Return the array axes along which one example is mirrored."""
        return [axis + 1 for axis in self.flip_axes if draw_int(2, rng)]


def training_volume(case: Case, scale: IntensityScale, classes: Classes) -> TrainingVolume:
    """Return ``case`` as a network learns from it.

    Raises:
        InputError: no image, no mask, or intensities in another unit than the network's.
    """
    confidence = None if case.confidence is None else torch.from_numpy(case.confidence).half()
    mask = torch.from_numpy(classes.from_codes(case.required_mask()))
    return TrainingVolume(case.case_id, model_image(case, scale).half(), mask, confidence)


def model_image(case: Case, scale: IntensityScale) -> Float[Tensor, "1 *grid"]:
    """Return the case's image in model units, float32.

    Raises:
        InputError: no image, or intensities in another unit than the network's.
    """
    if case.intensity_unit != scale.unit:
        raise InputError(
            f"case {case.case_id} is in '{case.intensity_unit}' and the network takes '{scale.unit}'; use cases of "
            "that unit or train a segmenter for this one."
        )
    image = case.required_image()
    return torch.from_numpy(scale.window_of(image).to_model(image.astype(np.float32)))


def draw_crop(
    volume: TrainingVolume, size: Sequence[int], foreground: float, rng: torch.Generator
) -> tuple[slice, ...]:
    """Return where an example is cut from ``volume``: slices for (1, *grid).

    With probability ``foreground`` it holds a random voxel of a random structure, anywhere within it; a thin structure
    is then met as often as a large one. Otherwise it lies anywhere.
    """
    room = [n - c for n, c in zip(volume.shape, size, strict=True)]
    low, high = [0] * len(room), list(room)
    wanted = float(torch.rand((), generator=rng)) < foreground
    if wanted and volume.structures:
        voxels = volume.structures[draw_int(len(volume.structures), rng)]
        center = np.unravel_index(int(voxels[draw_int(len(voxels), rng)]), volume.shape)
        low = [max(0, int(v) - c + 1) for v, c in zip(center, size, strict=True)]
        high = [min(r, int(v)) for r, v in zip(room, center, strict=True)]
    starts = [a + draw_int(b - a + 1, rng) for a, b in zip(low, high, strict=True)]
    return (slice(None), *(slice(start, start + c) for start, c in zip(starts, size, strict=True)))
