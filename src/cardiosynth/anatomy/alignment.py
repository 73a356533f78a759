"""Moving a template onto a reference mask in physical space, fitted from the masks alone.

The published template lies wherever its scan put it, and a network that is told voxel by voxel then learns manner and
not anatomy. Here the structures that both masks name are matched: by their centers, or by an affine map that carries
centers and second moments. Every structure counts as the ellipsoid of its moments, and what an affine map must bring
together are these ellipsoids' points; no search over voxels is needed.

Positions are millimeters: of the patient for volumes; of the slice's own plane, from its first voxel, for slices,
which lie in different planes from patient to patient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import rounded_image
from cardiosynth.core.volume import Grid, resample, resample_mask

Align = Literal["none", "centroid", "affine"]

SHRINKAGE = 0.02
"""How far an affine map is drawn towards the identity: structures that a scan cuts off must not bend all others."""

LARGEST_STRETCH = 1.5
"""Adult hearts differ by some 30 % along any direction; what stretches more matches different parts of hearts."""

LARGEST_VOLUME_CHANGE = 2.0

LARGEST_TURN_DEG = 100.0
"""Short-axis slices are turned against each other by up to a right angle (measured on ACDC, docs/log.md)."""

ROUNDS = 20
"""Fits of ellipsoids to what the last one left; a turn of 20 degrees is found to 0.01 degrees after ten."""


@dataclass(frozen=True, eq=False)
class Moments:
    """A structure as the ellipsoid of its moments.

    Attributes:
        size: its volume in cubic millimeters, or area in square ones.
        center_mm: its center.
        covariance_mm2: of its points; its voxels are filled, so that it is never flat.
    """

    size: float
    center_mm: Float[np.ndarray, "n"]
    covariance_mm2: Float[np.ndarray, "n n"]


@dataclass(frozen=True, eq=False)
class Fit:
    """A map of template positions to reference positions.

    Attributes:
        matrix: homogeneous, millimeters to millimeters.
        kind: what it is: ``affine``, ``similarity``, ``centroid`` or ``grid``.
        reason: why it is less than was asked for; empty where it is not.
        structures: names that both masks have.
        distance_mm: root mean square distance of the structures' centers after it, None where there is no structure.
    """

    matrix: Float[np.ndarray, "m m"]
    kind: Literal["affine", "similarity", "centroid", "grid"]
    reason: str
    structures: tuple[str, ...]
    distance_mm: float | None

    def facts(self, asked: Align) -> dict[str, Any]:
        """Return everything as JSON-like values, for the provenance."""
        reason = {"reason": self.reason} if self.reason else {}
        distance = None if self.distance_mm is None else round(self.distance_mm, 3)
        matrix = [[round(float(v), 6) for v in row] for row in self.matrix]
        facts = {"asked": asked, "kind": self.kind, **reason, "matrix": matrix}
        return facts | {"structures": list(self.structures), "distance_mm": distance}


def positions(grid: Grid) -> Float[np.ndarray, "m m"]:
    """Return the homogeneous map of a grid's voxel indices to millimeters: of the patient, or of the slice's plane."""
    if len(grid.shape) == 3:
        return grid.affine
    first, second = grid.affine[:3, 0], grid.affine[:3, 1]
    along = first / np.linalg.norm(first)
    across = second - (second @ along) * along
    in_plane = np.eye(3)
    in_plane[:2, :2] = [[np.linalg.norm(first), second @ along], [0, np.linalg.norm(across)]]
    return in_plane


def moments_of(case: Case) -> dict[str, Moments]:
    """Return the moments of the target structures that a case's mask holds, by name. One layer is held at a time."""
    mask, to_mm, n = case.required_mask()[0], positions(case.grid), len(case.grid.shape)
    count, first, second = np.zeros(256), np.zeros((256, n)), np.zeros((256, n, n))
    is_target = np.zeros(256, bool)
    is_target[list(case.labels.target_codes)] = True
    for layer, plane in enumerate(mask):
        inside = is_target[plane]
        codes = plane[inside]
        index = np.array([np.full(len(codes), layer), *np.nonzero(inside)], np.float64)
        count += np.bincount(codes, minlength=256)
        for i in range(n):
            first[:, i] += np.bincount(codes, index[i], minlength=256)
            for j in range(n):
                second[:, i, j] += np.bincount(codes, index[i] * index[j], minlength=256)
    names = {label.code: label.name for label in case.labels.targets if count[label.code]}
    return {
        name: _in_mm(count[code], first[code] / count[code], second[code] / count[code], to_mm)
        for code, name in names.items()
    }


def fit(
    template: Mapping[str, Moments], reference: Mapping[str, Moments], align: Literal["centroid", "affine"]
) -> Fit | None:
    """Return the map of a template's structures onto a reference's, None where no structure is in both.

    An affine map that structures are too few for, or that would stretch, swell or turn the heart as no other heart is
    stretched, becomes the similarity next to it, and that, where it is not plausible either, a shift.
    """
    names = tuple(sorted(set(template) & set(reference)))
    if not names:
        return None
    pairs = [(template[name], reference[name]) for name in names]
    n, kind, reason = len(pairs[0][0].center_mm), "centroid", ""
    linear = np.eye(n)
    if align == "affine":
        linear, kind, reason = _plausible(_affine(pairs), len(names))
    weights = _weights(pairs)
    shift = _mean([r.center_mm for _, r in pairs], weights) - linear @ _mean([t.center_mm for t, _ in pairs], weights)
    matrix = np.eye(n + 1)
    matrix[:n, :n], matrix[:n, n] = linear, shift
    apart = [float(((linear @ t.center_mm + shift - r.center_mm) ** 2).sum()) for t, r in pairs]
    return Fit(matrix, kind, reason, names, float(np.sqrt(weights @ apart)))


def aligned(template: Case, reference: Case, align: Align) -> tuple[Case, dict[str, Any]]:
    """Return a template moved onto the grid and the structures of a reference mask, and how.

    The image is interpolated linearly; beyond its field of view its outermost value goes on, as air or as tissue. The
    mask is carried label by label and holds nothing there.

    Args:
        template: with image and mask, on any grid.
        reference: with a mask; may be another label table, structures are matched by name.
        align: ``none`` returns the template as it is.

    Returns:
        The template, and JSON-like facts: what was asked for, the ``kind`` of map and the ``reason`` why it is less,
        the homogeneous ``matrix`` (mm), the ``structures`` it was fitted to, the ``distance_mm`` between their centers
        that is left, and the ``filled`` share of voxels beyond the template's field of view. Nothing for ``none``.

    Raises:
        InputError: a slice and a volume, or only one of them has a known voxel size.
    """
    if align == "none":
        return template, {}
    _check_comparable(template, reference)
    found = fit(moments_of(template), moments_of(reference), align) or _centers_together(template.grid, reference.grid)
    source, target = _moved(template.grid, found.matrix), _in_plane(reference.grid)
    outside = resample(np.ones_like(template.required_mask()), source, target, fill=0, order=0) == 0
    facts = {**found.facts(align), "filled": round(float(outside.mean()), 6)}
    return placed(template, reference, found.matrix), facts


def placed(template: Case, reference: Case, matrix: Float[np.ndarray, "m m"]) -> Case:
    """Return a template moved onto the grid of a reference by a homogeneous map of template to reference (mm)."""
    source, target = _moved(template.grid, matrix), _in_plane(reference.grid)
    image = resample(template.required_image(), source, target, fill=None)
    return template.with_(
        image=rounded_image(image) if template.required_image().dtype == np.int16 else image,
        mask=resample_mask(template.required_mask(), source, target),
        confidence=None,
        affine=reference.affine,
        spacing_known=reference.spacing_known,
    )


def _in_mm(count: float, mean: np.ndarray, square: np.ndarray, to_mm: np.ndarray) -> Moments:
    n = len(mean)
    linear = to_mm[:n, :n]
    # A voxel is a filled cell: its own points have the variance 1/12 along each axis.
    covariance = linear @ (square - np.outer(mean, mean) + np.eye(n) / 12) @ linear.T
    return Moments(count * abs(float(np.linalg.det(linear))), linear @ mean + to_mm[:n, n], covariance)


# ---------------------------------------------------------------------------------------------------------------
# The fit: y = A x + b that brings ellipsoids together in the least squares, all their points counted by volume.


def _affine(pairs: list[tuple[Moments, Moments]]) -> Float[np.ndarray, "n n"]:
    """Return A by least squares: every point of a template's ellipsoid shall come to its point of the reference's.

    Which point that is for two ellipsoids is said by the map between them that moves their points least. It holds no
    turn, so the fit is repeated on what is left, until the centers have turned everything.
    """
    weights, n = _weights(pairs), len(pairs[0][0].center_mm)
    middle, wanted = (_mean([pair[i].center_mm for pair in pairs], weights) for i in (0, 1))
    centers = [(t.center_mm - middle, r.center_mm - wanted) for t, r in pairs]
    square = _mean([t.covariance_mm2 for t, _ in pairs], weights) + _mean([np.outer(x, x) for x, _ in centers], weights)
    between = _mean([np.outer(y, x) for x, y in centers], weights)
    linear = np.eye(n)
    for _ in range(ROUNDS):
        within = [
            _least_motion(linear @ t.covariance_mm2 @ linear.T, r.covariance_mm2) @ linear @ t.covariance_mm2
            for t, r in pairs
        ]
        found = np.linalg.solve(square, (_mean(within, weights) + between).T).T
        linear = (found + SHRINKAGE * np.eye(n)) / (1 + SHRINKAGE)
    return linear


def _least_motion(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the symmetric matrix that turns one covariance into another, the optimal transport of their normals."""
    root = _power(source, 0.5)
    inverse = np.linalg.inv(root)
    return inverse @ _power(root @ target @ root, 0.5) @ inverse


def _power(symmetric: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(symmetric)
    return (vectors * values.clip(1e-12) ** exponent) @ vectors.T


def _plausible(
    linear: np.ndarray, structures: int
) -> tuple[np.ndarray, Literal["affine", "similarity", "centroid"], str]:
    """Return the map if hearts differ so, else the similarity next to it, else none; what it is, and why."""
    n = len(linear)
    fault = _fault(linear)
    if structures < n:
        fault = f"an affine map needs {n} structures that both masks hold, there are {structures}"
    if not fault:
        return linear, "affine", ""
    determinant = float(np.linalg.det(linear))
    left, _, right = np.linalg.svd(linear)
    similar = left @ right * abs(determinant) ** (1 / n)
    if determinant > 0 and not _fault(similar):
        return similar, "similarity", fault
    return np.eye(n), "centroid", f"{fault}; a similarity would not do either"


def _fault(linear: np.ndarray) -> str:
    """Return what is not plausible about a map, in words; empty where nothing is."""
    left, stretches, right = np.linalg.svd(linear)
    stretch = float(max(stretches.max(), 1 / stretches.min()))
    volume = float(np.linalg.det(linear))
    # The distance of a rotation from the identity is 2 sqrt(2) sin(angle / 2), in a plane and in space.
    sine = np.linalg.norm(left @ right - np.eye(len(linear))) / np.sqrt(8)
    turn_deg = float(np.degrees(2 * np.arcsin(np.clip(sine, 0, 1))))
    if stretch > LARGEST_STRETCH:
        return f"an affine map would stretch the template {stretch:.2f} times"
    if not 1 / LARGEST_VOLUME_CHANGE <= volume <= LARGEST_VOLUME_CHANGE:
        return f"an affine map would change the template's volume {volume:.2f} times"
    if turn_deg > LARGEST_TURN_DEG:
        return f"an affine map would turn the template by {turn_deg:.0f} degrees"
    return ""


def _weights(pairs: list[tuple[Moments, Moments]]) -> np.ndarray:
    """Return how much each structure counts: as its smaller volume, since what a scan cuts off is in one of them."""
    sizes = np.array([min(t.size, r.size) for t, r in pairs])
    return sizes / sizes.sum()


def _mean(values: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    return np.tensordot(weights, np.stack(values), 1)


# ---------------------------------------------------------------------------------------------------------------
# Grids.


def _in_plane(grid: Grid) -> Grid:
    """Return a grid whose affine gives the positions that the fit is made in."""
    return _moved(grid, np.eye(len(grid.shape) + 1))


def _moved(grid: Grid, matrix: np.ndarray) -> Grid:
    """Return where a map puts a grid."""
    n, to_mm, affine = len(grid.shape), matrix @ positions(grid), np.eye(4)
    affine[:n, :n], affine[:n, 3] = to_mm[:n, :n], to_mm[:n, n]
    return Grid(grid.shape, affine)


def _centers_together(template: Grid, reference: Grid) -> Fit:
    """Return the map of one grid's center onto another's, for masks that share no structure."""
    n = len(template.shape)
    theirs, ours = ((positions(g) @ [*((np.array(g.shape) - 1) / 2), 1])[:n] for g in (template, reference))
    matrix = np.eye(n + 1)
    matrix[:n, n] = ours - theirs
    return Fit(matrix, "grid", "the masks have no target structure of one name in common", (), None)


def _check_comparable(template: Case, reference: Case) -> None:
    if len(template.grid.shape) != len(reference.grid.shape):
        raise InputError(
            f"case {reference.case_id} and its template {template.case_id} are a slice and a volume; give templates "
            "of as many axes as the masks have."
        )
    if template.spacing_known != reference.spacing_known:
        unknown = template if reference.spacing_known else reference
        raise InputError(
            f"case {unknown.case_id} has no known voxel size and templates are aligned in mm; run cardiosynth prepare "
            "with --spacing-mm, or set templates.align=none."
        )
