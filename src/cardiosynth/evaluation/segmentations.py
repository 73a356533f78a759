"""Segmentations against the truth: several arms (ways to train a segmenter) on the same cases."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage

from cardiosynth.core.case import Case
from cardiosynth.core.labels import Label, LabelTable
from cardiosynth.evaluation.results import Arm, ArmsFigure, Cell, Column, Table, spread
from cardiosynth.evaluation.statistics import BEYOND_CHANCE, best_beyond_chance
from cardiosynth.metrics.overlap import dice, rdice_literal, rdice_symmetric
from cardiosynth.metrics.surface import hausdorff95, surface_dice
from cardiosynth.metrics.topology import centerline_overlap, cl_dice, components, connectivity_error

NAN = float("nan")
RDICE_RADIUS_MM = 1.5
"""Tolerance of RDice, which the paper does not give: one voxel at 1.25 mm, three voxels of ImageCAS."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One structure of one segmentation beside the truth. NaN is 'nothing to measure', as in ``metrics``.

    Attributes:
        dice: Eq. 14, in [0, 1].
        rdice_literal: Eq. 15 as printed; NaN where the voxel size is not known.
        rdice_symmetric: Dice with a tolerance; NaN where the voxel size is not known.
        cl_dice: centerline Dice of a vessel; NaN for other structures, whose skeleton is no line to follow.
        centerline_overlap: share of both centerlines of a vessel that lie within the tolerance of the other; NaN for
            other structures, or where the voxel size is not known.
        surface_dice: share of both surfaces within the tolerance of the other; NaN where the voxel size is not known.
        hausdorff95_mm: infinite where only one of both has the structure; NaN where the voxel size is not known.
        pieces: connected pieces of the segmentation.
        largest: share of its largest piece; NaN where it is empty.
        missed: share of the true structure that the segmentation's main pieces do not reach.
        true_pieces: connected pieces of the truth.
        true_largest: share of the largest piece of the truth; NaN where it is empty.
    """

    dice: float
    rdice_literal: float = NAN
    rdice_symmetric: float = NAN
    cl_dice: float = NAN
    centerline_overlap: float = NAN
    surface_dice: float = NAN
    hausdorff95_mm: float = NAN
    pieces: int
    largest: float
    missed: float
    true_pieces: int
    true_largest: float


def compare_segmentation(
    predicted: UInt8[np.ndarray, "1 *grid"], truth: Case, radius_mm: float = RDICE_RADIUS_MM
) -> dict[str, Agreement]:
    """Return, by name, how well each target structure of ``truth`` is segmented.

    Args:
        predicted: codes of the label table of ``truth``, on its grid.
        truth: a case with its mask.
        radius_mm: tolerance of RDice, of surfaces and of centerlines.
    """
    mask = truth.required_mask()[0]
    return {
        label.name: _agreement(predicted[0] == label.code, mask == label.code, truth.spacing_mm, label, radius_mm)
        for label in truth.labels.targets
    }


def _agreement(
    p: np.ndarray, q: np.ndarray, spacing_mm: Sequence[float] | None, label: Label, radius_mm: float
) -> Agreement:
    p, q = _without_margin(p, q)
    found, true = components(p).sizes, components(q).sizes
    expected = label.components or max(1, len(true))
    in_mm = {}
    if spacing_mm is not None:
        in_mm = {
            "rdice_literal": rdice_literal(p, q, radius_mm, spacing_mm),
            "rdice_symmetric": rdice_symmetric(p, q, radius_mm, spacing_mm),
            "surface_dice": surface_dice(p, q, radius_mm, spacing_mm),
            "hausdorff95_mm": hausdorff95(p, q, spacing_mm),
            "centerline_overlap": centerline_overlap(p, q, radius_mm, spacing_mm) if label.is_vessel else NAN,
        }
    return Agreement(
        dice=dice(p, q), **in_mm, cl_dice=cl_dice(p, q) if label.is_vessel else NAN,
        pieces=len(found), largest=_first_share(found), missed=connectivity_error(p, q, expected),
        true_pieces=len(true), true_largest=_first_share(true),
    )  # fmt: skip


def _without_margin(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both masks cut to the box that holds them: no measure depends on what lies outside, all cost less."""
    (box,) = ndimage.find_objects((p | q).astype(np.uint8)) or [None]
    return (p, q) if box is None else (p[box], q[box])


Arms = Mapping[str, Sequence[Mapping[str, Agreement]]]
"""Arm -> for every test case, structure -> agreement; the cases in the same order in every arm."""


def arms_figure(arms: Arms, labels: LabelTable, protocol: str) -> ArmsFigure:
    """Return Dice per structure, arm and case, to be drawn."""
    names = [label.name for label in labels.targets]
    shown = [
        Arm(name=arm, values={name: tuple(finite(case[name].dice) for case in cases) for name in names})
        for arm, cases in arms.items()
    ]
    return ArmsFigure(title="Segmentation: Dice per structure", caption=protocol, measure="Dice", arms=tuple(shown))


def dice_table(arms: Arms, labels: LabelTable, protocol: str) -> Table:
    """Return Dice per structure and arm, and the mean over structures of each case."""
    columns = (Column(title="structure"), *(Column(title=arm, better="higher", digits=3) for arm in arms))
    rows = _rows(arms, labels, lambda a: a.dice)
    text = f"Dice (Eq. 14); a structure that a case does not have is left out. {_count(arms)}{_tested(arms)} {protocol}"
    best = _best(arms, labels, lambda a: a.dice)
    return Table(title="Segmentation: Dice", protocol=text, columns=columns, rows=tuple(rows), best=best)


def distance_table(arms: Arms, labels: LabelTable, protocol: str) -> Table:
    """Return HD95 per structure and arm; n says in how many cases there was a distance."""
    columns = (Column(title="structure"), *(Column(title=arm, unit="mm", better="lower", digits=1) for arm in arms))
    rows = _rows(arms, labels, lambda a: a.hausdorff95_mm)[:-1]
    text = (
        "95 % Hausdorff distance of the surfaces; cases in which a structure was missed entirely have no distance and "
        f"are left out: look at n. {_count(arms)}{_tested(arms)} {protocol}"
    )
    best = tuple(mark for mark in _best(arms, labels, lambda a: -a.hausdorff95_mm) if mark[0] < len(rows))
    title = "Segmentation: surface distance (HD95)"
    return Table(title=title, protocol=text, columns=columns, rows=tuple(rows), best=best)


def connectivity_table(arms: Arms, label: Label, protocol: str) -> Table:
    """Return for one structure (the coronary arteries) how connected each arm's segmentations are."""
    columns = (
        Column(title="masks"), Column(title="Dice", better="higher", digits=3),
        Column(title="RDice, literal", better="higher", digits=3),
        Column(title="RDice, symmetric", better="higher", digits=3),
        Column(title="clDice", better="higher", digits=3),
        Column(title="centerline overlap", better="higher", digits=3),
        Column(title="pieces", digits=1), Column(title="largest piece", unit="%", digits=1),
        Column(title="missed", unit="%", better="lower", digits=1),
    )  # fmt: skip
    readers: tuple[Callable[[Agreement], float], ...] = (
        lambda a: a.dice, lambda a: a.rdice_literal, lambda a: a.rdice_symmetric, lambda a: a.cl_dice,
        lambda a: a.centerline_overlap, lambda a: float(a.pieces), lambda a: 100 * a.largest, lambda a: 100 * a.missed,
    )  # fmt: skip
    first = next(iter(arms.values()))
    pieces = spread(float(case[label.name].true_pieces) for case in first)
    largest = spread(100 * case[label.name].true_largest for case in first)
    rows: list[tuple[Cell, ...]] = [("truth", *(None,) * 5, pieces, largest, None)]
    rows += [
        (arm, *(spread(read(case[label.name]) for case in cases) for read in readers)) for arm, cases in arms.items()
    ]
    main = f"{label.components} largest pieces" if label.components else "largest pieces, as many as the truth has"
    text = (
        f"{label.title.capitalize()} in the segmentations. Missed: share of the true vessel that the segmentation's "
        f"{main}, one voxel wider, do not reach. RDice and centerlines with a tolerance of {RDICE_RADIUS_MM:g} mm; "
        f"literal is Eq. 15 as printed, which gives no credit for near misses. {_count(arms)} {protocol}"
    )
    return Table(title=f"Connectivity: {label.title}", protocol=text, columns=columns, rows=tuple(rows))


def _rows(arms: Arms, labels: LabelTable, read: Callable[[Agreement], float]) -> list[tuple[Cell, ...]]:
    """Return one row per structure and the row of the mean over structures."""
    rows: list[tuple[Cell, ...]] = [
        (label.title, *(spread(read(case[label.name]) for case in cases) for cases in arms.values()))
        for label in labels.targets
    ]
    means = (spread(finite_mean(read(a) for a in case.values()) for case in cases) for cases in arms.values())
    return [*rows, ("mean over structures", *means)]


def _best(arms: Arms, labels: LabelTable, read: Callable[[Agreement], float]) -> tuple[tuple[int, int], ...]:
    """Return (row, column) of the arms that are best beyond chance, in the rows of :func:`_rows`; higher is better."""
    known = [[_known(read(case[label.name])) for case in cases] for label in labels.targets for cases in arms.values()]
    by_row = np.array(known).reshape(len(labels.targets), len(arms), -1)
    means = np.array([[finite_mean(map(read, case.values())) for case in cases] for cases in arms.values()])
    found = best_beyond_chance([*by_row, means])
    return tuple((row, 1 + arm) for row, arm in enumerate(found) if arm is not None)


def _known(value: float) -> float:
    return value if np.isfinite(value) else NAN


def _tested(arms: Arms) -> str:
    return f" Bold: {BEYOND_CHANCE}." if len(arms) > 1 else ""


def finite_mean(values: Iterable[float]) -> float:
    """Return the mean of the finite values; NaN where there is none."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else NAN


def _first_share(sizes: np.ndarray) -> float:
    """Return the share of the first of ``sizes``, NaN where there is none."""
    return float(sizes[0] / sizes.sum()) if len(sizes) else NAN


def finite(value: float) -> float | None:
    """Return the value; None where it is NaN or infinite."""
    return value if np.isfinite(value) else None


def _count(arms: Arms) -> str:
    count = len(next(iter(arms.values())))
    return f"Mean ± standard deviation over {count} test {'case' if count == 1 else 'cases'}."
