"""What was measured of one structure over all cases: a few numbers a case."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cardiosynth.core.labels import Label
from cardiosynth.data.check.intensity import BINS
from cardiosynth.data.check.structures import Structure
from cardiosynth.data.check.tissues import EXPECTED_HU, Tissue, structure_of


@dataclass
class Totals:
    """Sums over cases.

    Attributes:
        label: which structure.
        cases: how many have it.
        medians: brightness in each case, in the image's unit.
        volumes_ml: size in each case whose voxel size is known.
        counts: histogram over all cases, each counted alike; see ``Brightness``.
    """

    label: Label
    cases: int = 0
    medians: list[float] = field(default_factory=list)
    volumes_ml: list[float] = field(default_factory=list)
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS))

    def add(self, found: Structure) -> None:
        """Count one more case."""
        self.cases += 1
        if found.volume_ml is not None:
            self.volumes_ml.append(found.volume_ml)
        if found.brightness is not None:
            self.medians.append(found.brightness.median)
            self.counts += np.array(found.brightness.counts) / found.voxels

    @property
    def tissue(self) -> Tissue | None:
        """What it should measure in contrast CT, where that is known."""
        return EXPECTED_HU.get(structure_of(self.label.name))

    def row(self) -> dict[str, Any]:
        """Return the numbers as JSON; lists are lowest, median and highest over cases."""
        tissue = self.tissue
        return {
            "name": self.label.name,
            "code": self.label.code,
            "role": self.label.role,
            "cases": self.cases,
            "volume_ml": _spread(self.volumes_ml),
            "median": _spread(self.medians),
            "usual_hu": None if tissue is None else [tissue.low_hu, tissue.high_hu],
            "histogram": [round(float(v) / max(1, len(self.medians)), 5) for v in self.counts],
        }


def _spread(values: list[float]) -> list[float] | None:
    return [round(float(v), 2) for v in (min(values), np.median(values), max(values))] if values else None
