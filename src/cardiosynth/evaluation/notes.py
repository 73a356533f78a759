"""What must be known before the numbers are read: sentences that a results file carries above its tables."""

from collections.abc import Sequence

import numpy as np

from cardiosynth.data.dataset import Dataset
from cardiosynth.evaluation.measures import PairMeasures
from cardiosynth.evaluation.tables import Measured

FEW_CASES = 10
LOST = 0.5
"""Share of the contrast below which a structure counts as lost."""


def notes(real: Dataset, synthetic: Dataset, found: Measured) -> tuple[str, ...]:
    """Return every sentence that applies, the gravest first."""
    return (
        *_lost("The autoencoder keeps", found, found.ceiling),
        *_lost("The synthetic images keep", found, found.pairs),
        *_origin(real),
        *_unpaired(found),
        *_few(real, synthetic),
        *_left_out(real, synthetic),
        *_unknown_size(real, synthetic),
    )


def _lost(who_keeps: str, found: Measured, pairs: Sequence[PairMeasures]) -> list[str]:
    lost = []
    for label in found.labels.targets:
        values = [pair.kept[label.name] for pair in pairs if np.isfinite(pair.kept.get(label.name, np.nan))]
        if values and np.mean(values) < LOST:
            lost.append(f"{label.title} ({100 * np.mean(values):.0f} %)")
    if not lost:
        return []
    return [f"{who_keeps} less than half of the contrast of: {', '.join(lost)}. Do not rely on the images there."]


def _origin(real: Dataset) -> list[str]:
    phantoms = sum(row["origin"] == "phantom" for row in real.rows.values())
    if not phantoms:
        return []
    return ["The images called real are phantoms: drawn by a program, not taken by a scanner."]


def _unpaired(found: Measured) -> list[str]:
    if found.pairs:
        return []
    if not any(case.structures for case in found.synthetic):
        return ["The synthetic images show no mask; they are compared with the real ones as a set only."]
    return [
        "No synthetic case has the mask of a real one, so similarity (SSIM, PSNR, RMSE) is not measured; intensity, "
        "contrast and shape are compared between the two groups."
    ]


def _few(real: Dataset, synthetic: Dataset) -> list[str]:
    if min(len(real), len(synthetic)) >= FEW_CASES:
        return []
    return [
        f"Few cases ({len(real)} real, {len(synthetic)} synthetic): differences smaller than the standard deviations "
        "mean nothing."
    ]


def _left_out(real: Dataset, synthetic: Dataset) -> list[str]:
    ours, theirs = ({label.name for label in dataset.labels} for dataset in (real, synthetic))
    if ours == theirs:
        return []
    names = ", ".join(sorted(name.replace("_", " ") for name in ours ^ theirs))
    return [f"The label tables differ and are matched by name; only one dataset has, and left out is: {names}."]


def _unknown_size(real: Dataset, synthetic: Dataset) -> list[str]:
    count = sum(not row.get("spacing_known", True) for dataset in (real, synthetic) for row in dataset.rows.values())
    return [f"The voxel size of {count} cases is not known; their volumes are left out."] if count else []
