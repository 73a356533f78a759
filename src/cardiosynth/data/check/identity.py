"""The same image twice, and the same patient on two sides: within a dataset and across datasets."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import track
from cardiosynth.data.check.finding import Finding
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.splits import patient_of

LEVELS = 4093.1
"""Gray levels in which two images are compared whatever their unit; no whole number, so that rounding never decides."""
NAMED = 5
"""So many cases are named in a sentence; all of them stand in its facts."""


@dataclass(frozen=True)
class Identity:
    """What tells a case from others, a few hundred bytes.

    Attributes:
        dataset: where it is from, in words; empty for the dataset that is examined.
        case_id: its name there.
        patient: the patient's name there.
        source: what the patient's name belongs to, empty where nothing is recorded.
        split: the part it was given to, None without one.
        origin: real, phantom or synthetic.
        parents: names of the cases that a synthetic one was made from.
        values: digest of the image's values; None without an image.
        picture: digest of the image whatever its unit, slope and offset.
        mask: digest of the mask; None without one.
    """

    dataset: str
    case_id: str
    patient: str
    source: str
    split: str | None
    origin: str
    parents: tuple[str, ...]
    values: str | None
    picture: str | None
    mask: str | None

    @property
    def title(self) -> str:
        """Its name, with its dataset's where that is another one."""
        return f"{self.dataset}:{self.case_id}" if self.dataset else self.case_id


def identity(case: Case, row: Mapping[str, Any], dataset: str = "") -> Identity:
    """Return what tells ``case`` from others.

    Args:
        case: the case.
        row: its row of the manifest.
        dataset: name of another dataset than the one examined.
    """
    facts = case.provenance
    # A phantom's patient is a number that belongs to a seed.
    source = str(facts.get("source", "")) + (
        f", seed {facts['seed']}" if case.origin == "phantom" and "seed" in facts else ""
    )
    parents = {*facts.get("parents", ()), *(facts[key] for key in ("reference", "template") if key in facts)}
    return Identity(
        dataset=dataset,
        case_id=case.case_id,
        patient=str(facts.get("patient", patient_of(case.case_id))),
        source=source,
        split=row.get("split"),
        origin=case.origin,
        parents=tuple(sorted(str(parent) for parent in parents)),
        values=None if case.image is None else _digest(case.image),
        picture=None if case.image is None or case.image.min() == case.image.max() else _digest(_levels(case.image)),
        mask=None if case.mask is None or not case.mask.any() else _digest(case.mask),
    )


def identities(dataset: Dataset, name: str) -> list[Identity]:
    """Return the identities of another dataset, called ``name``; what cannot be read is passed over."""
    found = []
    for case_id in track(dataset.case_ids, f"read {name}", len(dataset)):
        try:
            found.append(identity(dataset.case(case_id), dataset.row(case_id), name))
        except InputError:
            # Broken files of another dataset are found where that one is examined.
            continue
    return found


def _digest(array: np.ndarray) -> str:
    digest = hashlib.sha256(repr(array.shape).encode())
    # Whole numbers count alike whether they were stored as such or not.
    exact = array if array.dtype.itemsize <= 2 else array.astype(np.float32)
    digest.update(np.ascontiguousarray(exact).data)
    return digest.hexdigest()[:32]


def _levels(image: np.ndarray) -> np.ndarray:
    """Return the image in whole gray levels from its lowest to its highest value, slice by slice."""
    low, high = float(image.min()), float(image.max())
    out = np.empty(image.shape, np.int16)
    for index in range(image.shape[-1]):
        share = (image[..., index].astype(np.float64) - low) / (high - low)
        out[..., index] = np.floor(share * LEVELS + 0.123)
    return out


# ---------------------------------------------------------------------------------------------------------------
# What is wrong with it.


def duplicate_findings(own: Sequence[Identity], others: Sequence[Identity]) -> list[Finding]:
    """Return groups of cases that hold one image, or one mask."""
    everybody = (*own, *others)
    findings = []
    for group in _groups(everybody, "values"):
        across = any(each.dataset for each in group)
        text = f"{_named(group)} hold the same image; keep one of them" + (", on one side only." if across else ".")
        findings.append(_finding("error" if across else "warning", "duplicate_image", text, group))
    for group in _groups(everybody, "picture"):
        if len({each.values for each in group}) > 1:
            text = (
                f"{_named(group)} hold the same image in other numbers (slope, offset or type); keep the one in "
                "the right unit."
            )
            findings.append(_finding("warning", "duplicate_image", text, group))
    for group in _groups([each for each in everybody if each.origin != "synthetic"], "mask"):
        if len({each.picture for each in group}) > 1:
            text = f"{_named(group)} have the same mask on different images; it fits one of them only."
            findings.append(_finding("warning", "duplicate_mask", text, group))
    return findings


def leak_findings(own: Sequence[Identity], others: Sequence[Identity]) -> list[Finding]:
    """Return which patients stand on both sides: in two splits, or in this dataset and another one."""
    return _between_splits(own) + _between_sets(own, others) + _by_descent(own, others)


def _between_splits(own: Sequence[Identity]) -> list[Finding]:
    findings = []
    for (_, patient), group in _by_patient(own).items():
        splits = sorted({each.split for each in group if each.split is not None})
        if len(splits) > 1:
            text = f"patient {patient} is in the splits {' and '.join(splits)} ({_named(group)}); keep each in one."
            findings.append(_finding("error", "leak", text, group, splits=splits))
    return findings


def _between_sets(own: Sequence[Identity], others: Sequence[Identity]) -> list[Finding]:
    findings = []
    # Children of a patient's scan are told by descent.
    mine = _by_patient(each for each in own if each.origin != "synthetic")
    theirs = _by_patient(each for each in others if each.origin != "synthetic")
    for key in mine.keys() & theirs.keys():
        source, patient = key
        group = (*mine[key], *theirs[key])
        where = f"of {source} " if source else ""
        doubt = "" if source else ", if these are the same patients (no source is recorded)"
        text = f"patient {patient} {where}is here and there ({_named(group)}); keep each on one side{doubt}."
        findings.append(_finding("error" if source else "warning", "leak", text, group))
    return sorted(findings, key=lambda finding: finding.text)


def _by_descent(own: Sequence[Identity], others: Sequence[Identity]) -> list[Finding]:
    known: dict[str, dict[str, Identity]] = defaultdict(dict)
    for each in others:
        known[each.dataset][each.case_id] = each
    findings = []
    for dataset, cases in known.items():
        group = [each for each in own if each.origin == "synthetic" and any(parent in cases for parent in each.parents)]
        if group:
            text = (
                f"{len(group)} synthetic cases were made from masks or templates of {dataset} ({_named(group)}); right "
                "for a library of templates, a leak where that is the test set."
            )
            findings.append(_finding("warning", "leak", text, group))
    return findings


def _by_patient(cases: Iterable[Identity]) -> dict[tuple[str, str], list[Identity]]:
    groups: dict[tuple[str, str], list[Identity]] = defaultdict(list)
    for each in cases:
        groups[each.source, each.patient].append(each)
    return groups


def _groups(cases: Sequence[Identity], digest: str) -> list[list[Identity]]:
    """Return the cases that share a digest, one of them at least of the dataset that is examined."""
    groups: dict[str, list[Identity]] = defaultdict(list)
    for each in cases:
        if (value := getattr(each, digest)) is not None:
            groups[value].append(each)
    return [group for group in groups.values() if len(group) > 1 and any(not each.dataset for each in group)]


def _finding(level: Any, kind: str, text: str, group: Sequence[Identity], **facts: Any) -> Finding:
    return Finding(level, kind, None, text, {"cases": [each.title for each in group], **facts})


def _named(group: Sequence[Identity]) -> str:
    names = [each.title for each in group]
    if len(names) > NAMED:
        names = [*names[:NAMED], f"{len(names) - NAMED} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
