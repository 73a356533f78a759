"""Affine and smooth deformations in millimeters, and the pull-back of structures through them (FCaS Eq. 5).

Positions are millimeters along the grid's axes (index times spacing) from the heart's center. A point q of the source
goes to p with ``p + d(p) = A q + delta``: A rotates (phi), scales (gamma) and shears (the second phi of Eq. 5), delta
translates, and p + d(p) is the flow of a smooth velocity, at most alpha fast, with knots zeta apart. Written this way,
the pull-back that resampling needs is explicit; the flow of the opposite velocity goes the other way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from cardiosynth.anatomy.fields import SmoothField, exponential

Box = tuple[slice, ...]

SLAB = 16
"""Layers of the target whose positions are held at a time: at 512 x 256 voxels per layer, some 100 MB."""


def affine_matrix(
    rotation_deg: Sequence[float], scale: Sequence[float], shear: Sequence[float]
) -> Float[np.ndarray, "n n"]:
    """Return A = rotation @ shear @ scale.

    Args:
        rotation_deg: about x, y and z in this order; one angle in a plane.
        scale: per axis.
        shear: of x by y, x by z and y by z; of x by y in a plane.
    """
    n = len(scale)
    sheared = np.eye(n)
    sheared[np.triu_indices(n, 1)] = shear
    rotation = np.eye(n)
    planes = [(0, 1)] if n == 2 else [(1, 2), (2, 0), (0, 1)]
    for angle, (i, j) in zip(np.radians(rotation_deg), planes, strict=True):
        turn = np.eye(n)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        rotation = turn @ rotation
    return rotation @ sheared @ np.diag(scale)


@dataclass(frozen=True, eq=False)
class Deformation:
    """A map of anatomies on one grid.

    Attributes:
        shape: voxels per axis.
        spacing_mm: voxel size per axis.
        center_mm: the heart's center, index times spacing.
        matrix: A, (n, n).
        translation_mm: delta, (n,).
        field: d, on the target.
        inverse: the displacement that undoes it.
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    center_mm: np.ndarray
    matrix: np.ndarray
    translation_mm: np.ndarray
    field: SmoothField
    inverse: SmoothField

    def source_index(self, box: Box) -> Float[Tensor, "n *box"]:
        """Return where in the source, in voxel indices, every voxel of a box of the target comes from (Psi)."""
        axes = self._axes_mm(box)
        p = self.field.displacement(axes)
        for axis, x in enumerate(axes):
            p[axis] += torch.from_numpy(x - self.translation_mm[axis]).float().reshape(_along(axis, len(axes)))
        q = torch.tensordot(torch.from_numpy(np.linalg.inv(self.matrix)).float(), p, dims=1)
        for axis, step in enumerate(self.spacing_mm):
            q[axis].add_(float(self.center_mm[axis])).div_(step)
        return q

    def to_source(self, index: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
        """Return where in the source scattered points of the target come from, both in voxel indices."""
        p = self._mm(index)
        q = np.linalg.inv(self.matrix) @ (p + self.field.at(p) - self.translation_mm[:, None])
        return self._index(q)

    def to_target(self, index: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
        """Return where scattered points of the source go to, both in voxel indices."""
        moved = self.matrix @ self._mm(index) + self.translation_mm[:, None]
        return self._index(moved + self.inverse.at(moved))

    def jacobian_range(self) -> tuple[float, float]:
        """Return the smallest and the largest Jacobian determinant of the pull-back in the field of view.

        Looked for on a lattice four times finer than the field's knots, whatever the voxels: in between, a cubic
        spline's slopes hardly change.
        """
        step = self.field.smoothness_mm / 4
        ends = zip(self.shape, self.spacing_mm, self.center_mm, strict=True)
        sides = [(-center, (n - 1) * mm - center) for n, mm, center in ends]
        values = self._jacobian([np.linspace(a, b, int((b - a) / step) + 2) for a, b in sides])
        return float(values.min()), float(values.max())

    def jacobian_determinant(self, box: Box | None = None) -> Float[Tensor, "*box"]:
        """Return det of the pull-back's derivative, source volume over target volume; 0 or less is a fold."""
        return self._jacobian(self._axes_mm(box or tuple(slice(0, n) for n in self.shape)))

    def _jacobian(self, axes: Sequence[np.ndarray]) -> Float[Tensor, "*lattice"]:
        gradient = self.field.gradient(axes)
        n = len(axes)
        for axis in range(n):
            gradient[axis, axis] += 1
        return _determinant(gradient) / float(np.linalg.det(self.matrix))

    def target_box(self, inside: Bool[np.ndarray, "*grid"]) -> Box | None:
        """Return a box of the target that holds everything that comes from ``inside``; None where that is nothing.

        A structure that the source's border cuts is taken to go on beyond it.
        """
        n = len(self.shape)
        spans = [np.flatnonzero(inside.any(axis=tuple(a for a in range(n) if a != axis))) for axis in range(n)]
        if any(len(span) == 0 for span in spans):
            return None
        reach = 2.0 * float(np.dot(self.shape, self.spacing_mm))
        corners = []
        for span, size, step, center in zip(spans, self.shape, self.spacing_mm, self.center_mm, strict=True):
            low, high = (span[0] - 1) * step - center, (span[-1] + 1) * step - center
            corners.append((low - reach * (span[0] == 0), high + reach * (span[-1] == size - 1)))
        points = np.stack(np.meshgrid(*corners, indexing="ij"), -1).reshape(-1, n) @ self.matrix.T + self.translation_mm
        low = (points.min(0) - self.field.bound_mm + self.center_mm) / self.spacing_mm
        high = (points.max(0) + self.field.bound_mm + self.center_mm) / self.spacing_mm
        start = np.clip(np.floor(low), 0, self.shape).astype(int)
        stop = np.clip(np.ceil(high) + 1, 0, self.shape).astype(int)
        return None if (start >= stop).any() else tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))

    def _mm(self, index: np.ndarray) -> np.ndarray:
        return index * np.array(self.spacing_mm)[:, None] - self.center_mm[:, None]

    def _index(self, position_mm: np.ndarray) -> np.ndarray:
        return (position_mm + self.center_mm[:, None]) / np.array(self.spacing_mm)[:, None]

    def _axes_mm(self, box: Box) -> list[np.ndarray]:
        sides = zip(box, self.spacing_mm, self.center_mm, strict=True)
        return [np.arange(side.start, side.stop) * step - center for side, step, center in sides]


def diffeomorphism(
    shape: tuple[int, ...],
    spacing_mm: tuple[float, ...],
    center_mm: np.ndarray,
    matrix: np.ndarray,
    translation_mm: np.ndarray,
    velocity: SmoothField,
) -> Deformation:
    """Return the deformation whose non-rigid part is the flow of ``velocity``; see `Deformation` for the rest."""
    low, high = (-center_mm).tolist(), ((np.array(shape) - 1) * spacing_mm - center_mm).tolist()
    there, back = (exponential(velocity.scaled(sign), low, high) for sign in (1.0, -1.0))
    return Deformation(shape, spacing_mm, center_mm, matrix, translation_mm, there, back)


def pull_back(
    inside: Bool[np.ndarray, "*grid"], deformation: Deformation, mode: Literal["bilinear", "nearest"] = "bilinear"
) -> tuple[Box, Float[np.ndarray, "*box"]]:
    """Return a structure's share of every voxel of the target (Lambda of Eq. 6).

    Where the source's border cuts the structure, it goes on as it is at the border.

    Args:
        inside: the structure in the source.
        deformation: where it goes.
        mode: linear interpolation between voxels along all axes, or the nearest voxel's 0 or 1.

    Returns:
        A box of the target and the shares in it, in [0, 1]; they are 0 outside. An empty box where nothing is left.
    """
    box = deformation.target_box(inside)
    if box is None:
        return (slice(0, 0),) * inside.ndim, np.zeros((0,) * inside.ndim, np.float32)
    # A crop with a margin of one empty voxel says the same as the whole, and far fewer voxels are turned to floats.
    spans = [
        np.flatnonzero(inside.any(axis=tuple(a for a in range(inside.ndim) if a != i))) for i in range(inside.ndim)
    ]
    crop = tuple(slice(max(int(s[0]) - 1, 0), int(s[-1]) + 2) for s in spans)
    values = torch.from_numpy(inside[crop].astype(np.float32))[None, None]
    out = torch.empty([side.stop - side.start for side in box])
    for start in range(box[0].start, box[0].stop, SLAB):
        slab = slice(start, min(start + SLAB, box[0].stop))
        points = deformation.source_index((slab, *box[1:]))
        for axis, (side, length) in enumerate(zip(crop, values.shape[2:], strict=True)):
            # A single layer has no length to measure along: it is everywhere.
            points[axis].sub_(side.start).mul_(2 / (length - 1)).sub_(1) if length > 1 else points[axis].zero_()
        points = torch.movedim(points.flip(0), 0, -1)[None]
        share = F.grid_sample(values, points, mode=mode, padding_mode="border", align_corners=True)
        out[slab.start - box[0].start : slab.stop - box[0].start] = share[0, 0]
    return box, out.numpy()


def _along(axis: int, n: int) -> tuple[int, ...]:
    return tuple(-1 if i == axis else 1 for i in range(n))


def _determinant(m: Tensor) -> Tensor:
    if m.shape[0] == 2:
        return m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0]
    first = m[0, 0] * (m[1, 1] * m[2, 2] - m[1, 2] * m[2, 1])
    second = m[0, 1] * (m[1, 0] * m[2, 2] - m[1, 2] * m[2, 0])
    return first - second + m[0, 2] * (m[1, 0] * m[2, 1] - m[1, 1] * m[2, 0])
