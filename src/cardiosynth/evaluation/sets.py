"""Real and synthetic cases as sets: which comparisons are made with what is at hand, and what they found."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cardiosynth.core.intensity import IntensityScale
from cardiosynth.data.dataset import Dataset, read_dataset
from cardiosynth.evaluation.comparison import Comparer, Comparison, Neighbor, Sample, refuse_seen
from cardiosynth.evaluation.comparison_tables import (
    Protocol,
    agreement_table,
    distribution_table,
    likeness_table,
    memorization_table,
    nearest_pairs,
    nearest_table,
)
from cardiosynth.evaluation.drawn import feature_map
from cardiosynth.evaluation.extraction import PICTURES, SampleSettings, View, cropped, planes_of
from cardiosynth.evaluation.extractors import load_extractor
from cardiosynth.evaluation.judge import judge_extractor, refuse_partial, trained_on
from cardiosynth.evaluation.kept import Kept
from cardiosynth.evaluation.lpips import load_lpips
from cardiosynth.evaluation.results import CaseFigure, PointsFigure, Table, pointer
from cardiosynth.evaluation.tables import in_words
from cardiosynth.evaluation.templates import copies_note, measure_templates, template_table
from cardiosynth.metrics.memorization import near_copies
from cardiosynth.segmentation.predict import Segmenter, load_segmenter

SHOWN_PAIRS = 3


@dataclass(frozen=True)
class Compared:
    """What the comparison of sets adds to the results."""

    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    figures: tuple[CaseFigure | PointsFigure, ...] = ()


def read_comparison(
    judge: Path | None,
    training: Path | None,
    lpips: Path | None,
    settings: SampleSettings,
    keep: Path | None = None,
    device: str = "cpu",
    extractors: Sequence[str] = (),
) -> Comparison:
    """Return the comparison with a judge's run, a training dataset and released weights, where they are given.

    Args:
        judge: run of a segmenter.
        training: dataset folder.
        lpips: file of LPIPS's weights.
        settings: how sets are compared.
        keep: folder for what is measured.
        device: for the judge and all networks but LPIPS's.
        extractors: ``KIND=FILE``; see `extractors`.

    Raises:
        InputError: the run holds no U-Net that segments, the folder is no dataset, or a file holds other weights.
    """
    segmenter = None if judge is None else load_segmenter(judge, device)
    return Comparison(
        judge=segmenter,
        judge_cases=() if judge is None else trained_on(judge),
        extractors=(
            *(() if segmenter is None else (judge_extractor(segmenter),)),
            *(load_extractor(text, device) for text in extractors),
        ),
        training=None if training is None else read_dataset(training).with_images(),
        lpips=None if lpips is None else load_lpips(lpips),
        settings=settings,
        keep=keep,
    )


def compare_sets(
    real: Dataset,
    synthetic: Dataset,
    comparison: Comparison,
    scale: IntensityScale,
    kept: Kept,
    relative_to: Path | None = None,
) -> Compared:
    """Compare the sets; diversity always, the rest with what ``comparison`` has.

    Raises:
        InputError: a judge that took part in making the synthetic cases, or real cases that are training cases.
    """
    if comparison.judge is not None:
        refuse_partial(comparison.judge, synthetic)
    if comparison.training is not None:
        refuse_seen(real, comparison.training)
    settings = comparison.settings
    planes = planes_of(cropped(real[0], scale, settings).shape, settings)
    comparers = [
        Comparer(comparison.judge, View(scale, extractor, settings, planes), kept)
        for extractor in comparison.extractors or (None,)
    ]
    protocol = Protocol(in_words(scale), settings, planes)
    parts = [*_samples(comparers, real, synthetic, comparison, protocol, relative_to)]
    likeness = comparers[0].likeness(real, "real"), comparers[0].likeness(synthetic, "synthetic")
    parts.append(Compared(_there(likeness_table(*likeness, protocol))))
    shown = synthetic.with_masks()
    if comparison.judge is not None and len(shown):
        parts.append(Compared((_agreement(comparers[0], comparison.judge, real, shown),)))
    parts.append(_templates(synthetic, [*_there(comparison.training), real], kept))
    parts.append(Compared(notes=_known_names(comparison.judge_cases, real)))
    return Compared(
        tuple(table for part in parts for table in part.tables),
        tuple(note for part in parts for note in part.notes),
        tuple(figure for part in parts for figure in part.figures),
    )


def _samples(
    comparers: Sequence[Comparer],
    real: Dataset,
    synthetic: Dataset,
    comparison: Comparison,
    protocol: Protocol,
    relative_to: Path | None,
) -> Iterator[Compared]:
    """Yield what samples of both sets tell, one network's features after another; copies by the first's."""
    for index, comparer in enumerate(comparers):
        extractor, training = comparer.view.extractor, comparison.training if index == 0 else None
        if extractor is None and training is None:
            return
        called = "" if extractor is None else f" for {extractor.name}"
        samples = comparer.sample(real, f"real{called}"), comparer.sample(synthetic, f"synthetic{called}")
        if extractor is not None:
            table = distribution_table(*samples, extractor, protocol)
            yield Compared(_there(table), figures=_there(feature_map(*samples, extractor, protocol)))
        if training is not None:
            neighbors = comparer.neighbors(samples, training)
            yield _memorization(samples[1], neighbors, comparison, protocol, synthetic, relative_to)


Item = TypeVar("Item")


def _there(item: Item | None) -> tuple[Item, ...]:
    return () if item is None else (item,)


def _templates(synthetic: Dataset, homes: Sequence[Dataset], kept: Kept) -> Compared:
    table = template_table(measure_templates(synthetic, homes, kept))
    return Compared() if table is None else Compared((table,), copies_note(table))


def _agreement(comparer: Comparer, judge: Segmenter, real: Dataset, synthetic: Dataset) -> Table:
    seen = comparer.agreements(real, "real"), comparer.agreements(synthetic, "synthetic")
    return agreement_table(*seen, real.labels, judge.fingerprint)


def _memorization(
    sample: Sample,
    neighbors: list[dict[str, Neighbor]],
    comparison: Comparison,
    protocol: Protocol,
    synthetic: Dataset,
    relative_to: Path | None,
) -> Compared:
    real, made = neighbors
    parents = {case_id: _parents(row["provenance"]) for case_id, row in synthetic.rows.items()}
    tables = (
        memorization_table(real, made, next(iter(comparison.extractors), None), protocol),
        nearest_table(sample, made[PICTURES], parents),
    )
    found = near_copies(made[PICTURES].distance, real[PICTURES].distance)
    note = (
        f"{100 * found.share:.0f} % of the synthetic images are nearer to a training image than 95 % of the real ones "
        f"are, where chance explains {100 * found.bound:.0f} %: look at the nearest pairs."
    )
    return Compared(
        tables,
        (note,) if found.suspicious else (),
        _pair_figures(sample, made[PICTURES], comparison, synthetic, relative_to),
    )


def _pair_figures(
    sample: Sample, neighbor: Neighbor, comparison: Comparison, synthetic: Dataset, relative_to: Path | None
) -> tuple[CaseFigure, ...]:
    assert comparison.training is not None, "pairs come from a search"
    pairs: dict[tuple[str, str], float] = {}
    for index in nearest_pairs(neighbor):
        names = sample.places[index][0], neighbor.place[index][0]
        pairs.setdefault(names, float(neighbor.distance[index]))
    return tuple(
        CaseFigure(
            title=f"Nearest to a training case: {made} and {training}",
            caption=f"First the training case. Root mean square difference of their small pictures: {distance:.4f} "
            "of the window. Each is cut through its own heart.",
            synthetic=pointer(synthetic.root, made, relative_to),
            real=pointer(comparison.training.root, training, relative_to),
        )
        for (made, training), distance in list(pairs.items())[:SHOWN_PAIRS]
    )


def _known_names(judge_cases: tuple[str, ...], real: Dataset) -> tuple[str, ...]:
    """Return a warning where the judge learned from cases that have the names of the real ones."""
    known = set(judge_cases) & set(real.case_ids)
    if not known:
        return ()
    return (
        f"The judge learned from cases with the names of {len(known)} of the {len(real)} real cases (such as "
        f"{min(known)}); where they are the same, its agreement with the real masks is too good.",
    )


def _parents(provenance: Mapping) -> tuple[str, ...]:
    return tuple(provenance.get("parents", ())) + ((provenance["template"],) if "template" in provenance else ())
