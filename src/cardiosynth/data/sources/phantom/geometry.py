"""Shapes as signed distances in millimeters, negative inside: ellipsoids, half-spaces, tubes, and how they blend.

A shape is evaluated on three sorted coordinate axes (RAS+ millimeters) and gives an array of their product shape.
Every operation is elementwise, so that part of a grid has the same bits as the same part of the whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline

Array = np.ndarray
Axes = tuple[Array, Array, Array]
FAR_MM = 50.0
"""What stands for "far outside" where no distance was computed."""


def open_mesh(axes: Axes) -> Axes:
    """Return the axes as float32, shaped to broadcast against each other."""
    x, y, z = (np.asarray(axis, np.float32) for axis in axes)
    return x[:, None, None], y[None, :, None], z[None, None, :]


def unit(vector: Sequence[float] | Array) -> Float[Array, "3"]:
    """Return ``vector`` at length 1."""
    vector = np.asarray(vector, float)
    return vector / np.linalg.norm(vector)


def rotation(axis: Sequence[float], angle: float) -> Float[Array, "3 3"]:
    """Return the matrix of a rotation by ``angle`` radians about ``axis`` (Rodrigues' formula)."""
    x, y, z = unit(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """An ellipsoid.

    Attributes:
        center_mm: (3,).
        radii_mm: (3,) half-lengths along ``directions``.
        directions: (3, 3) unit row vectors.
    """

    center_mm: Array
    radii_mm: Array
    directions: Array

    def distance(self, axes: Axes) -> Float[Array, "x y z"]:
        """Return the distance to first order: exact on the surface, within some per cent near it."""
        scaled = self.directions / np.asarray(self.radii_mm)[:, None]
        twice = scaled / np.asarray(self.radii_mm)[:, None]
        offsets = tuple(axis - center for axis, center in zip(axes, self.center_mm, strict=True))
        level, slope = _norm_of_map(scaled, offsets), _norm_of_map(twice, offsets)
        return level * (level - 1) / (slope + np.float32(1e-6))


def upright_ellipsoid(center_mm: Sequence[float] | Array, radii_mm: Sequence[float] | Array) -> Ellipsoid:
    """Return an ellipsoid along the patient's axes."""
    return Ellipsoid(np.asarray(center_mm, float), np.asarray(radii_mm, float), np.eye(3))


def _norm_of_map(matrix: Array, offsets: Axes) -> Array:
    total = np.float32(0)
    for row in matrix:
        x, y, z = open_mesh(tuple(weight * offset for weight, offset in zip(row, offsets, strict=True)))  # pyright: ignore[reportArgumentType]
        component = x + y + z
        total = total + component * component
    return np.sqrt(total)


@dataclass(frozen=True, eq=False)
class HalfSpace:
    """All that lies ahead of a plane.

    Attributes:
        point_mm: (3,) on the plane.
        normal: (3,) unit vector that points inside.
    """

    point_mm: Array
    normal: Array

    def distance(self, axes: Axes) -> Float[Array, "x y z"]:
        """Return the distance, exactly."""
        x, y, z = open_mesh(tuple(n * (a - p) for n, a, p in zip(self.normal, axes, self.point_mm, strict=True)))  # pyright: ignore[reportArgumentType]
        return -(x + y + z)


@dataclass(frozen=True, eq=False)
class Tube:
    """A polyline with a radius at each point.

    Attributes:
        points_mm: (n, 3), in order along the tube.
        radii_mm: (n,).
    """

    points_mm: Array
    radii_mm: Array

    def distance(self, axes: Axes, reach_mm: float = 20.0) -> Float[Array, "x y z"]:
        """Return the distance, exact up to ``reach_mm`` and ``FAR_MM`` beyond it."""
        result = np.full([len(axis) for axis in axes], FAR_MM, np.float32)
        for first in range(len(self.points_mm) - 1):
            region = self._region(first, axes, reach_mm)
            if region is not None:
                part = result[region]
                np.minimum(part, self._piece_distance(first, axes, region)[0], out=part)
        return result

    def coverage(self, axes: Axes, width_mm: float, out: Array) -> None:
        """Raise ``out`` (values in [0, 1]) to the share of each voxel that the tube fills.

        An edge is a ramp of ``width_mm``, about a voxel, scaled so that a cross-section adds up to its true area:
        a vessel thinner than a voxel is as faint as partial volume makes it.
        """
        for first in range(len(self.points_mm) - 1):
            region = self._region(first, axes, width_mm)
            if region is not None:
                distance, radius = self._piece_distance(first, axes, region)
                share = np.clip(np.float32(0.5) - distance / np.float32(width_mm), 0, 1)
                share *= _area_ratio(radius, np.float32(width_mm))
                part = out[region]
                np.maximum(part, share, out=part)

    def fill(self, axes: Axes, out: Array, value: int) -> None:
        """Set ``out`` to ``value`` wherever a grid point lies inside."""
        for first in range(len(self.points_mm) - 1):
            region = self._region(first, axes, 0.0)
            if region is not None:
                out[region][self._piece_distance(first, axes, region)[0] < 0] = value

    def touches(self, axes: Axes) -> bool:
        """Whether the tube's bounding box and the grid's overlap."""
        margin = self.radii_mm.max()
        low, high = self.points_mm.min(0) - margin, self.points_mm.max(0) + margin
        return all(low[i] <= axis[-1] and high[i] >= axis[0] for i, axis in enumerate(axes))

    @property
    def length_mm(self) -> float:
        """The polyline's length."""
        return float(arc_lengths(self.points_mm)[-1])

    def _region(self, first: int, axes: Axes, reach_mm: float) -> tuple[slice, slice, slice] | None:
        ends = self.points_mm[first : first + 2]
        margin = self.radii_mm[first : first + 2].max() + reach_mm
        low, high = ends.min(0) - margin, ends.max(0) + margin
        slices = tuple(
            slice(int(np.searchsorted(axis, low[i])), int(np.searchsorted(axis, high[i])))
            for i, axis in enumerate(axes)
        )
        return None if any(s.stop <= s.start for s in slices) else slices  # pyright: ignore[reportReturnType]

    def _piece_distance(self, first: int, axes: Axes, region: tuple[slice, ...]) -> tuple[Array, Array]:
        start, step = self.points_mm[first], self.points_mm[first + 1] - self.points_mm[first]
        x, y, z = open_mesh(tuple(a[s] - p for a, s, p in zip(axes, region, start, strict=True)))  # pyright: ignore[reportArgumentType]
        dx, dy, dz = (np.float32(component) for component in step)
        length_squared = np.float32(max(float(step @ step), 1e-6))
        along = np.clip((x * dx + y * dy + z * dz) / length_squared, 0, 1)
        squared = (x - along * dx) ** 2 + (y - along * dy) ** 2 + (z - along * dz) ** 2
        begin, end = (np.float32(r) for r in self.radii_mm[first : first + 2])
        radius = begin + along * (end - begin)
        return np.sqrt(squared) - radius, radius


def _area_ratio(radius: Array, width: np.float32) -> Array:
    """Return a disc's area over what the disc with a ramp of ``width`` for an edge adds up to."""
    thin = 3 * width * radius**2 / (radius + width / 2) ** 3
    thick = radius**2 / (radius**2 + width**2 / 12)
    return np.where(radius < width / 2, thin, thick)


def smooth_tube(
    controls_mm: Sequence[Sequence[float] | Array], radii_mm: Sequence[float], step_mm: float = 2.0
) -> Tube:
    """Return the tube along a cubic spline through ``controls_mm``, its radius interpolated along the length."""
    points = spline(controls_mm, step_mm)
    radii = np.interp(np.linspace(0, 1, len(points)), np.linspace(0, 1, len(radii_mm)), radii_mm)
    return Tube(points, radii)


def spline(controls_mm: Sequence[Sequence[float] | Array], step_mm: float) -> Float[Array, "n 3"]:
    """Return points about ``step_mm`` apart on the cubic spline through the control points."""
    controls = np.asarray(controls_mm, float)
    lengths = arc_lengths(controls)
    count = max(round(lengths[-1] / step_mm) + 1, 3)
    return CubicSpline(lengths, controls)(np.linspace(0, lengths[-1], count))


def arc_lengths(points_mm: Float[Array, "n 3"]) -> Float[Array, "n"]:
    """Return the distance along a polyline from its first point to each point."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points_mm, axis=0), axis=1))])


def smooth_union(a: Array, b: Array, blend_mm: float) -> Array:
    """Return the union of two shapes with the seam filleted over ``blend_mm`` (polynomial smooth minimum)."""
    overlap = np.maximum(np.float32(blend_mm) - np.abs(a - b), 0)
    return np.minimum(a, b) - overlap * overlap * np.float32(0.25 / blend_mm)


def smooth_intersection(a: Array, b: Array, blend_mm: float) -> Array:
    """Return what two shapes share, with the edge rounded over ``blend_mm``."""
    return -smooth_union(-a, -b, blend_mm)


def union(*shapes: Array) -> Array:
    """Return the union of shapes."""
    return reduce(np.minimum, shapes)


def outside(shape: Array, *others: tuple[Array, float]) -> Array:
    """Return ``shape`` without what lies within a gap (mm) of other shapes, given as pairs (shape, gap)."""
    return reduce(np.maximum, [np.float32(gap) - other for other, gap in others], shape)
