"""One segmenter's masks against the truth: every measure of every structure and case, and means with intervals."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable, relabel
from cardiosynth.core.progress import Progress
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.splits import patient_of
from cardiosynth.evaluation.results import Cell, Column, Estimate, Results, Stage, Table, environment, estimate
from cardiosynth.evaluation.segmentations import (
    NAN,
    RDICE_RADIUS_MM,
    Agreement,
    arms_figure,
    compare_segmentation,
    finite,
    finite_mean,
)
from cardiosynth.evaluation.statistics import mean_interval


@dataclass(frozen=True)
class Judged:
    """One test case as a segmenter sees it.

    Attributes:
        case_id: its name.
        patient: whose it is; cases of a patient are not independent.
        structures: name -> agreement with the truth.
    """

    case_id: str
    patient: str
    structures: dict[str, Agreement]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What was tried, in words.

    Attributes:
        name: of the segmenter.
        test: name of the test set.
        trained: how the segmenter was trained; sentences.
        prompts: what it was told of the test cases beside their images; a sentence, empty for nothing.
        radius_mm: tolerance of RDice.
        command: that repeats it.
    """

    name: str
    test: str
    trained: str
    prompts: str = ""
    radius_mm: float = RDICE_RADIUS_MM
    command: str = ""


@dataclass(frozen=True)
class _Measure:
    column: Column
    read: Callable[[Agreement], float]


MEASURES = (
    _Measure(Column(title="Dice", better="higher", digits=3), lambda a: a.dice),
    _Measure(Column(title="RDice, literal", better="higher", digits=3), lambda a: a.rdice_literal),
    _Measure(Column(title="RDice, symmetric", better="higher", digits=3), lambda a: a.rdice_symmetric),
    _Measure(Column(title="clDice", better="higher", digits=3), lambda a: a.cl_dice),
    _Measure(Column(title="centerline overlap", better="higher", digits=3), lambda a: a.centerline_overlap),
    _Measure(Column(title="surface Dice", better="higher", digits=3), lambda a: a.surface_dice),
    _Measure(Column(title="HD95", unit="mm", better="lower", digits=1), lambda a: a.hausdorff95_mm),
)


def judge(predicted: Dataset, truth: Dataset, radius_mm: float = RDICE_RADIUS_MM) -> list[Judged]:
    """Return every measure of every case of ``truth``, in its order.

    Args:
        predicted: masks of these cases, on their grids; structures are matched by name.
        truth: cases with masks.
        radius_mm: tolerance of RDice.

    Raises:
        InputError: a case without a predicted mask, or with one on another grid.
    """
    judged = []
    with Progress("judge", len(truth)) as progress:
        for case in truth:
            found = predicted.case(case.case_id)
            if not found.grid.same_as(case.grid):
                raise InputError(f"{predicted.root}: case {case.case_id} lies on another grid than in {truth.root}.")
            mask, _ = relabel(found.required_mask(), found.labels, case.labels)
            patient = str(case.provenance.get("patient", patient_of(case.case_id)))
            judged.append(Judged(case.case_id, patient, compare_segmentation(mask, case, radius_mm)))
            progress.update()
    return judged


def trial_results(judged: Sequence[Judged], labels: LabelTable, trial: Trial) -> Results:
    """Return means and every case as tables, and the cases' Dice as a figure.

    Args:
        judged: from `judge`, one case at least.
        labels: of the truth.
        trial: what was tried.
    """
    protocol = _protocol(judged, trial)
    figure = arms_figure({trial.name: [case.structures for case in judged]}, labels, protocol)
    return Results(
        title=f"{trial.name} on {trial.test}",
        summary=trial.trained,
        tables=(_means(judged, labels, protocol), _cases(judged, labels, protocol)),
        figures=(figure,),
        stages=(Stage(name="segment", command=trial.command),),
        environment=environment(),
    )


def case_rows(judged: Sequence[Judged], radius_mm: float) -> str:
    """Return every structure of every case as CSV.

    Empty is nothing to measure; an infinite distance is that of a structure that only one of both masks has.
    """
    names = ["case", "patient", "structure", "rdice_radius_mm", *(field.name for field in fields(Agreement))]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for case in judged:
        for name, agreement in case.structures.items():
            values = {key: "" if value != value else value for key, value in asdict(agreement).items()}
            about = {"case": case.case_id, "patient": case.patient, "structure": name, "rdice_radius_mm": radius_mm}
            writer.writerow(about | values)
    return text.getvalue()


def _means(judged: Sequence[Judged], labels: LabelTable, protocol: str) -> Table:
    count, lost = Column(title="cases", digits=0), Column(title="missed or invented", digits=0)
    rows: list[tuple[Cell, ...]] = []
    for label in labels.targets:
        agreements = [case.structures[label.name] for case in judged]
        estimates = (_estimate([m.read(a) for a in agreements], judged) for m in MEASURES)
        there = sum(not np.isnan(a.dice) for a in agreements)
        rows.append((label.title, there, *estimates, sum((a.pieces == 0) != (a.true_pieces == 0) for a in agreements)))
    overall = (
        _estimate([finite_mean(m.read(a) for a in c.structures.values()) for c in judged], judged) for m in MEASURES
    )
    rows.append(("mean over structures", len(judged), *overall, None))
    columns = (Column(title="structure"), count, *(m.column for m in MEASURES), lost)
    return Table(title="Segmentation", protocol=protocol, columns=columns, rows=tuple(rows))


def _cases(judged: Sequence[Judged], labels: LabelTable, protocol: str) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (case.case_id, label.title, *(finite(m.read(case.structures[label.name])) for m in MEASURES))
        for case in judged
        for label in labels.targets
    ]
    columns = (Column(title="case"), Column(title="structure"), *(m.column for m in MEASURES))
    return Table(title="Segmentation: every case", protocol=protocol, columns=columns, rows=tuple(rows))


def _protocol(judged: Sequence[Judged], trial: Trial) -> str:
    patients = len({case.patient for case in judged})
    cases, persons = _counted(len(judged), "case"), _counted(patients, "patient")
    parts = [
        f"Test set {trial.test}: {cases} of {persons}, of which the segmenter saw "
        f"{'the images and what follows' if trial.prompts else 'nothing but the images'}.",
        trial.prompts,
        f"Means over cases with 95 % bootstrap intervals over patients. RDice, centerlines and surfaces with a radius "
        f"of {trial.radius_mm:g} mm; RDice literal: Eq. 15 as printed, symmetric: Dice with a tolerance. clDice and "
        "centerline overlap (Schaap et al. 2009) of vessels alone. A structure that neither mask has is left out; one "
        "that only one of them has counts 0 and has no distance.",
    ]
    return " ".join(part for part in parts if part)


def _estimate(values: Sequence[float], judged: Sequence[Judged]) -> Estimate | None:
    known = np.array([[value if np.isfinite(value) else NAN for value in values]])
    return estimate(mean_interval(known, [case.patient for case in judged]))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
