"""A deformed mask against its source: pieces, holes, volumes, vessel paths and calibers, and what touches what.

A deformation changes no topology and changes volumes and lengths in a known way; cutting the result into voxels may
change both. What is expected of every structure is computed from the source alone, by moving its points, and compared
with what the new mask holds. Pieces are connected through faces, edges and corners, as everywhere (`metrics.topology`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pydantic
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from cardiosynth.anatomy.deform import Deformation
from cardiosynth.core.config import Settings
from cardiosynth.core.labels import LabelTable
from cardiosynth.metrics.topology import Components, centerline_graph, components, holes

SAMPLED = 2000
"""Voxels that stand for a piece where it is asked how much of it is in view and where it came from."""


class Tolerances(Settings):
    """How far a new mask's anatomy may be from that of its source.

    Carrying 50 phantoms at 1.6 mm changed volumes of chambers by 1 %, of coronary arteries by 4 %, their longest path
    by 6 % and their caliber by 4 % at most (docs/log.md); stacks of 10 mm slices change volumes by 7 %. The tolerances
    are about twice that, so that they stop what went wrong and not what voxels do.

    Attributes:
        volume: largest relative error of a structure's volume, against the source's times the local Jacobian.
        thin_volume: the same for thin structures, where half a voxel more or less is a third of the caliber.
        path: largest relative error of a thin structure's longest path.
        caliber: largest relative error of a thin structure's mean diameter.
        contact: solid structures that share more than this part of the smaller one's surface must go on to touch, and
            those that did not touch must not share more.
        smallest_piece: pieces smaller than this part of a structure are not counted; thin ones count every piece.
        smallest_hole: holes smaller than this part of a structure are not counted.
        smallest_part_in_view: how much of a structure must stay inside the field of view.
    """

    volume: float = pydantic.Field(default=0.15, gt=0)
    thin_volume: float = pydantic.Field(default=0.15, gt=0)
    path: float = pydantic.Field(default=0.1, gt=0)
    caliber: float = pydantic.Field(default=0.1, gt=0)
    contact: float = pydantic.Field(default=0.02, gt=0, lt=1)
    smallest_piece: float = pydantic.Field(default=0.02, ge=0, lt=1)
    smallest_hole: float = pydantic.Field(default=0.002, ge=0, lt=1)
    smallest_part_in_view: float = pydantic.Field(default=0.5, ge=0, le=1)


@dataclass(frozen=True)
class Vessel:
    """A thin structure's course.

    Attributes:
        longest_path_mm: length of the longest way through its centerline.
        longest_path_ratio: over the length of the source's, its points moved; of the parts that are in view in both.
        caliber_mm: diameter of a tube of its volume and centerline length.
        caliber_ratio: over the source's, changed as volume and length change; like the other two, None where there is
            no length to speak of.
    """

    longest_path_mm: float
    longest_path_ratio: float | None
    caliber_mm: float | None
    caliber_ratio: float | None


@dataclass(frozen=True)
class Structure:
    """One structure, before and after.

    Attributes:
        pieces_before: in the source.
        pieces: in the new mask.
        pieces_lost: of the source, in view and nowhere or in one piece with another.
        pieces_broken_off: of the new mask, parts of a piece that the field of view does not cut there.
        holes_before: cavities in the source.
        holes: in the new mask.
        volume_ratio: volume over the source's times the local Jacobian.
        part_in_view: share of the source's volume that stays inside the field of view.
        voxels: in the new mask.
        vessel: the course of a thin structure.
    """

    pieces_before: int
    pieces: int
    pieces_lost: int
    pieces_broken_off: int
    holes_before: int
    holes: int
    volume_ratio: float
    part_in_view: float
    voxels: int
    vessel: Vessel | None


@dataclass(frozen=True, eq=False)
class Carried:
    """A mask after deformation.

    Attributes:
        mask: codes per voxel.
        volumes: voxels that each structure should have in view: its source's volume times the local Jacobian.
        thin: codes of the structures that are carried as vessels are.
    """

    mask: UInt8[np.ndarray, "*grid"]
    volumes: Mapping[int, float]
    thin: tuple[int, ...]


@dataclass(frozen=True)
class Comparison:
    """A new mask against its source.

    Attributes:
        structures: by name.
        contacts_lost: pairs of names that touched and do not any more.
        contacts_new: pairs that did not touch and do.
    """

    structures: dict[str, Structure]
    contacts_lost: tuple[tuple[str, str], ...]
    contacts_new: tuple[tuple[str, str], ...]

    def facts(self) -> dict[str, Any]:
        """Return everything as JSON-like values, for the manifest."""
        return {**_rounded(asdict(self)["structures"]), "contacts_lost": [list(x) for x in self.contacts_lost],
                "contacts_new": [list(x) for x in self.contacts_new]}  # fmt: skip

    def left_view(self, tolerances: Tolerances) -> str:
        """Return which structure left the field of view, in words; empty where none did."""
        for name, found in self.structures.items():
            if found.voxels == 0 or found.part_in_view < tolerances.smallest_part_in_view:
                return f"{_title(name)} left the field of view"
        return ""

    def fault(self, tolerances: Tolerances) -> str:
        """Return what is out of tolerance, in words; empty where nothing is."""
        for name, found in self.structures.items():
            fault = _fault(found, tolerances)
            if fault:
                return f"{_title(name)} {fault}"
        for pairs, what in ((self.contacts_lost, "no longer touches"), (self.contacts_new, "now touches")):
            for first, second in pairs:
                return f"{_title(first)} {what} {_title(second)}"
        return ""


def compare(
    reference: UInt8[np.ndarray, "*grid"],
    carried: Carried,
    deformation: Deformation,
    labels: LabelTable,
    tolerances: Tolerances,
) -> Comparison:
    """Return how ``carried`` differs from what ``deformation`` makes of ``reference``."""
    names = {label.code: label.name for label in labels}
    structures = {
        names[code]: _compare_structure(reference == code, carried, code, deformation, tolerances)
        for code in sorted(carried.volumes)
    }
    solid = [code for code in carried.volumes if code not in carried.thin]
    before = contacts(reference, solid, deformation.spacing_mm)
    after = contacts(carried.mask, solid, deformation.spacing_mm)
    cut = _codes_at_border(reference) | _codes_at_border(carried.mask)
    lost = [p for p, x in before.items() if x > tolerances.contact and not after.get(p) and not cut & set(p)]
    new = [p for p, x in after.items() if x > tolerances.contact and not before.get(p)]
    return Comparison(structures, *(tuple((names[a], names[b]) for a, b in sorted(pairs)) for pairs in (lost, new)))


def contacts(
    mask: UInt8[np.ndarray, "*grid"], codes: Iterable[int], spacing_mm: tuple[float, ...]
) -> dict[tuple[int, int], float]:
    """Return the shared surface of every pair of structures that touch, as a part of the smaller one's surface."""
    area = np.zeros((256, 256))
    for axis in range(mask.ndim):
        face = float(np.prod([step for i, step in enumerate(spacing_mm) if i != axis]))
        first, second = (np.take(mask, range(*ends), axis) for ends in ((mask.shape[axis] - 1,), (1, mask.shape[axis])))
        differ = first != second
        pairs = np.bincount(first[differ].astype(np.intp) * 256 + second[differ], minlength=65536).reshape(256, 256)
        area += face * (pairs + pairs.T)
    surface, chosen = area.sum(1), sorted(codes)
    return {
        (a, b): float(area[a, b] / min(surface[a], surface[b]))
        for i, a in enumerate(chosen) for b in chosen[i + 1 :] if area[a, b] > 0
    }  # fmt: skip


class _Part:
    """A structure cut out of its mask, and its pieces."""

    def __init__(self, inside: Bool[np.ndarray, "*grid"], smallest_piece: float):
        box = next(iter(ndimage.find_objects(inside.astype(np.uint8))), (slice(0, 1),) * inside.ndim)
        self.shape, self.start, self.inside = inside.shape, np.array([[s.start] for s in box]), inside[box]
        self.voxels = int(self.inside.sum())
        self.pieces: Components = components(self.inside)
        self.counted = int((self.pieces.sizes >= smallest_piece * self.voxels).sum())

    def places(self, piece: int = 0, most: int = 0) -> Float[np.ndarray, "n m"]:
        """Return the voxel indices of a piece (0: of everything), every so many so that there are ``most`` about."""
        found = np.nonzero(self.pieces.labels == piece if piece else self.inside)
        every = max(1, len(found[0]) // most) if most else 1
        return np.stack([x[::every] for x in found]).astype(np.float64) + self.start

    def piece_at(self, index: Float[np.ndarray, "n m"]) -> np.ndarray:
        """Return the pieces at or next to places; 0 for none."""
        near = np.rint(index).astype(int) - self.start + 1
        near = np.clip(near, 0, np.array(self.inside.shape)[:, None] + 1)
        padded = ndimage.maximum_filter(np.pad(self.pieces.labels, 1), 3)
        return padded[tuple(near)]

    def at_border(self) -> set[int]:
        """Return the pieces that reach the border of the field of view."""
        found: set[int] = set()
        for axis, (start, length, n) in enumerate(zip(self.start[:, 0], self.inside.shape, self.shape, strict=True)):
            for side, reaches in ((0, start == 0), (-1, start + length == n)):
                if reaches:
                    found |= set(np.unique(self.pieces.labels.take(side, axis)).tolist())
        return found - {0}


def _compare_structure(
    inside: np.ndarray, carried: Carried, code: int, deformation: Deformation, tolerances: Tolerances
) -> Structure:
    is_thin, volume = code in carried.thin, carried.volumes[code]
    smallest = 0.0 if is_thin else tolerances.smallest_piece
    before, after = _Part(inside, smallest), _Part(carried.mask == code, smallest)
    lost, broken_off = _pieces_kept(before, after, deformation)
    return Structure(
        pieces_before=before.counted,
        pieces=after.counted,
        pieces_lost=lost,
        pieces_broken_off=broken_off,
        holes_before=_holes(before, tolerances),
        holes=_holes(after, tolerances),
        volume_ratio=after.voxels / volume if volume else 0.0,
        part_in_view=float(_in_view(before.places(most=SAMPLED), deformation).mean()),
        voxels=after.voxels,
        vessel=_vessel(before, after, volume, deformation) if is_thin and after.voxels else None,
    )


def _pieces_kept(before: _Part, after: _Part, deformation: Deformation) -> tuple[int, int]:
    """Return how many pieces were lost and how many broke off."""
    owned: dict[int, list[int]] = {piece: [] for piece in range(before.pieces.count + 1)}
    for piece in range(1, after.counted + 1):
        votes = before.piece_at(deformation.to_source(after.places(piece, SAMPLED)))
        owned[int(np.bincount(votes).argmax()) if after.counted > 1 or before.pieces.count > 1 else 1].append(piece)
    broken_off = len(owned.pop(0))
    lost = [piece for piece in range(1, before.counted + 1) if not owned[piece]]
    lost = [piece for piece in lost if _in_view(before.places(piece, SAMPLED), deformation).mean() > 0.5]
    at_border = after.at_border()
    for piece, parts in owned.items():
        if len(parts) > 1:
            inner = [part for part in parts if part not in at_border]
            # Parts that the border cuts apart all reach it, and are no more than the source's part in view has.
            too_many = len(parts) - _parts_in_view(before, piece, deformation)
            broken_off += max(len(inner) - (len(inner) == len(parts)), too_many)
    return len(lost), broken_off


def _parts_in_view(before: _Part, piece: int, deformation: Deformation) -> int:
    """Return into how many parts the field of view cuts a piece of the source; half a voxel of doubt goes its way."""
    places = before.places(piece)
    counts = [1]
    for margin in (0.0, -1.0):
        kept = places[:, _in_view(places, deformation, margin)].astype(int) - before.start
        part = np.zeros(before.inside.shape, bool)
        part[tuple(kept)] = True
        counts.append(components(part).count)
    return max(counts)


def _in_view(index: np.ndarray, deformation: Deformation, margin: float = 0.0) -> Bool[np.ndarray, "m"]:
    """Return which places of the source come to lie in the target's grid, ``margin`` voxels beyond it too."""
    return _inside(deformation.to_target(index), deformation, margin)


def _inside(index: np.ndarray, deformation: Deformation, margin: float = 0.0) -> Bool[np.ndarray, "m"]:
    """Return which places, in voxel indices, lie in the grid."""
    size = np.array(deformation.shape)[:, None]
    return np.all((index > -0.5 - margin) & (index < size - 0.5 + margin), axis=0)


def _holes(part: _Part, tolerances: Tolerances) -> int:
    return holes(part.inside, max(1, int(np.ceil(tolerances.smallest_hole * part.voxels))))


def _vessel(before: _Part, after: _Part, volume: float, deformation: Deformation) -> Vessel:
    spacing = np.array(deformation.spacing_mm)
    source, made = (centerline_graph(part.inside, deformation.spacing_mm) for part in (before, after))
    # Beyond the border of the source, a structure goes on as nobody knows: only what both masks show is compared.
    places = source.points_mm.T / spacing[:, None] + before.start
    moved = source.moved(deformation.to_target(places).T * spacing)
    wanted = moved.within(_inside(deformation.to_target(places), deformation))
    origins = deformation.to_source(made.points_mm.T / spacing[:, None] + after.start)
    found = made.within(_inside(origins, deformation))
    if not wanted.longest_path_mm or not found.longest_path_mm:
        return Vessel(made.longest_path_mm, None, None, None)
    area = after.voxels * float(np.prod(spacing)) / made.length_mm
    area_ratio = after.voxels / volume * wanted.length_mm / found.length_mm
    is_tube = len(spacing) == 3
    return Vessel(
        longest_path_mm=made.longest_path_mm,
        longest_path_ratio=found.longest_path_mm / wanted.longest_path_mm,
        caliber_mm=float(np.sqrt(4 / np.pi * area)) if is_tube else area,
        caliber_ratio=float(np.sqrt(area_ratio)) if is_tube else area_ratio,
    )


def _fault(found: Structure, tolerances: Tolerances) -> str:
    volume = tolerances.volume if found.vessel is None else tolerances.thin_volume
    wanted = found.voxels / found.volume_ratio if found.volume_ratio else np.inf
    vessel = found.vessel
    if found.pieces_lost or found.pieces_broken_off:
        return f"has {found.pieces} pieces instead of {found.pieces_before}"
    if abs(found.voxels - wanted) > max(volume * wanted, 2):
        return f"has {found.voxels} voxels instead of {wanted:.0f}"
    if found.holes > found.holes_before:
        return f"has {found.holes} holes instead of {found.holes_before}"
    if vessel and _is_off(vessel.longest_path_ratio, tolerances.path):
        return f"has a longest path {vessel.longest_path_ratio:.2f} times what it should be"
    if vessel and _is_off(vessel.caliber_ratio, tolerances.caliber):
        return f"has a caliber {vessel.caliber_ratio:.2f} times what it should be"
    return ""


def _is_off(ratio: float | None, tolerance: float) -> bool:
    return ratio is not None and not 1 / (1 + tolerance) <= ratio <= 1 + tolerance


def _title(name: str) -> str:
    return name.replace("_", " ")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(x) for key, x in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def _codes_at_border(mask: np.ndarray) -> set[int]:
    faces = [mask.take(side, axis) for axis in range(mask.ndim) for side in (0, -1)]
    return {int(code) for face in faces for code in np.unique(face)}
