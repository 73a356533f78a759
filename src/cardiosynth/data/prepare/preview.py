"""What `prepare` would do, found by looking at some of the cases; nothing is written."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.progress import track
from cardiosynth.data.prepare.mapping import BACKGROUND, LabelMapping
from cardiosynth.data.prepare.settings import PrepareSettings
from cardiosynth.data.prepare.slices import slice_axis
from cardiosynth.data.prepare.volumes import check_numbers, target_grid
from cardiosynth.data.splits import Share, patient_of, split
from cardiosynth.data.stream import CaseStream

SAMPLE = 20
"""So many cases are looked at, unless more are asked for."""


def preview(
    source: CaseStream, settings: PrepareSettings, shares: Mapping[str, Share] | None = None, sample: int = SAMPLE
) -> dict[str, Any]:
    """Return what would become of the cases.

    Args:
        source: cases as a source reads them.
        settings: grid and labels wanted.
        shares: parts of the split wanted.
        sample: how many cases to look at, evenly spread over the source; 0 for all.

    Returns:
        ``cases`` (how many there are), ``looked_at``, ``structures`` (source name, target name or None, and in how
        many of the cases looked at and how many voxels), ``grids`` (each case's, and the one it would get),
        ``parts`` (patients and cases of each), ``problems`` (what would be refused, one sentence each).

    Raises:
        InputError: the source holds no case, or the shares do not suit the patients.
    """
    names = source.case_ids
    if not names:
        raise InputError("the source holds no case; check the folder.")
    chosen = spread_out(names, sample)
    count = len(chosen)
    patients = {name: patient_of(name) for name in names}
    seen, grids, problems = StructureCounts(settings.mapping), [], []
    for name in track(chosen, "look at", count):
        try:
            case = source.reader(name)()
            patients[name] = str(case.provenance.get("patient", patients[name]))
            seen.add(case)
            grids.append(_grids(case, settings))
        except InputError as error:
            problems.append(str(error))
    parts = {} if shares is None else _sizes(patients, split(patients.values(), shares))
    return {
        "cases": len(names),
        "looked_at": count,
        "structures": seen.rows(),
        "grids": grids,
        "parts": parts,
        "problems": list(dict.fromkeys([*seen.problems, *problems])),
    }


def spread_out(names: Sequence[str], sample: int = SAMPLE) -> list[str]:
    """Return ``sample`` of the names, evenly spread; all of them for 0."""
    count = len(names) if sample < 1 else min(sample, len(names))
    return [names[i * len(names) // count] for i in range(count)]


class StructureCounts:
    """Counts what the masks hold, under the names of the source.

    Args:
        mapping: which structure becomes which.

    Attributes:
        problems: what the mapping refuses, one sentence each.
    """

    def __init__(self, mapping: LabelMapping):
        self._mapping = mapping
        self._target: dict[str, str | None] = {}
        self._cases: Counter[str] = Counter()
        self._voxels: Counter[str] = Counter()
        self.problems: list[str] = []

    def add(self, case: Case) -> None:
        """Count one case."""
        self._target |= self._becomes(case.labels)
        counts = np.zeros(256, np.int64) if case.mask is None else np.bincount(case.mask.ravel(), minlength=256)
        for label in case.labels:
            self._cases[label.name] += int(counts[label.code] > 0)
            self._voxels[label.name] += int(counts[label.code])

    def _becomes(self, labels: LabelTable) -> dict[str, str | None]:
        try:
            return {name: None if new is None else new.name for name, new in self._mapping.resolve(labels).items()}
        except InputError as error:
            self.problems.append(str(error))
            return {label.name: "?" for label in labels}

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per structure of the source."""
        return [
            {"source": name, "target": target, "cases": self._cases[name], "voxels": self._voxels[name]}
            for name, target in self._target.items()
        ]


def _grids(case: Case, settings: PrepareSettings) -> dict[str, Any]:
    row: dict[str, Any] = {
        "case_id": case.case_id,
        "shape": list(case.grid.shape),
        "spacing_mm": None if case.spacing_mm is None else [round(v, 3) for v in case.spacing_mm],
    }
    if settings.slices is None:
        check_numbers(case, settings)
        target = target_grid(case, settings)
        return {**row, "becomes": list(target.shape), "becomes_mm": [round(v, 3) for v in target.spacing_mm]}
    flat = len(case.grid.shape) == 2
    slices = 1 if flat else case.grid.shape[slice_axis(case, settings.slices)]
    return {**row, "becomes": [settings.slices.size] * 2, "slices": slices}


def _sizes(patients: Mapping[str, str], part: Mapping[str, str]) -> dict[str, dict[str, int]]:
    persons, cases = Counter(part.values()), Counter(part[patient] for patient in patients.values())
    return {name: {"patients": persons[name], "cases": cases[name]} for name in dict.fromkeys(part.values())}


def in_words(found: Mapping[str, Any]) -> str:
    """Return a preview as lines to read."""
    looked = "all of them" if found["looked_at"] == found["cases"] else f"{found['looked_at']} of them"
    lines = [f"{found['cases']} cases; counted in {looked}:"]
    lines += structure_lines(found["structures"])
    for row in found["grids"]:
        lines.append(f"  {row['case_id']}: {_size(row['shape'], row['spacing_mm'])} -> {_wanted(row)}")
    for name, part in found["parts"].items():
        lines.append(f"  {name}: {part['patients']} patients, {part['cases']} cases")
    return "\n".join([*lines, *(f"  {problem}" for problem in found["problems"])])


def structure_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return in words what becomes of each structure."""
    return [
        f"  {row['source']} -> {row['target'] or BACKGROUND}: {row['cases']} cases, {row['voxels']} voxels"
        for row in rows
    ]


def _wanted(row: Mapping[str, Any]) -> str:
    if "slices" in row:
        return f"{_size(row['becomes'], None)} pixels, at most {row['slices']} slices"
    return _size(row["becomes"], None if row["spacing_mm"] is None else row["becomes_mm"])


def _size(shape: list[int], spacing_mm: list[float] | None) -> str:
    text = " x ".join(map(str, shape))
    return text if spacing_mm is None else f"{text} of {' x '.join(f'{v:g}' for v in spacing_mm)} mm"
