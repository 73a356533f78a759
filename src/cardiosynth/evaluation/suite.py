"""Real cases against synthetic ones: everything that can be measured, case by case, and as sets."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from cardiosynth import __version__
from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.progress import Progress
from cardiosynth.core.store import fingerprint
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.preparation import suited_scale
from cardiosynth.evaluation.comparison import Comparison
from cardiosynth.evaluation.drawn import sparsification_figure
from cardiosynth.evaluation.galleries import template_gallery
from cardiosynth.evaluation.kept import Kept, identity
from cardiosynth.evaluation.lpips import Lpips
from cardiosynth.evaluation.measures import (
    CaseMeasures,
    PairMeasures,
    measure_case,
    measure_pair,
    measure_sparsification,
    shared_targets,
)
from cardiosynth.evaluation.notes import notes
from cardiosynth.evaluation.results import CaseFigure, ProjectionFigure, Results, Table, environment, pointer
from cardiosynth.evaluation.sets import compare_sets
from cardiosynth.evaluation.tables import (
    Measured,
    confidence_table,
    continuity_table,
    contrast_table,
    in_words,
    intensity_table,
    shape_table,
    similarity_table,
    topology_table,
)

Reconstruct = Callable[[Case], np.ndarray]
"""case -> its image after encoding and decoding, (1, *grid), in the case's unit."""

OfSynthetic = tuple[CaseMeasures, tuple[str, PairMeasures] | None]
"""A synthetic case, and where it has one its partner's name and the two beside each other."""

OF_CASE, OF_SYNTHETIC = pydantic.TypeAdapter(CaseMeasures), pydantic.TypeAdapter(OfSynthetic)
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
    comparison: Comparison | None = None,
) -> Results:
    """Compare synthetic with real cases.

    A synthetic case is paired with a real one when both have the same target mask: the real one is its parent or
    namesake and the mask was not deformed. Similarity is measured on pairs only; everything else on all cases. Cases
    that were made without being told of a mask have none, and are compared as a set of images only.

    Args:
        real: real (or phantom) cases; those with image and mask count.
        synthetic: synthetic cases with image and mask, or all without a mask.
        relative_to: folder of the results file, from which the datasets are found again.
        scale: which intensities become [0, 1]; for None those the dataset was prepared for, else [-1000, 2000] HU, or
            percentiles of the real image for MR.
        reconstruct: an autoencoder, from case to image: adds its ceiling.
        num_figures: how many synthetic cases are shown.
        title: heading of the results.
        comparison: what the sets are compared with, beyond their masks and images.

    Raises:
        InputError: a dataset without image-mask pairs, different intensity units, no structure in common, a judge that
            took part in making the synthetic cases, or real cases that are training cases.
    """
    real, synthetic, comparison = _usable(real), _made(synthetic), comparison or Comparison()
    labels = _common_labels(real, synthetic)
    unknown = real.intensity_unit == "unknown"
    scale = scale or (IntensityScale(unit="mr") if unknown else suited_scale(real))
    kept = Kept(comparison.keep, _protocol_of(labels, scale, comparison))
    compared = compare_sets(real, synthetic, comparison, scale, kept, relative_to)
    measured_by = Measuring(labels, scale, comparison.lpips)
    found, partners = _measure(real, synthetic, measured_by, reconstruct, kept)
    curves = sparsification_figure([pair.sparsification for pair in found.pairs])
    templates = template_gallery(synthetic, [real, *filter(None, [comparison.training])], relative_to)
    return Results(
        title=title,
        summary=f"{synthetic.root.name} ({len(synthetic)} cases) beside {real.root.name} ({len(real)} cases).",
        notes=(*compared.notes, *notes(real, synthetic, found)),
        tables=(*_tables(found), *compared.tables),
        figures=(
            *_case_figures(real, synthetic, partners, relative_to, num_figures),
            *_vessel_figures(real, synthetic, partners, relative_to, num_figures),
            *((templates,) if templates else ()),
            *((curves,) if curves else ()),
            *compared.figures,
        ),
        environment={
            "real cases": f"{len(real)} of {real.root.name}, {fingerprint(identity(real, real.case_ids)[1])}",
            "synthetic cases": f"{len(synthetic)} of {synthetic.root.name}, "
            f"{fingerprint(identity(synthetic, synthetic.case_ids)[1])}",
            **environment(),
        },
    )


def find_partner(case: Case, real: Dataset) -> Case | None:
    """Return the real case that has the same target mask on the same grid: a parent or namesake, or None."""
    if case.mask is None or case.provenance.get("mask"):  # the record of how the mask was deformed
        return None
    parents = case.provenance.get("parents", ())
    for name in dict.fromkeys([case.case_id, *parents]):
        if name in real.rows:
            candidate = real.case(name)
            if candidate.grid.same_as(case.grid) and np.array_equal(*shared_targets(case, candidate)):
                return candidate
    return None


@dataclass(frozen=True)
class Measuring:
    """What every case and pair is measured by: the structures looked at, which intensities are [0, 1], and LPIPS."""

    labels: LabelTable
    scale: IntensityScale
    lpips: Lpips | None

    def case(self, case: Case) -> CaseMeasures:
        """Return the measures of a case."""
        return measure_case(case, [label.name for label in self.labels])

    def pair(self, real: Case, image: np.ndarray) -> PairMeasures:
        """Return the measures of an image beside that of the real case."""
        window = self.scale.window_of(real.required_image())
        return measure_pair(real, image, window, list(self.labels), self.lpips)

    def synthetic(self, case: Case, real: Dataset) -> OfSynthetic:
        """Return the measures of a synthetic case, and of the pair where it has a partner."""
        partner = find_partner(case, real)
        if partner is None:
            return self.case(case), None
        pair = self.pair(partner, case.required_image())
        return self.case(case), (partner.case_id, replace(pair, sparsification=measure_sparsification(partner, case)))


def _measure(
    real: Dataset, synthetic: Dataset, by: Measuring, reconstruct: Reconstruct | None, kept: Kept
) -> tuple[Measured, dict[str, str]]:
    """Return everything measured, and synthetic case -> real case for the pairs."""
    beside = fingerprint(identity(real, real.case_ids))
    ceiling: dict[str, PairMeasures] = {}
    of_real: list[CaseMeasures] = []
    of_synthetic: dict[str, OfSynthetic] = {}
    with Progress("evaluate", len(real) + len(synthetic)) as progress:
        for case_id in real.case_ids:
            key = kept.key("case", real, case_id)
            of_real.append(kept.value(OF_CASE, key, lambda name=case_id: by.case(real.case(name))))
            if reconstruct is not None:
                case = real.case(case_id)
                ceiling[case_id] = by.pair(case, reconstruct(case))
            progress.update()
        for case_id in synthetic.case_ids:
            key = kept.key("synthetic", synthetic, case_id, beside=beside)
            measure = lambda name=case_id: by.synthetic(synthetic.case(name), real)  # noqa: E731
            of_synthetic[case_id] = kept.value(OF_SYNTHETIC, key, measure)
            progress.update()
    pairs = {case_id: pair for case_id, (_, pair) in of_synthetic.items() if pair is not None}
    partners = {case_id: partner for case_id, (partner, _) in pairs.items()}
    compared = set(partners.values()) or set(ceiling)  # the ceiling of the very images that are compared
    return Measured(
        by.labels, "HU" if real.intensity_unit == "hu" else "", in_words(by.scale), real=of_real,
        synthetic=[case for case, _ in of_synthetic.values()], pairs=[pair for _, pair in pairs.values()],
        ceiling=[row for name, row in ceiling.items() if name in compared],
        lpips="" if by.lpips is None else by.lpips.title,
    ), partners  # fmt: skip


def _protocol_of(labels: LabelTable, scale: IntensityScale, comparison: Comparison) -> dict[str, Any]:
    """Return everything besides the cases that the numbers depend on."""
    judge = comparison.judge
    return {
        "program": __version__,
        "labels": labels.model_dump(mode="json"),
        "scale": scale.model_dump(mode="json"),
        "judge": None if judge is None else judge.fingerprint,
        "lpips": None if comparison.lpips is None else comparison.lpips.title,
        "settings": comparison.settings.model_dump(mode="json"),
    }


def _usable(dataset: Dataset) -> Dataset:
    usable = dataset.with_images().with_masks()
    if not len(usable):
        raise InputError(f"{dataset.root} has no case with image and mask; add both before evaluating.")
    return usable


def _made(dataset: Dataset) -> Dataset:
    """Return the synthetic cases that can be compared: all, where a generator made them without a mask."""
    told = [case_id for case_id, row in dataset.rows.items() if row["provenance"].get("conditional", True)]
    return _usable(dataset) if told else dataset.with_images()


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
    if not any(case.structures for case in found.synthetic):
        table = continuity_table(found)
        return () if table is None else (table,)
    tables = (
        similarity_table(found), contrast_table(found), intensity_table(found), shape_table(found),
        topology_table(found), continuity_table(found), confidence_table(found),
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
    order = [name for name in order if synthetic.has("mask", name)]
    shown += [(f"synthetic: {name}", pointer(synthetic.root, name, relative_to)) for name in order]
    caption = "Seen from the front; brighter is nearer, the shadow is the rest of the heart."
    return [
        ProjectionFigure(title="Coronary arteries of the masks", caption=caption, structure=VESSEL, cases=tuple(shown))
    ]
