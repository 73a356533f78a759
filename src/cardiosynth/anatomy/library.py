"""Templates to choose from: who they are without reading them, and a coarse look at each one's heart."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from cardiosynth.anatomy.alignment import Moments, fit, moments_of, positions
from cardiosynth.core.case import Case
from cardiosynth.data.dataset import Dataset

SAMPLES = 48
"""Points along the longest side of a heart at which masks are compared: on average Dice is right to about 0.02."""


class Entry(NamedTuple):
    """A case that can be a template.

    Attributes:
        case_id: its name.
        provenance: what its row tells.
        place: its index in the library.
    """

    case_id: str
    provenance: Mapping[str, Any]
    place: int


class Library(Sequence[Case]):
    """The cases with image and mask of a dataset or a list, by name, so that their order does not matter.

    Cases are read when asked for. What is kept of each is its outline, made when it is first needed.

    Args:
        cases: a ``Dataset`` is read case by case.
    """

    def __init__(self, cases: Sequence[Case]):
        self.cases = cases
        self.entries = _complete(cases)
        self._parents = {entry.case_id: tuple(entry.provenance.get("parents", ())) for entry in self.entries}
        self._outlines: dict[int, Outline] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index):
        return self.cases[self.entries[index].place]

    def outline(self, entry: Entry) -> "Outline":
        """Return the outline of a case."""
        if entry.place not in self._outlines:
            self._outlines[entry.place] = outline_of(self.cases[entry.place])
        return self._outlines[entry.place]

    def lineage(self, case_id: str, parents: Iterable[str]) -> set[str]:
        """Return the name of a case, its parents, and their parents as far as the library tells."""
        found, waiting = {case_id}, list(parents)
        while waiting:
            parent = waiting.pop()
            if parent not in found:
                found.add(parent)
                waiting += self._parents.get(parent, ())
        return found


@dataclass(frozen=True, eq=False)
class Outline:
    """What is kept of a heart to compare it: at most ``SAMPLES`` points per axis, some 50 kB.

    Attributes:
        moments: of its target structures, by name.
        names: of the codes of ``mask``.
        mask: every k-th voxel of the box that holds the target structures.
        positions: homogeneous, indices of ``mask`` to millimeters.
    """

    moments: dict[str, Moments]
    names: dict[int, str]
    mask: UInt8[np.ndarray, "*box"]
    positions: Float[np.ndarray, "m m"]

    @property
    def cell(self) -> float:
        """Volume (or area) that a point stands for."""
        n = self.mask.ndim
        return abs(float(np.linalg.det(self.positions[:n, :n])))


def outline_of(case: Case) -> Outline:
    """Return the outline of a case's target structures."""
    mask, n, spacing_mm = case.labels.only_targets(case.required_mask())[0], len(case.grid.shape), case.grid.spacing_mm
    box = _box(mask)
    step_mm = max((part.stop - part.start) * mm for part, mm in zip(box, spacing_mm, strict=True)) / SAMPLES
    every = [max(1, int(np.ceil(step_mm / mm))) for mm in spacing_mm]
    # What the steps leave of the box lies on both of its sides, so that none is preferred.
    starts = [part.start + (part.stop - 1 - part.start) % k // 2 for part, k in zip(box, every, strict=True)]
    to_index = np.diag([*every, 1.0])
    to_index[:n, n] = starts
    kept = mask[tuple(slice(start, part.stop, k) for start, part, k in zip(starts, box, every, strict=True))]
    names = {label.code: label.name for label in case.labels.targets}
    return Outline(moments_of(case), names, kept.copy(), positions(case.grid) @ to_index)


def _box(mask: UInt8[np.ndarray, "*grid"]) -> tuple[slice, ...]:
    """Return the smallest box that holds what is not 0."""
    spans = [
        np.flatnonzero(mask.any(tuple(other for other in range(mask.ndim) if other != axis)))
        for axis in range(mask.ndim)
    ]
    return tuple(slice(int(span[0]), int(span[-1]) + 1) if len(span) else slice(0, 1) for span in spans)


def overlap(template: Outline, reference: Outline, align: Literal["centroid", "affine"]) -> float:
    """Return the mean Dice over the reference's target structures once the template is aligned; 0 where it cannot be.

    Structures are matched by name; one that the template lacks counts as 0.
    """
    found = fit(template.moments, reference.moments, align)
    if found is None:
        return 0.0
    n = reference.mask.ndim
    carried = _sampled(template, np.linalg.inv(found.matrix) @ reference.positions, reference.mask.shape)
    swelling = abs(float(np.linalg.det(found.matrix[:n, :n]))) * template.cell / reference.cell
    codes = {name: code for code, name in template.names.items()}
    values = []
    for code, name in reference.names.items():
        inside = reference.mask == code
        if not inside.any():  # not in the mask, or too thin for any of the points
            continue
        other = codes.get(name, -1)
        total = np.count_nonzero(inside) + swelling * np.count_nonzero(template.mask == other)
        values.append(2 * np.count_nonzero(inside & (carried == other)) / total)
    return float(np.mean(values)) if values else 0.0


def _sampled(outline: Outline, to_mm: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the nearest code of an outline at every index that ``to_mm`` puts into its space."""
    n = len(shape)
    index = np.linalg.inv(outline.positions) @ to_mm
    axes = [np.arange(size, dtype=np.float64) for size in shape]
    inside, places = np.ones(shape, bool), []
    for axis in range(n):
        at = np.full(shape, index[axis, n])
        for along, steps in enumerate(axes):
            at += index[axis, along] * steps.reshape([-1 if i == along else 1 for i in range(n)])
        nearest = np.floor(at + 0.5 + 1e-9).astype(np.intp)
        inside &= (nearest >= 0) & (nearest < outline.mask.shape[axis])
        places.append(nearest.clip(0, outline.mask.shape[axis] - 1))
    return np.where(inside, outline.mask[tuple(places)], 0)


def _complete(cases: Sequence[Case]) -> list[Entry]:
    """Return the cases that have image and mask, by name."""
    if isinstance(cases, Dataset):
        entries = [
            Entry(name, cases.row(name).get("provenance", {}), place)
            for place, name in enumerate(cases.case_ids)
            if cases.has("image", name) and cases.has("mask", name)
        ]
    else:
        entries = [
            Entry(case.case_id, case.provenance, place)
            for place, case in enumerate(cases)
            if case.image is not None and case.mask is not None
        ]
    return sorted(entries, key=lambda entry: entry.case_id)
