"""The millimeter lattice: anatomy is evaluated on it once, and every voxel grid reads from it.

Its points lie at multiples of ``STEP_MM`` in patient space, whatever grid is rendered; so a patient has the same
shape at every resolution, and a part of a grid the same bits as the whole.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from cardiosynth.core.random import numpy_generator
from cardiosynth.data.sources.phantom.geometry import Array, Axes

STEP_MM = 2.0
NOISE_PERIOD = 40
"""Cells after which lattice noise repeats; at 4 mm per cell, 160 mm."""


@dataclass(frozen=True, eq=False)
class Lattice:
    """Equidistant points in patient space.

    Attributes:
        first: (3,) integers; the first point lies at ``first * STEP_MM``.
        shape: points per axis.
    """

    first: tuple[int, int, int]
    shape: tuple[int, int, int]

    @property
    def axes(self) -> Axes:
        """Coordinates in mm along each axis."""
        x, y, z = (STEP_MM * (n + np.arange(count)) for n, count in zip(self.first, self.shape, strict=True))
        return x, y, z

    def sampled(self, field: Float[Array, "i j k"], axes: Axes) -> Float[Array, "x y z"]:
        """Return ``field`` (on this lattice) at the points of ``axes`` by trilinear interpolation, float32."""
        result = field
        for axis in (2, 1, 0):
            result = self._sampled_along(axis, result, axes[axis])
        return result

    def at(self, field: Float[Array, "i j k"], points_mm: Float[Array, "n 3"]) -> Float[Array, "n"]:
        """Return ``field`` at single points by trilinear interpolation; the border's value outside."""
        index = (points_mm / STEP_MM - np.array(self.first)).T
        return ndimage.map_coordinates(field, index, order=1, mode="nearest")

    def box(self, inside: Array, axes: Axes) -> tuple[slice, slice, slice] | None:
        """Return the part of ``axes`` that can touch the lattice cells around ``inside``, None where none can."""
        slices = []
        for axis in range(3):
            where = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
            if len(where) == 0:
                return None
            low = STEP_MM * (self.first[axis] + where[0] - 1)
            high = STEP_MM * (self.first[axis] + where[-1] + 1)
            start, stop = np.searchsorted(axes[axis], [low, high])
            slices.append(slice(int(start), int(stop)))
        return None if any(s.stop <= s.start for s in slices) else tuple(slices)

    def _sampled_along(self, axis: int, field: Array, coordinates: Array) -> Array:
        position = coordinates / STEP_MM - self.first[axis]
        below = np.clip(np.floor(position).astype(int), 0, self.shape[axis] - 2)
        weight = _along((position - below).astype(np.float32), axis)
        low, high = field.take(below, axis), field.take(below + 1, axis)
        high -= low
        high *= weight
        high += low
        return high


def lattice_around(low_mm: Array, high_mm: Array) -> Lattice:
    """Return the lattice that covers a box with a cell to spare on each side."""
    first = np.floor(np.asarray(low_mm) / STEP_MM).astype(int) - 1
    last = np.ceil(np.asarray(high_mm) / STEP_MM).astype(int) + 1
    i, j, k = (int(n) for n in first)
    nx, ny, nz = (int(n) for n in last - first + 1)
    return Lattice((i, j, k), (nx, ny, nz))


@dataclass(frozen=True)
class Roughness:
    """Band-limited noise in patient space, one independent field per name.

    Attributes:
        seed: the run's seed.
        patient: the patient's index.
    """

    seed: int
    patient: int

    def field(self, name: str, cell_mm: float, axes: Axes) -> Float[Array, "x y z"]:
        """Return noise of about unit size whose grain is ``cell_mm``: random values joined by smooth steps."""
        rng = numpy_generator(self.seed, "phantom", self.patient, "roughness", name)
        result = rng.standard_normal((NOISE_PERIOD,) * 3, dtype=np.float32)
        for axis in (2, 1, 0):
            result = _smooth_steps(result, axis, axes[axis] / cell_mm)
        return result


def _smooth_steps(values: Array, axis: int, position: Array) -> Array:
    below = np.floor(position).astype(int)
    weight = (position - below).astype(np.float32)
    weight = _along(weight * weight * (3 - 2 * weight), axis)
    low = values.take(below % NOISE_PERIOD, axis)
    high = values.take((below + 1) % NOISE_PERIOD, axis)
    return low + weight * (high - low)


def _along(values: Array, axis: int) -> Array:
    shape = [1, 1, 1]
    shape[axis] = -1
    return values.reshape(shape)
