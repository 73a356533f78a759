"""Smooth fields over a lattice of knots, and the diffeomorphisms that they generate (FCaS Eq. 5's non-rigid part).

A random stationary velocity is followed for one unit of time: the flow has an inverse, the flow of the opposite
velocity, and folds nowhere, however far it goes. It is computed by scaling and squaring (Arsigny et al. 2006): a small
step, doubled by composition with itself. Positions are millimeters along the grid's axes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

SMALLEST_STEP_MM = 0.05
"""The step that scaling and squaring begins with: one explicit step so short is exact to some micrometers."""

KNOTS_PER_KNOT = 4
"""Knots of a flow per knot of its velocity and axis: four keep the flow to a hundredth of a millimeter."""


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

    def at(self, points_mm: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
        """Return the displacement in mm at scattered points; 0 beyond the knots."""
        knot = (points_mm - np.array(self.first_mm)[:, None]) / self.smoothness_mm
        return np.stack([
            ndimage.map_coordinates(c, knot, order=3, mode="grid-constant", prefilter=False)
            for c in self.coefficients.numpy()
        ])  # fmt: skip

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


def exponential(velocity: SmoothField, low_mm: Sequence[float], high_mm: Sequence[float]) -> SmoothField:
    """Return the displacement, over the box [low_mm, high_mm], of the flow of ``velocity`` after one unit of time.

    No displacement is larger than the largest velocity. The flow of ``velocity.scaled(-1)`` is the inverse map.
    """
    step = velocity.smoothness_mm / KNOTS_PER_KNOT
    speed = float(velocity.displacement(_lattice(low_mm, high_mm, step, 0.0)).norm(dim=0).max())
    # What flows in from outside, and the knots beyond the box that a cubic spline needs.
    axes = _lattice(low_mm, high_mm, step, speed + 3 * step)
    halvings = max(0, int(np.ceil(np.log2(speed / SMALLEST_STEP_MM + 1e-9))))
    moved = velocity.displacement(axes).double().numpy() / 2**halvings
    here = np.indices(moved.shape[1:], dtype=np.float64)
    for _ in range(halvings):
        there = here + moved / step
        moved = moved + np.stack([ndimage.map_coordinates(d, there, order=3, mode="nearest") for d in moved])
    coefficients = np.stack([ndimage.spline_filter(d, 3, mode="mirror") for d in moved])
    return SmoothField(torch.from_numpy(coefficients), tuple(float(x[0]) for x in axes), step)


def _lattice(low_mm: Sequence[float], high_mm: Sequence[float], step: float, margin: float) -> list[np.ndarray]:
    ends = zip(low_mm, high_mm, strict=True)
    return [np.arange(np.floor((a - margin) / step), np.ceil((b + margin) / step) + 1) * step for a, b in ends]
