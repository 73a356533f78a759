"""Grids in space: shape and affine, RAS+, millimeters; resampling between grids in physical space.

An affine maps voxel indices to patient coordinates in millimeters. The axes of RAS+ point to the patient's
Right, Anterior and Superior, as in NIfTI. A voxel fills its cell: space ends half a voxel beyond the outermost centers.
The grid of a slice is two-dimensional, its affine is not: the third column is the slice's normal and thickness.
"""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular lattice of voxels in patient space.

    Attributes:
        shape: voxels per axis, two or three numbers.
        affine: (4, 4) float64, voxel index to RAS+ millimeters.
    """

    shape: tuple[int, ...]
    affine: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", np.asarray(self.affine, np.float64))
        assert len(self.shape) in (2, 3), self.shape
        assert self.affine.shape == (4, 4), self.affine.shape

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Distance between neighboring voxels along each axis (the length of the affine's columns)."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return tuple(float(v) for v in lengths[: len(self.shape)])

    @property
    def center_mm(self) -> np.ndarray:
        """Patient coordinates (3,) of the grid's center."""
        index = np.zeros(3)
        index[: len(self.shape)] = (np.array(self.shape) - 1) / 2
        return self.affine[:3, :3] @ index + self.affine[:3, 3]

    @property
    def axis_codes(self) -> str:
        """Where each axis points, e.g. ``"RAS"`` or ``"LPS"``."""
        return "".join(nib.orientations.aff2axcodes(self.affine))

    @property
    def is_sheared(self) -> bool:
        """Whether the axes are not at right angles (by more than a tenth of a degree)."""
        columns = self.affine[:3, : len(self.shape)] / self.spacing_mm
        cosines = columns.T @ columns - np.eye(len(self.shape))
        return bool(np.abs(cosines).max() > np.sin(np.radians(0.1)))

    def same_as(self, other: "Grid", tolerance_mm: float = 1e-2) -> bool:
        """Whether both grids have the same shape and put every corner within ``tolerance_mm`` of the other."""
        if self.shape != other.shape:
            return False
        extent = np.ones(4)
        extent[:3] = 0
        extent[: len(self.shape)] = np.array(self.shape) - 1
        drift = np.abs(self.affine - other.affine)[:3] @ extent
        return bool(drift.max() <= tolerance_mm)


def centered_grid(
    center_mm: np.ndarray, shape: tuple[int, ...], spacing_mm: tuple[float, ...], axes: np.ndarray | None = None
) -> Grid:
    """Return the grid of this shape and spacing whose center lies at ``center_mm``.

    Args:
        center_mm: (3,) patient coordinates.
        shape: voxels per axis, two or three numbers.
        spacing_mm: as many numbers as ``shape``; for a slice, a third may give its thickness (else 1).
        axes: (3, 3) orthonormal, the direction of each grid axis in its columns; None for RAS+.
    """
    lengths = np.ones(3)
    lengths[: len(spacing_mm)] = spacing_mm
    half = np.zeros(3)
    half[: len(shape)] = (np.array(shape) - 1) / 2
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if axes is None else axes) * lengths
    affine[:3, 3] = np.asarray(center_mm) - affine[:3, :3] @ half
    return Grid(shape, affine)


def right_angled_axes(grid: Grid) -> np.ndarray:
    """Return the (3, 3) orthonormal axes nearest to those of ``grid`` (the orthogonal polar factor)."""
    columns = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    if len(grid.shape) == 2:
        normal = np.cross(columns[:, 0], columns[:, 1])
        columns[:, 2] = normal / np.linalg.norm(normal) * np.sign(normal @ columns[:, 2])
    left, _, right = np.linalg.svd(columns)
    return left @ right


def covering_grid(grid: Grid, axes: np.ndarray, spacing_mm: tuple[float, ...]) -> Grid:
    """Return the smallest grid with these axes and this spacing that reaches every voxel center of ``grid``."""
    n = len(grid.shape)
    corners = np.zeros((2**n, 3))
    corners[:, :n] = np.stack(np.meshgrid(*[(0, size - 1) for size in grid.shape], indexing="ij"), -1).reshape(-1, n)
    along = (corners @ grid.affine[:3, :3].T + grid.affine[:3, 3]) @ axes
    low, high = along.min(0), along.max(0)
    shape = tuple(int(v) for v in np.ceil((high - low)[:n] / spacing_mm[:n] - 1e-4) + 1)
    return centered_grid(axes @ ((low + high) / 2), shape, spacing_mm, axes)


def spacing_along(grid: Grid, axes: np.ndarray) -> tuple[float, ...]:
    """Return the three voxel sizes (mm) of ``grid``, each given to the one of ``axes`` closest to its own axis."""
    turned = np.eye(4)
    turned[:3, :3] = axes.T @ grid.affine[:3, :3]
    spacing = np.empty(3)
    spacing[nib.orientations.io_orientation(turned)[:, 0].astype(int)] = np.linalg.norm(grid.affine[:3, :3], axis=0)
    return tuple(spacing.tolist())


def to_ras(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``array`` (C, X, Y[, Z]) and its affine with axes permuted and flipped to be closest to RAS+.

    No voxel value changes; oblique affines stay oblique. The two axes of a slice are put in the order R, A, S.
    """
    n = array.ndim - 1
    orientation = nib.orientations.io_orientation(affine)
    order = np.argsort(orientation[:n, 0])
    backward = orientation[order, 1] < 0
    moved = np.flip(array.transpose(0, *(order + 1)), axis=tuple((1 + np.flatnonzero(backward)).tolist()))
    change = np.eye(4)
    change[:n, :n] = 0
    for new, old in enumerate(order):
        change[old, new] = -1 if backward[new] else 1
        change[old, 3] = array.shape[1 + old] - 1 if backward[new] else 0
    return np.ascontiguousarray(moved), affine @ change


def resample(image: np.ndarray, source: Grid, target: Grid, fill: float, order: int = 1) -> np.ndarray:
    """Resample ``image`` (C, X, Y[, Z]) from ``source`` to ``target`` by interpolation in physical space.

    Before a coarser target is sampled the image is smoothed (Gaussian, sigma (s - 1) / 2 source voxels for steps of
    s), so that nothing is aliased. A shift by whole voxels copies, whatever the order.

    Args:
        image: values on ``source``, any real dtype.
        source: the grid of ``image``.
        target: the grid wanted.
        fill: value outside ``source``.
        order: 0 nearest, 1 linear, 3 cubic B-spline.

    Returns:
        (C, *target.shape) float32.
    """
    mapping = _IndexMap(source, target)
    inside = mapping.inside()
    return np.stack([np.where(inside, mapping.sample(channel, order), np.float32(fill)) for channel in image])


def resample_mask(mask: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Resample a label ``mask`` (1, X, Y[, Z]) label by label, each keeping its volume.

    Every label's share of each target voxel is computed as an image is. The largest share wins, background among
    them, except that thin structures, which hardly ever fill half a voxel of a coarser grid, need a smaller share:
    the one at which the structure keeps its volume.

    Returns:
        (1, *target.shape) uint8.
    """
    mapping = _IndexMap(source, target)
    inside = mapping.inside()
    background = np.ones(target.shape, np.float32)
    best = np.zeros(target.shape, np.float32)
    out = np.zeros(target.shape, np.uint8)
    for code in np.unique(mask[mask > 0]):
        share = mapping.sample(mask[0] == code, 1) * inside
        background -= share
        needed = _volume_keeping_share(share)
        share *= (1 - needed) / needed
        wins = share > best
        best[wins], out[wins] = share[wins], code
    out[background > best + 1e-5] = 0
    return out[None]


def _volume_keeping_share(share: np.ndarray) -> float:
    """Return the threshold on ``share``, at most one half, above which lie as many voxels as the shares sum to."""
    some = share[share > 0]
    count = max(1, round(float(share.sum(dtype=np.float64))))
    if count >= some.size:
        return 0.5
    smallest_in, largest_out = np.partition(some, (some.size - count - 1, some.size - count))[[-count, -count - 1]]
    return float(np.clip((smallest_in + largest_out) / 2, 0.05, 0.5))


class _IndexMap:
    """How voxel indices of ``target`` map to those of ``source``."""

    def __init__(self, source: Grid, target: Grid):
        n = len(source.shape)
        full = np.linalg.inv(source.affine) @ target.affine
        self.matrix, self.offset = full[:n, :n], full[:n, 3]
        self.shape, self.source_shape = target.shape, source.shape
        drift = np.abs(self.matrix - np.eye(n)) @ np.array(target.shape) + np.abs(self.offset - np.rint(self.offset))
        self.copies = bool(drift.max() < 1e-2)
        if self.copies:
            self.matrix, self.offset = np.eye(n), np.rint(self.offset)

    def sample(self, values: np.ndarray, order: int) -> np.ndarray:
        """Return float32 ``values`` at every target voxel; beyond the source the outermost value goes on."""
        values = values.astype(np.float32)
        step = np.linalg.norm(self.matrix, axis=1)
        if (step > 1.01).any():
            values = ndimage.gaussian_filter(values, np.maximum(step - 1, 0) / 2, mode="nearest")
        order = 0 if self.copies else order
        return ndimage.affine_transform(
            values,
            self.matrix,
            self.offset,  # pyright: ignore[reportArgumentType]
            self.shape,  # pyright: ignore[reportArgumentType]
            order=order,
            mode="nearest",
        )

    def inside(self) -> np.ndarray:
        """Return which target voxels have their center in a cell of the source."""
        n = len(self.shape)
        inside = np.ones((1,) * n, bool)
        for axis in range(n):
            index = self.offset[axis]
            for along in np.flatnonzero(self.matrix[axis]):
                steps = self.matrix[axis, along] * np.arange(self.shape[along])
                index = index + steps.reshape([-1 if i == along else 1 for i in range(n)])
            inside = inside & (index >= -0.5 - 1e-6) & (index <= self.source_shape[axis] - 0.5 + 1e-6)
        return np.broadcast_to(inside, self.shape)
