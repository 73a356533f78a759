"""Affine and smooth deformations in millimeters, and the pull-back of structures through them (FCaS Eq. 5).

Positions are millimeters along the grid's axes (index times spacing) from the heart's center. A point q of the source
goes to p with ``p + d(p) = A q + delta``: A rotates (phi), scales (gamma) and shears (the second phi of Eq. 5), delta
translates, and d is a cubic B-spline field with largest displacement alpha and knots zeta apart. Written this way,
the pull-back that resampling needs is explicit, and it folds nowhere exactly where det(1 + grad d) > 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Box = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class SmoothField:
    """A displacement per point: cubic B-splines over a lattice of knots.

    Attributes:
        coefficients: (n, *knots) float64, millimeters along each of the n axes.
        first_mm: position of the first knot along each axis.
        smoothness_mm: distance between knots (zeta of Eq. 5).
    """

    coefficients: Tensor
    first_mm: tuple[float, ...]
    smoothness_mm: float

    @property
    def bound_mm(self) -> float:
        """No displacement along an axis is larger: splines are weighted means of their coefficients."""
        return float(self.coefficients.abs().max())

    def displacement(self, axes_mm: Sequence[np.ndarray]) -> Float[Tensor, "n *grid"]:
        """Return the displacement in mm at every point of the lattice spanned by ``axes_mm``, float32."""
        return self._evaluate([self._basis(axis, x, _spline) for axis, x in enumerate(axes_mm)])

    def gradient(self, axes_mm: Sequence[np.ndarray]) -> Float[Tensor, "n n *grid"]:
        """Return d displacement_i / d position_j, indexed [i, j], at every point of the lattice, float32."""
        columns = []
        for along in range(len(axes_mm)):
            kinds = [_spline_slope if axis == along else _spline for axis in range(len(axes_mm))]
            bases = [self._basis(axis, x, kind) for axis, (x, kind) in enumerate(zip(axes_mm, kinds, strict=True))]
            columns.append(self._evaluate(bases) / self.smoothness_mm)
        return torch.stack(columns, dim=1)

    def scaled(self, factor: float) -> "SmoothField":
        """Return the field with every displacement multiplied by ``factor``."""
        return replace(self, coefficients=self.coefficients * factor)

    def _basis(self, axis: int, x_mm: np.ndarray, kind: Callable[[np.ndarray], np.ndarray]) -> Tensor:
        knots = np.arange(self.coefficients.shape[axis + 1])
        offset = (np.asarray(x_mm)[:, None] - self.first_mm[axis]) / self.smoothness_mm - knots
        return torch.from_numpy(kind(offset)).float()

    def _evaluate(self, bases: Sequence[Tensor]) -> Tensor:
        out = self.coefficients.float()
        for axis, basis in enumerate(bases, start=1):
            out = torch.movedim((torch.movedim(out, axis, -1) @ basis.T), -1, axis)
        return out


def _spline(x: np.ndarray) -> np.ndarray:
    a = np.abs(x)
    return np.where(a < 1, 2 / 3 - a**2 + a**3 / 2, np.where(a < 2, (2 - a) ** 3 / 6, 0.0))


def _spline_slope(x: np.ndarray) -> np.ndarray:
    a = np.abs(x)
    return np.sign(x) * np.where(a < 1, -2 * a + 1.5 * a**2, np.where(a < 2, -0.5 * (2 - a) ** 2, 0.0))


def random_field(
    low_mm: Sequence[float],
    high_mm: Sequence[float],
    amplitude_mm: float,
    smoothness_mm: float,
    rng: np.random.Generator,
) -> SmoothField:
    """Return a random field whose largest displacement over the box [low_mm, high_mm] is ``amplitude_mm``.

    Args:
        low_mm: lower corner of the field of view, from the heart's center.
        high_mm: upper corner.
        amplitude_mm: alpha of Eq. 5.
        smoothness_mm: zeta of Eq. 5.
        rng: where the coefficients come from.
    """
    first = np.floor(np.asarray(low_mm) / smoothness_mm) - 1
    last = np.ceil(np.asarray(high_mm) / smoothness_mm) + 1
    knots = (last - first + 1).astype(int)
    coefficients = torch.from_numpy(rng.standard_normal((len(knots), *knots)))
    field = SmoothField(coefficients, tuple((first * smoothness_mm).tolist()), smoothness_mm)
    steps = [np.linspace(a, b, 4 * int(k)) for a, b, k in zip(low_mm, high_mm, knots, strict=True)]
    largest = float(field.displacement(steps).norm(dim=0).max())
    return field.scaled(amplitude_mm / largest)


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
        field: d.
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    center_mm: np.ndarray
    matrix: np.ndarray
    translation_mm: np.ndarray
    field: SmoothField

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

    def jacobian_determinant(self, box: Box | None = None) -> Float[Tensor, "*box"]:
        """Return det of the pull-back's derivative, source volume over target volume; 0 or less is a fold."""
        axes = self._axes_mm(box or tuple(slice(0, n) for n in self.shape))
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

    def _axes_mm(self, box: Box) -> list[np.ndarray]:
        sides = zip(box, self.spacing_mm, self.center_mm, strict=True)
        return [np.arange(side.start, side.stop) * step - center for side, step, center in sides]


def pull_back(inside: Bool[np.ndarray, "*grid"], deformation: Deformation) -> tuple[Box, Float[np.ndarray, "*box"]]:
    """Return a structure's share of every voxel of the target, by linear interpolation (Lambda of Eq. 6).

    Where the source's border cuts the structure, it goes on as it is at the border.

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
    values = torch.from_numpy(inside[crop].astype(np.float32))
    index = deformation.source_index(box)
    for axis, side in enumerate(crop):
        length = values.shape[axis]
        index[axis].sub_(side.start).mul_(2 / max(length - 1, 1)).sub_(1)
        if length == 1:
            index[axis] = 0
    points = torch.movedim(index.flip(0), 0, -1)[None]
    share = F.grid_sample(values[None, None], points, mode="bilinear", padding_mode="border", align_corners=True)
    return box, share[0, 0].numpy()


def _along(axis: int, n: int) -> tuple[int, ...]:
    return tuple(-1 if i == axis else 1 for i in range(n))


def _determinant(m: Tensor) -> Tensor:
    if m.shape[0] == 2:
        return m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0]
    first = m[0, 0] * (m[1, 1] * m[2, 2] - m[1, 2] * m[2, 1])
    second = m[0, 1] * (m[1, 0] * m[2, 2] - m[1, 2] * m[2, 0])
    return first - second + m[0, 2] * (m[1, 0] * m[2, 1] - m[1, 1] * m[2, 0])
