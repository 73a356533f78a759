"""Random changes of where things lie in an example: image, mask and confidence map follow the same map of positions.

All changes of an example are one map and one interpolation: image and confidence are interpolated linearly, label codes
are taken from the nearest voxel. What lies beyond the case has confidence 0, in real cases as in synthetic ones: nobody
labeled it, and no prediction is asked for there, because predictions are cut back to the case. So a confidence of 1
everywhere and none at all are the same loss here, too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pydantic
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cardiosynth.anatomy.fields import SmoothField
from cardiosynth.core.config import Settings
from cardiosynth.data.loader import CaseCache, Crop

LARGEST_DISTORTION = 0.4
"""Of the distance between knots: cubic B-splines with smaller coefficients fold nowhere (Choi and Lee 2000: 0.403)."""


class SpatialChange(Settings):
    """How far an example may be rotated, scaled, shifted and distorted, about its center. Nothing is, by default.

    Attributes:
        share: share of examples to which each of the changes is made, each drawn for itself.
        rotation_deg: largest angle, about each axis (of a slice: in its plane).
        scaling: largest change of size: 0.25 makes things up to 1.25 times as large or as small. Small and large alike.
        shift_mm: largest shift along each axis.
        distortion_mm: largest displacement along each axis by a smooth random field.
        distortion_spacing_mm: between the knots of that field; must be 2.5 times the displacement or more, so that
            nothing folds.
    """

    share: float = pydantic.Field(default=1.0, ge=0, le=1)
    rotation_deg: float = pydantic.Field(default=0.0, ge=0, le=180)
    scaling: float = pydantic.Field(default=0.0, ge=0, le=1)
    shift_mm: float = pydantic.Field(default=0.0, ge=0)
    distortion_mm: float = pydantic.Field(default=0.0, ge=0)
    distortion_spacing_mm: float = pydantic.Field(default=24.0, gt=0)

    @pydantic.model_validator(mode="after")
    def _folds_nowhere(self) -> "SpatialChange":
        if self.distortion_mm > LARGEST_DISTORTION * self.distortion_spacing_mm:
            raise ValueError(
                f"distortion_mm {self.distortion_mm} folds what lies between knots {self.distortion_spacing_mm} mm "
                f"apart; make distortion_spacing_mm {self.distortion_mm / LARGEST_DISTORTION:g} or more"
            )
        return self

    @property
    def is_none(self) -> bool:
        """Whether nothing is ever changed."""
        return self.share == 0 or not any((self.rotation_deg, self.scaling, self.shift_mm, self.distortion_mm))

    def draw(self, shape: Sequence[int], spacing_mm: Sequence[float], rng: torch.Generator) -> "Motion":
        """Draw the changes of one example.

        Args:
            shape: its voxels per axis.
            spacing_mm: voxel size per axis.
            rng: the example's generator.
        """
        axes = len(shape)
        matrix = torch.eye(axes, dtype=torch.float64)
        shift_mm, field = torch.zeros(axes, dtype=torch.float64), None
        if self._is_made(self.rotation_deg, rng):
            angles = _uniform(1 if axes == 2 else 3, rng) * math.radians(self.rotation_deg)
            matrix = rotation(angles.tolist())
        if self._is_made(self.scaling, rng):
            matrix = matrix * math.exp(float(_uniform(1, rng)) * math.log1p(self.scaling))
        if self._is_made(self.shift_mm, rng):
            shift_mm = _uniform(axes, rng) * self.shift_mm
        if self._is_made(self.distortion_mm, rng):
            field = self._distortion(shape, spacing_mm, rng)
        return Motion(matrix, shift_mm, field, tuple(spacing_mm))

    def _is_made(self, amount: float, rng: torch.Generator) -> bool:
        return amount > 0 and float(torch.rand((), generator=rng)) < self.share

    def _distortion(self, shape: Sequence[int], spacing_mm: Sequence[float], rng: torch.Generator) -> SmoothField:
        """Return a field whose knots reach one beyond the example on every side, as cubic splines need."""
        apart = self.distortion_spacing_mm
        half = [(n - 1) * mm / 2 for n, mm in zip(shape, spacing_mm, strict=True)]
        knots = [math.ceil(2 * h / apart) + 3 for h in half]
        coefficients = _uniform(len(shape) * math.prod(knots), rng).reshape(len(shape), *knots) * self.distortion_mm
        return SmoothField(coefficients, tuple(-h - apart for h in half), apart)


@dataclass(frozen=True, eq=False)
class Motion:
    """Where the voxels of an example come from, about its center: ``matrix (x + field(x)) + shift``, in mm.

    Attributes:
        matrix: (n, n) float64.
        shift_mm: (n,) float64.
        field: displacement at each voxel of the example; None for none.
        spacing_mm: voxel size per axis, of example and case.
    """

    matrix: Tensor
    shift_mm: Tensor
    field: SmoothField | None
    spacing_mm: tuple[float, ...]

    @property
    def is_none(self) -> bool:
        """Whether every voxel stays where it is."""
        still = torch.equal(self.matrix, torch.eye(len(self.matrix), dtype=torch.float64))
        return still and self.field is None and not self.shift_mm.any()

    def positions(self, shape: Sequence[int]) -> Float[Tensor, "n *grid"]:
        """Return where each voxel of an example of ``shape`` comes from, in voxels from the example's center."""
        axes_mm = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, self.spacing_mm, strict=True)]
        here = torch.stack(torch.meshgrid(*(torch.from_numpy(x).float() for x in axes_mm), indexing="ij"))
        if self.field is not None:
            here = here + self.field.displacement(axes_mm)
        there = torch.tensordot(self.matrix.float(), here, dims=1)
        column = (-1, *(1,) * len(shape))
        spacing = torch.tensor(self.spacing_mm, dtype=torch.float32)
        return (there + self.shift_mm.float().reshape(column)) / spacing.reshape(column)


def draw_crop(
    cache: CaseCache,
    index: int,
    shape: Sequence[int],
    change: SpatialChange,
    rng: torch.Generator,
    codes: Sequence[int] = (),
) -> Crop:
    """Draw a block of a case and what ``change`` does to it.

    Args:
        cache: of the case.
        index: the case.
        shape: voxels per axis.
        change: how far it may be rotated, scaled, shifted and distorted.
        rng: the example's generator.
        codes: what the block is centered on, see `CaseCache.start`.
    """
    start = cache.start(index, shape, rng, codes)
    if change.is_none:
        return cache.take(index, start, shape)
    # Where voxels have no known size, a millimeter is a voxel.
    spacing_mm = cache.cases[index].spacing_mm or (1.0,) * len(shape)
    return moved_crop(cache, index, start, shape, change.draw(shape, spacing_mm, rng))


def moved_crop(cache: CaseCache, index: int, start: Sequence[int], shape: Sequence[int], motion: Motion) -> Crop:
    """Return the block of a case that begins at ``start``, after ``motion`` about the block's center.

    What the motion brings in is read from the case, not from beyond the unmoved block.
    """
    if motion.is_none:
        return cache.take(index, start, shape)
    column = (-1, *(1,) * len(shape))
    center = torch.tensor([first + (n - 1) / 2 for first, n in zip(start, shape, strict=True)])
    positions = motion.positions(shape) + center.reshape(column)
    flat = positions.flatten(1)
    # One voxel more on every side, so that every position lies between voxels of the block.
    low, high = flat.amin(1).floor().long() - 1, flat.amax(1).ceil().long() + 2
    source = cache.take(index, low.tolist(), (high - low).tolist())
    grid = _as_torch_has_it(positions - low.reshape(column), source.image.shape[1:])
    linear = torch.stack([source.image, source.confidence], dim=1)
    image, confidence = _sampled(linear, grid, "bilinear").unbind(1)
    # A label is that of the nearest voxel: where it counts for nothing, confidence of its neighbors must not revive it.
    counts = _sampled((source.confidence > 0).float()[None], grid, "nearest")[0]
    mask = None
    if source.mask is not None:
        mask = _sampled(source.mask[None].float(), grid, "nearest")[0].to(torch.uint8)
    return Crop(image=image, mask=mask, confidence=confidence.clamp(0, 1) * counts, start=tuple(start))


def rotation(angles: Sequence[float]) -> Float[Tensor, "n n"]:
    """Return the matrix that rotates by an angle in the plane, or by three about the axes, the last one first.

    Args:
        angles: in radians; one for two axes, three for three.
    """
    if len(angles) == 1:
        return _planar(2, 0, 1, angles[0])
    about_x, about_y, about_z = angles
    return _planar(3, 1, 2, about_x) @ _planar(3, 2, 0, about_y) @ _planar(3, 0, 1, about_z)


def _planar(axes: int, one: int, other: int, angle: float) -> Tensor:
    matrix = torch.eye(axes, dtype=torch.float64)
    matrix[one, one] = matrix[other, other] = math.cos(angle)
    matrix[one, other], matrix[other, one] = -math.sin(angle), math.sin(angle)
    return matrix


def _uniform(count: int, rng: torch.Generator) -> Tensor:
    """Draw from [-1, 1)."""
    return 2 * torch.rand(count, generator=rng, dtype=torch.float64) - 1


def _as_torch_has_it(positions: Float[Tensor, "n *grid"], size: Sequence[int]) -> Float[Tensor, "1 *grid n"]:
    """Return positions in voxels as torch wants them: -1 and 1 are the outer voxels, the last axis comes first."""
    last = torch.tensor([n - 1 for n in size], dtype=torch.float32).reshape(-1, *(1,) * len(size))
    return (2 * positions / last - 1).flip(0).movedim(0, -1)[None]


def _sampled(
    values: Float[Tensor, "1 c *_"], grid: Float[Tensor, "1 *grid n"], mode: str
) -> Float[Tensor, "1 c *grid"]:
    return F.grid_sample(values, grid, mode=mode, padding_mode="zeros", align_corners=True)
