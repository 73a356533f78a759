"""Real cases against synthetic ones: one pass over both datasets, everything that can be measured without weights."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.progress import Progress
from cardiosynth.data.dataset import Dataset
from cardiosynth.evaluation.measures import CaseMeasures, PairMeasures, measure_case, measure_pair
from cardiosynth.evaluation.notes import notes
from cardiosynth.evaluation.results import CaseFigure, ProjectionFigure, Results, Table, environment, pointer
from cardiosynth.evaluation.tables import (
    Measured,
    confidence_table,
    contrast_table,
    intensity_table,
    shape_table,
    similarity_table,
)

Reconstruct = Callable[[Case], np.ndarray]
"""case -> its image after encoding and decoding, (1, *grid), in the case's unit."""

VESSEL = "coronary_artery"


def evaluate(
    real: Dataset,
    synthetic: Dataset,
    *,
    relative_to: Path | None = None,
    scale: IntensityScale | None = None,
    reconstruct: Reconstruct | None = None,
    num_figures: int = 3,
    title: str = "Synthetic against real",
) -> Results:
    """Compare synthetic with real cases.

    A synthetic case is paired with a real one when both have the same target mask: the real one is its parent or
    namesake and the mask was not deformed. Similarity is measured on pairs only; everything else on all cases.

    Args:
        real: real (or phantom) cases; those with image and mask count.
        synthetic: synthetic cases with image and mask.
        relative_to: folder of the results file, from which the datasets are found again.
        scale: which intensities become [0, 1]; [-1000, 2000] HU, or percentiles of the real image for MR.
        reconstruct: an autoencoder, from case to image: adds its ceiling.
        num_figures: how many synthetic cases are shown.
        title: heading of the results.

    Raises:
        InputError: a dataset without image-mask pairs, different intensity units, or no structure in common.
    """
    real, synthetic = _usable(real), _usable(synthetic)
    labels = _common_labels(real, synthetic)
    scale = scale or IntensityScale(unit="hu" if real.intensity_unit == "hu" else "mr")
    found, partners = _measure(real, synthetic, labels, scale, reconstruct)
    return Results(
        title=title,
        summary=f"{synthetic.root.name} ({len(synthetic)} cases) beside {real.root.name} ({len(real)} cases).",
        notes=notes(real, synthetic, found),
        tables=_tables(found),
        figures=(
            *_case_figures(real, synthetic, partners, relative_to, num_figures),
            *_vessel_figures(real, synthetic, partners, relative_to, num_figures),
        ),
        environment=environment(),
    )


def find_partner(case: Case, real: Dataset) -> Case | None:
    """Return the real case that has the same target mask on the same grid: a parent or namesake, or None."""
    if case.provenance.get("mask"):  # the record of how the mask was deformed
        return None
    parents = case.provenance.get("parents", ())
    for name in dict.fromkeys([case.case_id, *parents]):
        if name in real.rows:
            candidate = real.case(name)
            if candidate.grid.same_as(case.grid) and np.array_equal(*_shared_targets(case, candidate)):
                return candidate
    return None


def _measure(
    real: Dataset, synthetic: Dataset, labels: LabelTable, scale: IntensityScale, reconstruct: Reconstruct | None
) -> tuple[Measured, dict[str, str]]:
    """Return everything measured, and synthetic case -> real case for the pairs."""
    names = [label.name for label in labels]
    ceiling: dict[str, PairMeasures] = {}
    partners: dict[str, str] = {}
    groups: dict[str, list[CaseMeasures]] = {"real": [], "synthetic": []}
    pairs: list[PairMeasures] = []
    with Progress("evaluate", len(real) + len(synthetic)) as progress:
        for case in real:
            groups["real"].append(measure_case(case, names))
            if reconstruct is not None:
                window = scale.window_of(case.required_image())
                ceiling[case.case_id] = measure_pair(case, reconstruct(case), window, list(labels))
            progress.update()
        for case in synthetic:
            groups["synthetic"].append(measure_case(case, names))
            partner = find_partner(case, real)
            if partner is not None:
                partners[case.case_id] = partner.case_id
                window = scale.window_of(partner.required_image())
                pairs.append(measure_pair(partner, case.required_image(), window, list(labels)))
            progress.update()
    compared = set(partners.values()) or set(ceiling)  # the ceiling of the very images that are compared
    chosen = [row for name, row in ceiling.items() if name in compared]
    unit = "HU" if real.intensity_unit == "hu" else ""
    return Measured(labels, unit, _in_words(scale), **groups, pairs=pairs, ceiling=chosen), partners


def _shared_targets(case: Case, other: Case) -> tuple[UInt8[np.ndarray, "1 *grid"], UInt8[np.ndarray, "1 *grid"]]:
    """Return both masks with nothing but the target structures that both tables name, numbered alike."""
    names = [label.name for label in case.labels.targets if label.name in {x.name for x in other.labels.targets}]
    masks = []
    for each in (case, other):
        number = np.zeros(256, np.uint8)
        for index, name in enumerate(names, start=1):
            number[each.labels.named(name).code] = index
        masks.append(number[each.required_mask()])
    return masks[0], masks[1]


def _usable(dataset: Dataset) -> Dataset:
    usable = dataset.with_images().with_masks()
    if not len(usable):
        raise InputError(f"{dataset.root} has no case with image and mask; add both before evaluating.")
    return usable


def _common_labels(real: Dataset, synthetic: Dataset) -> LabelTable:
    if real.intensity_unit != synthetic.intensity_unit:
        raise InputError(
            f"{real.root} is in '{real.intensity_unit}' and {synthetic.root} in '{synthetic.intensity_unit}'; "
            "compare datasets of one unit."
        )
    names = {label.name for label in synthetic.labels}
    common = tuple(label for label in real.labels if label.name in names)
    if not common:
        raise InputError(f"{real.root} and {synthetic.root} have no structure in common; give them the same names.")
    return LabelTable(labels=common)


def _tables(found: Measured) -> tuple[Table, ...]:
    tables = (
        similarity_table(found), contrast_table(found), intensity_table(found), shape_table(found),
        confidence_table(found),
    )  # fmt: skip
    return tuple(table for table in tables if table is not None)


def _first(synthetic: Dataset, partners: dict[str, str], count: int) -> list[str]:
    """Return the synthetic cases to show: paired ones first."""
    return sorted(synthetic.case_ids, key=lambda name: name not in partners)[:count]


def _case_figures(
    real: Dataset, synthetic: Dataset, partners: dict[str, str], relative_to: Path | None, count: int
) -> list[CaseFigure]:
    captions = {
        True: "The real image has the same mask; both are cut at the same place.",
        False: "The real image is another patient's, for comparison; each is cut through its own heart.",
    }
    figures = []
    for index, name in enumerate(_first(synthetic, partners, count)):
        beside = partners.get(name, real.case_ids[index % len(real)])
        figure = CaseFigure(
            title=name, caption=captions[name in partners], paired=name in partners,
            synthetic=pointer(synthetic.root, name, relative_to), real=pointer(real.root, beside, relative_to),
        )  # fmt: skip
        figures.append(figure)
    return figures


def _vessel_figures(
    real: Dataset, synthetic: Dataset, partners: dict[str, str], relative_to: Path | None, count: int
) -> list[ProjectionFigure]:
    if not all(VESSEL in {label.name for label in dataset.labels} for dataset in (real, synthetic)):
        return []
    shown = [(f"real: {name}", pointer(real.root, name, relative_to)) for name in real.case_ids[:count]]
    order = _first(synthetic, partners, count)
    shown += [(f"synthetic: {name}", pointer(synthetic.root, name, relative_to)) for name in order]
    caption = "Seen from the front; brighter is nearer, the shadow is the rest of the heart."
    return [
        ProjectionFigure(title="Coronary arteries of the masks", caption=caption, structure=VESSEL, cases=tuple(shown))
    ]


def _in_words(scale: IntensityScale) -> str:
    if scale.unit == "hu":
        return f"the window [{scale.window.low:.0f}, {scale.window.high:.0f}] HU"
    low, high = scale.percentiles
    return f"the {low:g}th to {high:g}th percentile of each real image"
