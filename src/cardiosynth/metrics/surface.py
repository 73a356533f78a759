"""How far the surfaces of two masks lie apart."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import ndimage


def hausdorff95(p: Shaped[np.ndarray, "*grid"], q: Shaped[np.ndarray, "*grid"], spacing_mm: Sequence[float]) -> float:
    """Return the symmetric 95 % Hausdorff distance in mm, 0 or more.

    The larger of the two 95th percentiles of the distances from each surface voxel of one mask to the nearest surface
    voxel of the other (MONAI's definition; surface voxels touch the outside with a face). Both masks empty gives NaN:
    there is nothing to judge. One of them empty gives infinity: no distance is far enough. Means over cases therefore
    report how many were finite.

    Args:
        p: predicted mask, bool or anything that is non-zero inside.
        q: ground truth on the same grid.
        spacing_mm: voxel size per axis.
    """
    inside_p, inside_q = p != 0, q != 0
    if not inside_p.any() or not inside_q.any():
        return float("inf") if inside_p.any() or inside_q.any() else float("nan")
    box = _joint_box(inside_p | inside_q)
    surface_p, surface_q = _surface(inside_p[box]), _surface(inside_q[box])
    there = np.percentile(_distances_mm(surface_p, surface_q, spacing_mm), 95)
    back = np.percentile(_distances_mm(surface_q, surface_p, spacing_mm), 95)
    return float(max(there, back))


def surface_dice(
    p: Shaped[np.ndarray, "*grid"],
    q: Shaped[np.ndarray, "*grid"],
    tolerance_mm: float,
    spacing_mm: Sequence[float],
) -> float:
    """Return the share of both surfaces that lies within a tolerance of the other, in [0, 1] (Nikolov et al. 2021).

    Surface voxels are counted, as MONAI does, and not weighed by the area they stand for. NaN where both masks are
    empty, 0 where one is.

    Args:
        p: predicted mask, bool or anything that is non-zero inside.
        q: ground truth on the same grid.
        tolerance_mm: distance that still counts as the same surface.
        spacing_mm: voxel size per axis.
    """
    inside_p, inside_q = p != 0, q != 0
    if not inside_p.any() or not inside_q.any():
        return 0.0 if inside_p.any() or inside_q.any() else float("nan")
    box = _joint_box(inside_p | inside_q)
    surface_p, surface_q = _surface(inside_p[box]), _surface(inside_q[box])
    there, back = (_distances_mm(a, b, spacing_mm) for a, b in ((surface_p, surface_q), (surface_q, surface_p)))
    return float((np.concatenate([there, back]) <= tolerance_mm * (1 + 1e-6)).mean())


def _surface(inside: Bool[np.ndarray, "*grid"]) -> Bool[np.ndarray, "*grid"]:
    return inside & np.logical_not(ndimage.binary_erosion(inside))


def _distances_mm(
    start: Bool[np.ndarray, "*grid"], goal: Bool[np.ndarray, "*grid"], spacing_mm: Sequence[float]
) -> Float[np.ndarray, "voxels"]:
    """Return the distance from every voxel of ``start`` to the nearest voxel of ``goal``."""
    return np.asarray(ndimage.distance_transform_edt(~goal, sampling=tuple(spacing_mm)))[start]


def _joint_box(inside: Bool[np.ndarray, "*grid"]) -> tuple[slice, ...]:
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    assert box is not None
    return box
