"""Whether structures are there, in one piece, without holes, and whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from cardiosynth.core.case import Case
from cardiosynth.core.labels import Label
from cardiosynth.data.check.finding import Finding, of_case
from cardiosynth.data.check.intensity import Brightness, brightness, histogram_range
from cardiosynth.data.check.tissues import CHAMBERS, SOLID, structure_of
from cardiosynth.metrics.topology import cavities, components, tunnels

THICK = 3.0
"""Voxels this many times longer than wide say nothing on what runs from slice to slice."""
WHERE = (("left", "right"), ("back", "front"), ("feet", "head"))
"""The two faces of an RAS+ grid along each axis."""


@dataclass(frozen=True)
class Piece:
    """A connected part: voxels, the voxel nearest to its middle, and whether the grid's border cuts it."""

    voxels: int
    place: tuple[int, ...]
    cut: bool


@dataclass(frozen=True)
class Structure:
    """What was measured of one structure of a case.

    Attributes:
        label: which.
        voxels: how many.
        volume_ml: None where the voxel size is not known, or of a slice.
        brightness: the image within it, None without an image.
        pieces: largest first; None where any number is right.
        cavities: voxels of each hole that it closes in and no structure fills, largest first.
        tunnels: how many run through it.
        faces: sides of the field of view that it touches.
    """

    label: Label
    voxels: int
    volume_ml: float | None
    brightness: Brightness | None
    pieces: tuple[Piece, ...] | None
    cavities: tuple[int, ...]
    tunnels: int
    faces: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        light = self.brightness
        return {
            "name": self.label.name,
            "voxels": self.voxels,
            "volume_ml": self.volume_ml,
            "median": None if light is None else round(light.median, 2),
            "percentiles_5_95": None if light is None else [round(light.low, 2), round(light.high, 2)],
            "pieces": None if self.pieces is None else [piece.voxels for piece in self.pieces],
            "cavities": list(self.cavities),
            "tunnels": self.tunnels,
            "touches": list(self.faces),
        }


def measure_structures(case: Case) -> tuple[Structure, ...]:
    """Return what can be measured of every structure that the mask holds."""
    mask = case.required_mask()[0]
    boxes = ndimage.find_objects(mask)
    span = None if case.image is None else histogram_range(case)
    present = [label for label in case.labels if label.code <= len(boxes) and boxes[label.code - 1] is not None]
    return tuple(_measured(case, label, boxes[label.code - 1], span) for label in present)


def _measured(case: Case, label: Label, box: tuple[slice, ...], span: tuple[float, float] | None) -> Structure:
    codes = case.required_mask()[0][box]
    inside, name = codes == label.code, structure_of(label.name)
    voxels, spacing = int(inside.sum()), case.spacing_mm
    solid = name in SOLID
    slices = _slices(case, inside, codes) if solid or name == "left_ventricular_myocardium" else ()
    flat = len(slices) > 1 or inside.ndim == 2
    return Structure(
        label=label,
        voxels=voxels,
        volume_ml=round(voxels * float(np.prod(spacing)) / 1000, 2) if spacing and len(spacing) == 3 else None,
        brightness=brightness(case.image[0][box][inside], span) if case.image is not None and span else None,
        pieces=_pieces(inside, box, case.grid.shape) if label.components is not None else None,
        cavities=tuple(sorted((n for one, other in slices for n in _empty_cavities(one, other)), reverse=True)),
        tunnels=tunnels(inside) if solid and not flat else 0,
        faces=_faces(box, case.grid.shape),
    )


def _slices(
    case: Case, inside: Bool[np.ndarray, "*box"], codes: np.ndarray
) -> list[tuple[Bool[np.ndarray, "*part"], np.ndarray]]:
    """Return what is looked at for holes: the volume, or each slice of a stack of thick ones."""
    spacing = case.grid.spacing_mm
    if inside.ndim == 2 or max(spacing) <= THICK * min(spacing):
        return [(inside, codes)]
    axis = int(np.argmax(spacing))
    return list(zip(np.moveaxis(inside, axis, 0), np.moveaxis(codes, axis, 0), strict=True))


def _empty_cavities(inside: Bool[np.ndarray, "*part"], codes: np.ndarray) -> list[int]:
    """Return the voxels without a code in each cavity: what a wall closes in may well be another structure."""
    numbered = cavities(inside)
    sizes = np.bincount(numbered[codes == 0].ravel())[1:]
    return [int(n) for n in sizes if n > 0]


def _pieces(inside: Bool[np.ndarray, "*box"], box: Sequence[slice], shape: Sequence[int]) -> tuple[Piece, ...]:
    found, pieces = components(inside), []
    for number, part in enumerate(ndimage.find_objects(found.labels), start=1):
        at = tuple(slice(b.start + p.start, b.start + p.stop) for b, p in zip(box, part, strict=True))
        places = np.argwhere(found.labels[part] == number)
        middle = places[np.abs(places - places.mean(axis=0)).sum(axis=1).argmin()]
        place = tuple(int(a.start + m) for a, m in zip(at, middle, strict=True))
        pieces.append(Piece(int(found.sizes[number - 1]), place, bool(_faces(at, shape))))
    return tuple(pieces)


def _faces(box: Sequence[slice], shape: Sequence[int]) -> tuple[str, ...]:
    touched = []
    for where, at, size in zip(WHERE[: len(shape)], box, shape, strict=True):
        touched += [where[0]] * (at.start == 0) + [where[1]] * (at.stop == size)
    return tuple(touched)


# ---------------------------------------------------------------------------------------------------------------
# What is wrong with what was measured.


def structure_findings(case: Case, structures: Sequence[Structure]) -> list[Finding]:
    """Return what is wrong with the structures of a case."""
    findings = _missing(case, structures)
    for each in structures:
        findings += _fragments(case, each) + _holes(case, each)
    return findings + _cut(case, structures)


def _missing(case: Case, structures: Sequence[Structure]) -> list[Finding]:
    present = {each.label.code for each in structures}
    missing = [label.name for label in case.labels.targets if label.code not in present]
    if not missing:
        return []
    text = f"its mask lacks {', '.join(missing)}; check the labels if they are in view."
    return [of_case(case, "warning", "missing_structure", text, structures=missing)]


def _fragments(case: Case, each: Structure) -> list[Finding]:
    pieces, wanted = each.pieces, each.label.components
    if pieces is None or wanted is None or len(pieces) <= wanted:
        return []
    extra = list(pieces[wanted:])
    sizes = ", ".join(f"{piece.voxels}" for piece in extra[:4]) + (", ..." if len(extra) > 4 else "")
    facts = {"structure": each.label.name, "pieces": len(pieces), "expected": wanted,
             "extra": [{"voxels": p.voxels, "voxel": list(p.place)} for p in extra[:20]]}  # fmt: skip
    if all(piece.cut for piece in extra):
        text = f"{each.label.name} is in {len(pieces)} pieces, cut by the border of the field of view."
        return [of_case(case, "info", "fragments", text, **facts)]
    text = (
        f"{each.label.name} is in {len(pieces)} pieces, {wanted} would be right; look at its mask around voxel "
        f"{_product(extra[0].place)} (extra voxels: {sizes} of {each.voxels})."
    )
    return [of_case(case, "warning", "fragments", text, **facts)]


def _holes(case: Case, each: Structure) -> list[Finding]:
    findings, name = [], each.label.name
    if each.cavities:
        count, voxels = len(each.cavities), sum(each.cavities)
        what = "a hole" if count == 1 else f"{count} holes"
        text = f"{name} closes in {what} without a label, {voxels} voxels in all; fill it, or name what it is."
        findings.append(of_case(case, "warning", "cavity", text, structure=name, voxels=list(each.cavities[:20])))
    if each.tunnels:
        what = "a tunnel runs" if each.tunnels == 1 else f"{each.tunnels} tunnels run"
        # Chambers have none; vessels that touch themselves and papillary muscles that were left out do.
        hint = "papillary muscles left out, or a defect" if structure_of(name) in CHAMBERS else "walls that touch"
        text = f"{what} through {name} ({hint}); look at its mask."
        findings.append(of_case(case, "warning", "tunnel", text, structure=name, count=each.tunnels))
    return findings


def _cut(case: Case, structures: Sequence[Structure]) -> list[Finding]:
    cut = {each.label.name: list(each.faces) for each in structures if each.faces and each.label.role == "target"}
    if not cut:
        return []
    words = ", ".join(f"{name} ({', '.join(faces)})" for name, faces in cut.items())
    text = f"the field of view ends within {words}; a larger one shows them whole."
    return [of_case(case, "info", "field_of_view", text, faces=cut)]


def _product(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))
