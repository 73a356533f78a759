"""The columns of a comparison of methods: how a row's cell is read, by patient where cases can be paired, and ranks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cardiosynth.baselines.method import Method
from cardiosynth.evaluation.results import Cell, Column, Estimate, estimate
from cardiosynth.evaluation.statistics import best_beyond_chance, mean_of, mean_ranks
from cardiosynth.experiments.method_tables import agreement, kernel_distance, mean_of_pairs

Measures = Mapping[str, Any]
RANKED_SETS = ("KID x 1000", "FID")
"""Of whole sets, in which methods are ranked."""


class Row(NamedTuple):
    """What is known of one row.

    Attributes:
        method: which.
        surroundings: whether they were in its masks.
        measures: by seed, what was measured of its images.
        costs: by seed, what its training took.
    """

    method: Method
    surroundings: bool
    measures: dict[int, Measures]
    costs: dict[int, Mapping[str, Any]]

    @property
    def name(self) -> str:
        """Of its files, without a seed."""
        return self.method.name if self.surroundings else f"{self.method.name}-targets"

    @property
    def shows_masks(self) -> bool:
        """Whether its images have masks."""
        return all("pairs" in one for one in self.measures.values())

    @property
    def each(self) -> list[Measures]:
        """Of every seed."""
        return list(self.measures.values())


class Asked(NamedTuple):
    """A column, how a row's cell is read, and where there is one which value of a pair it is."""

    column: Column
    read: Callable[[Sequence[Measures]], Cell]
    key: str = ""


def columns_of(volumes: bool, real: Measures) -> list[Asked]:
    """Return what is asked of every row.

    Args:
        volumes: whether cases have three axes.
        real: what was measured of the real test cases.
    """
    pairs = _of_pairs_in_volumes() if volumes else _of_pairs_in_slices()
    return [*pairs, *_of_sets(), *_of_masks(), *([_steps(real)] if volumes else [])]


def _of_pairs_in_volumes() -> list[Asked]:
    return [
        _pair("ssim", Column(title="SSIM", better="higher", digits=3)),
        _pair("ssim_heart", Column(title="SSIM in the heart", better="higher", digits=3)),
        _pair("rmse", Column(title="RMSE in [0, 1]", better="lower", digits=4)),
    ]


def _of_pairs_in_slices() -> list[Asked]:
    return [
        _pair("psnr_db", Column(title="PSNR", unit="dB", better="higher", digits=2)),
        _pair("ms_ssim", Column(title="MS-SSIM", better="higher", digits=3)),
        _pair("ssim_heart", Column(title="SSIM in the heart", better="higher", digits=3)),
    ]


def _pair(key: str, column: Column) -> Asked:
    def read(measures: Sequence[Measures]) -> Cell:
        return estimate(mean_of_pairs(measures, key)) if "pairs" in measures[0] else None

    return Asked(column, read, key)


def _of_sets() -> list[Asked]:
    return [
        Asked(
            Column(title="KID x 1000", better="lower", digits=2), lambda ms: kernel_distance([m["sets"] for m in ms])
        ),
        Asked(Column(title="FID", better="lower", digits=3), lambda ms: mean_or_none(m["sets"]["FID"] for m in ms)),
        Asked(
            Column(title="FID, real halves", digits=3),
            lambda ms: mean_or_none(m["sets"]["FID, real halves"] for m in ms),
        ),
        Asked(
            Column(title="MS-SSIM among themselves", digits=3),
            lambda ms: mean_or_none(value for m in ms for value in m["likeness"]),
        ),
        Asked(
            Column(title="near copies", unit="%", better="lower", digits=0),
            lambda ms: mean_or_none(100 * m["copies"]["pictures"]["share"] for m in ms),
        ),
    ]


def _of_masks() -> list[Asked]:
    def dice(measures: Sequence[Measures]) -> Cell:
        return agreement(measures) if all("agreement" in one for one in measures) else None

    return [Asked(Column(title="Dice of the judges", better="higher", digits=3), dice, "dice")]


def _steps(real: Measures) -> Asked:
    among = mean_of(steps[2] for steps in real["steps"])

    def ratio(measures: Sequence[Measures]) -> Cell:
        return mean_of(steps[2] for one in measures for steps in one["steps"]) / among

    return Asked(Column(title="axial steps over real", digits=2), ratio)


def best_cells(rows: Sequence[Row], asked: Sequence[Asked], before: int) -> tuple[tuple[int, int], ...]:
    """Return the cells of those told of masks that are better than all others beyond chance; row 0 is real."""
    compared = [(index, row) for index, row in enumerate(rows) if row.shows_masks]
    columns = [(place, one) for place, one in enumerate(asked) if one.key]
    if len(compared) < 2:
        return ()
    values = [by_patient([row for _, row in compared], one) for _, one in columns]
    winners = best_beyond_chance(values)
    return tuple(
        (compared[winner][0] + 1, before + place)
        for (place, _), winner in zip(columns, winners, strict=True)
        if winner is not None
    )


def ranks(rows: Sequence[Row], asked: Sequence[Asked]) -> list[Cell]:
    """Return the mean rank of every row over similarity, Dice, KID and FID; without masks, over the last two."""
    criteria = [by_patient(rows, one) for one in asked if one.key]
    sets = [one for one in asked if one.column.title in RANKED_SETS]
    criteria += [-np.array([[_number(one.read(row.each))] for row in rows]) for one in sets]
    return [estimate(found) for found in mean_ranks(criteria)]


def _number(cell: Cell) -> float:
    """Return the number of a cell; NaN where there is none."""
    value = cell.value if isinstance(cell, Estimate) else cell
    return float(value) if isinstance(value, float | int) else float("nan")


def by_patient(rows: Sequence[Row], asked: Asked) -> Float[np.ndarray, "arms patients"]:
    """Return the mean of a value over the cases and seeds of every patient, NaN without masks; higher is better."""
    found: list[dict[str, list[float]]] = []
    for row in rows:
        of_patient: dict[str, list[float]] = {}
        for one in row.each if row.shows_masks else ():
            for case in one["agreement"] if asked.key == "dice" else one["pairs"]:
                value = mean_of(case["dice"].values()) if asked.key == "dice" else mean_of([case[asked.key]])
                of_patient.setdefault(case["patient"], []).append(value)
        found.append(of_patient)
    sign = -1.0 if asked.column.better == "lower" else 1.0
    patients = sorted(set().union(*found)) or [""]
    return sign * np.array([[mean_of(each.get(patient, ())) for patient in patients] for each in found], np.float64)


def mean_or_none(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is known; None where nothing is."""
    found = mean_of(values)
    return None if np.isnan(found) else float(found)
