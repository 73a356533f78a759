"""A small dataset without a fault, and a way to plant one."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.labels import CARDIAC_CT, label_table, relabel
from cardiosynth.data.check.examination import Examination, check_dataset
from cardiosynth.data.check.finding import Finding
from cardiosynth.data.dataset import write_dataset
from cardiosynth.data.sources.phantom.source import phantom

TABLE = label_table({label.name: label.code for label in CARDIAC_CT.targets if label.name != "coronary_artery"})
"""The heart; voxels of 3.75 mm hold no coronary artery."""


@pytest.fixture(scope="session")
def clean() -> tuple[Case, ...]:
    """Three phantoms."""
    cases = []
    for index in range(3):
        case = phantom(index, (32, 32, 32))
        mask, _ = relabel(case.required_mask(), CARDIAC_CT, TABLE)
        cases.append(case.with_(mask=mask, labels=TABLE))
    return tuple(cases)


Planted = Callable[..., Examination]


@pytest.fixture
def planted(clean: tuple[Case, ...], tmp_path: Path) -> Planted:
    """Return a function that examines the clean cases with the last one changed, or with other cases instead."""

    def examine(cases: Sequence[Case] | None = None, **changes) -> Examination:
        if cases is None:
            cases = (*clean[:2], clean[2].with_(**changes))
        write_dataset(cases, tmp_path / "data")
        return check_dataset(tmp_path / "data")

    return examine


def found(examination: Examination, kind: str) -> list[Finding]:
    """Return the findings of one kind."""
    return [finding for finding in examination.findings if finding.kind == kind]


def only(examination: Examination, kind: str, level: str = "warning") -> Finding:
    """Return the one finding of this kind, and see that nothing else is to be mended."""
    faults = [finding for finding in examination.findings if finding.level != "info" or finding.kind == kind]
    assert [(f.level, f.kind) for f in faults] == [(level, kind)], [f.message for f in faults]
    return faults[0]


def voxels(case: Case, name: str) -> np.ndarray:
    """Return where a structure is, (*grid) bool."""
    return case.required_mask()[0] == case.labels.named(name).code
