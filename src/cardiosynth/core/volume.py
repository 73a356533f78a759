"""Grids in space: shape and affine, RAS+, millimeters; resampling between grids in physical space.

An affine maps voxel indices to patient coordinates in millimeters. The axes of RAS+ point to the patient's
Right, Anterior and Superior, as in NIfTI.
"""

from dataclasses import dataclass
from typing import Any

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
        columns = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        cosines = columns.T @ columns - np.eye(3)
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


def centered_grid(center_mm: np.ndarray, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Grid:
    """Return the RAS+ grid of this shape and spacing whose center lies at ``center_mm``."""
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = np.asarray(center_mm) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def straight_grid(grid: Grid) -> Grid:
    """Return a RAS+ grid without shear or obliqueness that covers ``grid`` at its finest mean spacing per axis.

    Used for sheared affines, which no orthogonal format can carry.
    """
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in grid.shape], indexing="ij"), -1).reshape(-1, 3)
    points = corners @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    low, high = points.min(0), points.max(0)
    order = np.abs(grid.affine[:3, :3]).argmax(axis=0)
    spacing = np.empty(3)
    spacing[order] = grid.spacing_mm
    shape = tuple(int(n) for n in np.floor((high - low) / spacing + 1e-6) + 1)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = low
    return Grid(shape, affine)


def to_ras(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``array`` (C, X, Y, Z) and its affine with axes permuted and flipped to be closest to RAS+.

    No voxel value changes; oblique affines stay oblique.
    """
    orientation = nib.orientations.io_orientation(affine)
    spatial = array.shape[1:]
    moved = nib.orientations.apply_orientation(np.moveaxis(array, 0, -1), orientation)
    new_affine = affine @ nib.orientations.inv_ornt_aff(orientation, spatial)
    return np.ascontiguousarray(np.moveaxis(moved, -1, 0)), new_affine


def resample(image: np.ndarray, source: Grid, target: Grid, fill: float, order: int = 1) -> np.ndarray:
    """Resample ``image`` (C, X, Y, Z) from ``source`` to ``target`` by interpolation in physical space.

    Args:
        image: values on ``source``, any real dtype.
        source: the grid of ``image``.
        target: the grid wanted.
        fill: value outside ``source``.
        order: 0 nearest, 1 linear, 3 cubic B-spline.

    Returns:
        (C, *target.shape) float32.
    """
    matrix, offset = _index_map(source, target)
    return np.stack([
        ndimage.affine_transform(
            channel.astype(np.float32), matrix, offset, target.shape, order=order, mode="constant", cval=fill
        )
        for channel in image
    ])  # fmt: skip


def resample_mask(mask: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Resample a label ``mask`` (1, X, Y, Z) label by label: each voxel takes the label with the largest share.

    Thin structures keep more of their volume than under nearest-neighbor sampling of the codes.

    Returns:
        (1, *target.shape) uint8.
    """
    matrix, offset = _index_map(source, target)
    shrink = np.maximum(1.0, np.array(target.spacing_mm) / np.array(source.spacing_mm))
    best = np.zeros(target.shape, np.float32)
    out = np.zeros(target.shape, np.uint8)
    background = np.ones(target.shape, np.float32)
    for code in np.unique(mask[mask > 0]):
        share = (mask[0] == code).astype(np.float32)
        if (shrink > 1).any():
            share = ndimage.gaussian_filter(share, (shrink - 1) * 0.5)
        share = ndimage.affine_transform(share, matrix, offset, target.shape, order=1, mode="constant")
        background -= share
        wins = share > best
        best[wins], out[wins] = share[wins], code
    out[background > best] = 0
    return out[None]


def _index_map(source: Grid, target: Grid) -> tuple[np.ndarray, Any]:
    full = np.linalg.inv(source.affine) @ target.affine
    n = len(source.shape)
    return full[:n, :n], full[:n, 3]
