"""Grids in space: shape and affine, RAS+, millimeters; resampling between grids in physical space.

An affine maps voxel indices to patient coordinates in millimeters. The axes of RAS+ point to the patient's
Right, Anterior and Superior, as in NIfTI. A voxel fills its cell: space ends half a voxel beyond the outermost centers.
The grid of a slice is two-dimensional, its affine is not: the third column is the slice's normal and thickness.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

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


def resample(image: np.ndarray, source: Grid, target: Grid, fill: float | None, order: int = 1) -> np.ndarray:
    """Resample ``image`` (C, X, Y[, Z]) from ``source`` to ``target`` by interpolation in physical space.

    Before a coarser target is sampled the image is smoothed (Gaussian, sigma (s - 1) / 2 source voxels for steps of
    s), so that nothing is aliased. A shift by whole voxels copies, whatever the order.

    Args:
        image: values on ``source``, any real dtype.
        source: the grid of ``image``.
        target: the grid wanted.
        fill: value outside ``source``; None for the outermost value, which goes on.
        order: 0 nearest, 1 linear, 3 cubic B-spline.

    Returns:
        (C, *target.shape) float32.
    """
    out = np.empty((len(image), *target.shape), np.float32)
    for where, block in resampled_blocks(image, source, target, fill, order):
        out[where] = block
    return out


def resampled_blocks(
    image: np.ndarray, source: Grid, target: Grid, fill: float | None, order: int = 1
) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """Yield what `resample` returns in blocks, so that no second volume need lie in memory.

    Returns:
        Where a block stands in the result, and the block, float32.
    """
    mapping = _IndexMap(source, target)
    for box in _boxes(target.shape, BLOCK):
        inside = True if fill is None else mapping.inside(box)
        for index, channel in enumerate(image):
            block = mapping.sample(channel[mapping.reach(box, order)], box, order)
            yield (slice(index, index + 1), *box), np.where(inside, block, np.float32(fill or 0))[None]


def resample_mask(mask: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Resample a label ``mask`` (1, X, Y[, Z]) label by label, each keeping its volume.

    Every label's share of each target voxel is computed as an image is. The largest share wins, background among
    them, except that thin structures, which hardly ever fill half a voxel of a coarser grid, need a smaller share:
    the one at which the structure keeps its volume.

    Returns:
        (1, *target.shape) uint8.
    """
    mapping = _IndexMap(source, target)
    boxes = _boxes(target.shape, MASK_BLOCK)
    needed = {}
    if not mapping.copies:
        tallies: dict[int, _ShareTally] = {}
        for box in boxes:
            for code, share in mapping.shares(mask[0], box):
                tallies.setdefault(code, _ShareTally()).add(share)
        needed = {code: tally.volume_keeping() for code, tally in tallies.items()}
    out = np.zeros((1, *target.shape), np.uint8)
    for box in boxes:
        out[0][box] = _largest_share(mapping.shares(mask[0], box), needed)
    return out


def _largest_share(shares: Iterator[tuple[int, np.ndarray]], needed: dict[int, float]) -> np.ndarray:
    """Return the code that wins each voxel of a block, 0 where the background does."""
    background, best, out = np.ones((), np.float32), np.zeros((), np.float32), np.zeros((), np.uint8)
    for code, share in shares:
        background = background - share
        share = share * np.float32((1 - needed.get(code, 0.5)) / needed.get(code, 0.5))
        out = np.where(share > best, np.uint8(code), out)
        best = np.maximum(share, best)
    return np.where(background > best + 1e-5, np.uint8(0), out)


class _ShareTally:
    """What is known of one label's shares after some blocks: enough to find the threshold that keeps its volume."""

    def __init__(self):
        self._total, self._sure, self._least_sure = 0.0, 0, np.inf
        self._doubtful: list[np.ndarray] = []

    def add(self, share: np.ndarray) -> None:
        """Count the shares of one block."""
        self._total += float(share.sum(dtype=np.float64))
        sure = share[share > 0.5]
        self._sure += sure.size
        self._least_sure = min(self._least_sure, float(sure.min(initial=np.inf)))
        self._doubtful.append(share[(share > 0) & (share <= 0.5)])

    def volume_keeping(self) -> float:
        """Return the threshold, at most one half, above which lie as many voxels as the shares sum to."""
        doubtful = np.concatenate(self._doubtful)
        missing = max(1, round(self._total)) - self._sure
        if missing < 0 or missing >= doubtful.size:
            return 0.5
        largest_out = np.partition(doubtful, doubtful.size - missing - 1)[doubtful.size - missing - 1]
        inside = np.partition(doubtful, doubtful.size - missing)[doubtful.size - missing] if missing else None
        smallest_in = self._least_sure if inside is None else float(inside)
        return float(np.clip((smallest_in + float(largest_out)) / 2, 0.05, 0.5))


BLOCK, MASK_BLOCK = 128, 64
"""Voxels per axis that are resampled at once: images, and masks, where small blocks hold few labels."""
SPLINE_REACH = 16
"""Source voxels beyond which a cubic B-spline's coefficient no longer depends on a value (by 1e-9 of it)."""

Box = tuple[slice, ...]


def _boxes(shape: tuple[int, ...], side: int) -> list[Box]:
    """Return the blocks of a grid, the last along each axis cut short."""
    cuts = [[slice(low, min(low + side, size)) for low in range(0, size, side)] for size in shape]
    return list(product(*cuts))


def _linear_weights(place: np.ndarray, length: int, sigma: float) -> np.ndarray:
    """Return the matrix (places, length) that smooths an axis by ``sigma`` voxels and interpolates it at ``place``.

    Beyond the ends the outermost value goes on.
    """
    place = np.clip(place, 0, length - 1)
    low = np.minimum(np.floor(place).astype(int), max(length - 2, 0))
    weights = np.zeros((len(place), length))
    rows = np.arange(len(place))
    weights[rows, low] = 1 - (place - low)
    weights[rows, np.minimum(low + 1, length - 1)] += place - low
    if sigma > 0:
        weights = weights @ ndimage.gaussian_filter1d(np.eye(length), sigma, axis=0, mode="nearest", truncate=4.0)
    return weights.astype(np.float32)


class _IndexMap:
    """How voxel indices of ``target`` map to those of ``source``."""

    def __init__(self, source: Grid, target: Grid):
        n = len(source.shape)
        full = np.linalg.inv(source.affine) @ target.affine
        self.matrix, self.offset = full[:n, :n], full[:n, 3]
        self.source_shape = source.shape
        drift = np.abs(self.matrix - np.eye(n)) @ np.array(target.shape) + np.abs(self.offset - np.rint(self.offset))
        self.copies = bool(drift.max() < 1e-2)
        if self.copies:
            self.matrix, self.offset = np.eye(n), np.rint(self.offset)
        turned = np.abs(self.matrix - np.diag(np.diag(self.matrix))) @ np.array(target.shape)
        self.straight = bool(turned.max() < 1e-6)
        step = np.linalg.norm(self.matrix, axis=1)
        self.sigma = np.maximum(step - 1, 0) / 2 if (step > 1.01).any() else np.zeros(n)

    def reach(self, box: Box, order: int) -> Box:
        """Return the part of the source that decides the values in a block of the target."""
        low = np.array([b.start for b in box])
        last = np.array([b.stop for b in box]) - 1
        ends = np.stack([self.matrix * low, self.matrix * last])
        first = ends.min(0).sum(1) + self.offset
        final = ends.max(0).sum(1) + self.offset
        margin = np.floor(4 * self.sigma + 0.5) + (0 if self.copies else SPLINE_REACH if order > 1 else 2)
        most = np.array(self.source_shape) - 1
        start = np.maximum(np.floor(np.clip(first, 0, most) - margin), 0).astype(int)
        stop = np.minimum(np.ceil(np.clip(final, 0, most) + margin), most).astype(int) + 1
        return tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))

    def sample(self, part: np.ndarray, box: Box, order: int) -> np.ndarray:
        """Return float32 values at a block of the target; beyond the source the outermost value goes on.

        Args:
            part: of the source, what `reach` says.
            box: the block.
            order: of the spline.
        """
        start = np.array([b.start for b in self.reach(box, order)])
        if order == 1 and self.straight and not self.copies:
            return self._sample_straight(part, box, start)
        part = part.astype(np.float32)
        if self.sigma.any():
            part = ndimage.gaussian_filter(part, self.sigma, mode="nearest", truncate=4.0)
        return ndimage.affine_transform(
            part,
            self.matrix,
            self.matrix @ [b.start for b in box] + self.offset - start,  # pyright: ignore[reportArgumentType]
            tuple(b.stop - b.start for b in box),  # pyright: ignore[reportArgumentType]
            order=0 if self.copies else order,
            mode="nearest",
        )

    def _sample_straight(self, part: np.ndarray, box: Box, start: np.ndarray) -> np.ndarray:
        """Sample linearly along one axis after the other, each a product with a matrix: several times as fast."""
        values = part.astype(np.float32)
        for axis, along in enumerate(box):
            place = self.matrix[axis, axis] * np.arange(along.start, along.stop) + self.offset[axis] - start[axis]
            weights = _linear_weights(place, part.shape[axis], self.sigma[axis])
            values = np.moveaxis(np.tensordot(weights, values, (1, axis)), 0, axis)
        return np.ascontiguousarray(values)

    def shares(self, mask: np.ndarray, box: Box) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the labels that reach into a block of the target, ascending, and their share of each voxel."""
        part = mask[self.reach(box, 1)]
        inside = self.inside(box)
        for code in np.flatnonzero(np.bincount(part.ravel(), minlength=1)[1:]) + 1:
            here = part == code
            share = np.ones(inside.shape, np.float32) if here.all() else self.sample(here, box, 1)
            yield int(code), share * inside

    def inside(self, box: Box) -> np.ndarray:
        """Return which voxels of a block of the target have their center in a cell of the source."""
        n = len(box)
        inside = np.ones((1,) * n, bool)
        for axis in range(n):
            index = self.offset[axis]
            for along in np.flatnonzero(self.matrix[axis]):
                steps = self.matrix[axis, along] * np.arange(box[along].start, box[along].stop)
                index = index + steps.reshape([-1 if i == along else 1 for i in range(n)])
            inside = inside & (index >= -0.5 - 1e-6) & (index <= self.source_shape[axis] - 0.5 + 1e-6)
        return np.broadcast_to(inside, [b.stop - b.start for b in box])
