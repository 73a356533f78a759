"""Slices of cases as the network sees them: upright squares, and boxes in their pixels."""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from cardiosynth.core.case import Case
from cardiosynth.data.prepare.settings import SliceSettings
from cardiosynth.data.prepare.slices import slice_axis

Plane = Literal["axial", "short-axis"]
"""How cases are cut; see `SliceSettings`."""


def cut_axis(case: Case, plane: Plane) -> int | None:
    """Return the axis that a case is cut across, None where it is a slice already."""
    return None if len(case.grid.shape) == 2 else slice_axis(case, SliceSettings(plane=plane))


def num_slices(case: Case, axis: int | None) -> int:
    """Return how many slices a case has."""
    return 1 if axis is None else case.grid.shape[axis]


def slice_place(axis: int | None, index: int, num_axes: int) -> tuple[slice, ...]:
    """Return where one slice lies in a case, one voxel thick."""
    return tuple(slice(index, index + 1) if i == axis else slice(None) for i in range(num_axes))


def upright(plane: Shaped[Tensor, "x y"]) -> Shaped[Tensor, "y x"]:
    """Return a slice as a radiologist sees it, the way in which released weights saw them too.

    Rows run from anterior to posterior (or superior to inferior), columns from the patient's right to left. What is
    upright is turned back by the same function.
    """
    return plane.flip((0, 1)).T


def as_square(picture: Float[Tensor, "1 rows columns"], size: int) -> Float[Tensor, "1 s s"]:
    """Return a picture in model units on the encoder's square, whatever its own sides, as published (cubic)."""
    square = F.interpolate(picture[None], (size, size), mode="bicubic", align_corners=False, antialias=True)
    return square[0].clamp(0, 1)


def square_weights(values: Float[Tensor, "1 rows columns"], size: int) -> Float[Tensor, "1 s s"]:
    """Return a mask or a confidence map on the encoder's square, each pixel that of the nearest.

    Both go the same way: interpolated, confidence 0 would reach less far than the labels that it is to hide.
    """
    return F.interpolate(values[None], (size, size), mode="nearest-exact")[0]


def box_of(inside: Bool[Tensor, "rows columns"], size: int) -> Float[Tensor, "4"]:
    """Return the box around what is inside, which must be something: first column, first row, last column, last row.

    In pixels of a square of ``size``, the centers of the outermost ones.
    """
    bounds = []
    for axis in (0, 1):
        where = torch.nonzero(inside.any(axis))[:, 0]
        scale = size / inside.shape[1 - axis]
        bounds.append((float(where[0]) * scale, float(where[-1] + 1) * scale - 1))
    (left, right), (top, bottom) = bounds
    return torch.tensor([left, top, right, bottom])


def widened(box: Float[Tensor, "4"], shift: float, size: int, rng: torch.Generator) -> Float[Tensor, "4"]:
    """Return ``box`` with each side moved outward by up to ``shift`` of the square's side, as far as it reaches."""
    moves = torch.rand(4, generator=rng) * shift * size
    return (box + moves * torch.tensor([-1.0, -1.0, 1.0, 1.0])).clamp(0, size - 1)


def slice_areas(mask: Shaped[np.ndarray, "1 *grid"], axis: int | None, code: int) -> list[int]:
    """Return how many pixels of each slice hold ``code``."""
    inside = mask[0] == code
    if axis is None:
        return [int(inside.sum())]
    return inside.sum(tuple(i for i in range(inside.ndim) if i != axis)).tolist()
