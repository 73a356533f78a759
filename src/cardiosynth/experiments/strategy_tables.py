"""FQCDM's strategies in tables and figures: every arm, by network, and the differences that are asked for."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cardiosynth.evaluation.results import (
    BarGroup,
    BarsFigure,
    Cell,
    Column,
    Curve,
    CurvesFigure,
    Estimate,
    Figure,
    Results,
    Table,
    estimate,
)
from cardiosynth.evaluation.statistics import (
    BEYOND_CHANCE,
    Interval,
    best_beyond_chance,
    holm,
    mean_interval,
    mean_of,
    paired_p_value,
)
from cardiosynth.experiments.strategies import Network, Strategy

Row = Mapping[str, Any]
BySeed = Mapping[int, Mapping[str, Sequence[Row]]]
"""Seed of the segmenter -> ``volumes`` and ``slices``: rows in the same order everywhere."""
Arms = Mapping[str, BySeed]
DICE = Column(title="Dice", better="higher", digits=3)
NUMBER = re.compile(r"-([0-9]+)(?=$|-short)")
"""Of an arm's name: what its curve runs over."""


def strategy_results(
    strategies: Mapping[str, Strategy], found: Mapping[Network, Arms], steps: int, test: str
) -> Results:
    """Return everything that is shown, of the cells that there are.

    Args:
        strategies: by name.
        found: network -> arm -> what its segmenters were judged.
        steps: of every arm.
        test: the test data in words.
    """
    protocol = (
        f"{steps} optimizer steps in every arm, but where its name says short. Means over seeds and {test} (slices put "
        "together) with 95 % intervals over seeds and patients."
    )
    tables: list[Table | None] = []
    figures: list[Figure] = []
    for name, strategy in strategies.items():
        by_network: dict[Network, Arms] = {network: _of_strategy(arms, strategy) for network, arms in found.items()}
        for network, arms in by_network.items():
            if arms:
                title = f"{name}, {network}"
                tables.append(arms_table(title, arms, strategy.published.get(network, {}), protocol))
                tables.append(difference_table(title, arms, strategy.pairs))
        figures += _figure(name, by_network, protocol)
    return Results(
        title="Strategies", summary=protocol, figures=tuple(figures), tables=tuple(table for table in tables if table)
    )


def _of_strategy(arms: Arms, strategy: Strategy) -> Arms:
    return {arm.name: arms[arm.name] for arm in strategy.arms if arm.name in arms}


def arms_table(title: str, arms: Arms, published: Mapping[str, float], protocol: str) -> Table:
    """Return Dice of volumes and slices, by structure, and surface distances of every arm, beside what is published."""
    names = list(next(iter(next(iter(arms.values())).values()))["volumes"][0]["structures"])
    rows: list[tuple[Cell, ...]] = []
    for arm, by_seed in arms.items():
        cells = [_interval(by_seed, "volumes", "dice", names)]
        cells += [_interval(by_seed, "volumes", "dice", [name]) for name in names]
        cells += [_interval(by_seed, "volumes", "hausdorff95_mm", names), _interval(by_seed, "slices", "dice", names)]
        rows.append((arm, len(by_seed), *cells, *([published.get(arm)] if published else [])))
    titles = [DICE.model_copy(update={"title": f"Dice, {name.replace('_', ' ')}"}) for name in names]
    columns = (
        Column(title="arm"), Column(title="seeds", digits=0), DICE, *titles,
        Column(title="HD95", unit="mm", better="lower", digits=1), DICE.model_copy(update={"title": "Dice of slices"}),
        *([Column(title="published Dice", unit="%")] if published else []),
    )  # fmt: skip
    said = (
        f"{protocol} HD95: of structures that were found, in the headers' mm. Slices without a structure are in no "
        f"volume. Bold: {BEYOND_CHANCE.replace('cases', 'patients')}."
    )
    (best,) = best_beyond_chance([np.stack([by_patient(rows, names) for rows in arms.values()])])
    return Table(
        title=title, protocol=said, columns=columns, rows=tuple(rows), bars=("Dice",),
        best=() if best is None else ((best, 2),),
    )  # fmt: skip


def difference_table(title: str, arms: Arms, pairs: Sequence[tuple[str, str]]) -> Table | None:
    """Return the differences of arms, paired by seed and volume, with intervals and p-values after Holm."""
    there = [pair for pair in pairs if all(arm in arms for arm in pair) and arms[pair[0]].keys() & arms[pair[1]].keys()]
    if not there:
        return None
    compared = [difference(arms[arm], arms[baseline]) for arm, baseline in there]
    p_values = holm([p for _, p in compared])
    rows = [
        (arm, baseline, estimate(interval), f"{p:.3g}")
        for (arm, baseline), (interval, _), p in zip(there, compared, p_values, strict=True)
    ]
    protocol = (
        "Differences are paired by seed and volume; intervals draw seeds and patients. p: Wilcoxon's signed-rank test "
        f"over patients, each the mean over volumes and seeds, after Holm for the {len(there)} rows."
    )
    apart = Column(title="Dice", better="higher", digits=4, signed=True)
    columns = (Column(title="arm"), Column(title="less"), apart, Column(title="p"))
    return Table(title=f"{title}: differences", protocol=protocol, columns=columns, rows=tuple(rows))


def difference(arm: BySeed, baseline: BySeed) -> tuple[Interval, float]:
    """Return by how much Dice of volumes is larger than the baseline's, of the same seeds and volumes, and p."""
    seeds = sorted(arm.keys() & baseline.keys())
    rows = arm[seeds[0]]["volumes"]
    names, patients = list(rows[0]["structures"]), [row["patient"] for row in rows]
    one, other = (_values({seed: x[seed] for seed in seeds}, "volumes", "dice", names) for x in (arm, baseline))
    return mean_interval(one - other, patients), paired_p_value(_over_patients(one - other, patients))


def by_patient(by_seed: BySeed, names: Sequence[str]) -> Float[np.ndarray, "patients"]:
    """Return Dice of volumes, mean over structures, volumes and seeds, of every patient."""
    patients = [row["patient"] for row in next(iter(by_seed.values()))["volumes"]]
    return np.array([mean_of(x) for x in _over_patients(_values(by_seed, "volumes", "dice", names), patients).T])


def _over_patients(
    values: Float[np.ndarray, "seeds volumes"], patients: Sequence[str]
) -> Float[np.ndarray, "seeds patients"]:
    members = [[p == patient for p in patients] for patient in dict.fromkeys(patients)]
    return np.array([[mean_of(of_seed[member]) for member in members] for of_seed in values], np.float64)


# ---------------------------------------------------------------------------------------------------------------
# Figures.


def _figure(name: str, by_network: Mapping[Network, Arms], caption: str) -> list[Figure]:
    """Return the Dice of a strategy's arms: curves where they differ in numbers of slices, bars otherwise."""
    there = {network: {arm: _dice(by_seed) for arm, by_seed in arms.items()} for network, arms in by_network.items()}
    there = {network: values for network, values in there.items() if values}
    if not there:
        return []
    if any(NUMBER.search(arm) for values in there.values() for arm in values):
        curves = [curve for network, values in there.items() for curve in _curves(network, values)]
        words = {"x_title": "slices", "y_title": "Dice of volumes", "curves": tuple(curves)}
        return [CurvesFigure(title=name, caption=f"{caption} Intervals stand in the table.", **words)]
    groups = tuple(BarGroup(name=network, values=dict(values)) for network, values in there.items())
    return [BarsFigure(title=name, caption=caption, measure="Dice", groups=groups)]


def _curves(network: str, values: Mapping[str, Estimate | None]) -> list[Curve]:
    """Return a curve for all arms that differ in a number alone; one that is alone runs along all numbers."""
    points: dict[str, list[tuple[float, float]]] = {}
    for arm, cell in values.items():
        number = NUMBER.search(arm)
        if number and cell:
            points.setdefault(NUMBER.sub("", arm), []).append((float(number[1]), cell.value))
    numbers = [x for line in points.values() for x, _ in line]
    ends = (min(numbers), max(numbers))
    curves = []
    for kind, line in points.items():
        x, y = zip(*sorted(line), strict=True) if len(line) > 1 else (ends, (line[0][1],) * 2)
        title = f"{kind}, {line[0][0]:.0f} of them" if len(line) == 1 else kind
        curves.append(Curve(name=f"{network}: {title}", x=x, y=y))
    return curves


def _dice(by_seed: BySeed) -> Estimate | None:
    names = list(next(iter(by_seed.values()))["volumes"][0]["structures"])
    return _interval(by_seed, "volumes", "dice", names)


def _interval(by_seed: BySeed, of: str, key: str, names: Sequence[str]) -> Estimate | None:
    patients = [row["patient"] for row in next(iter(by_seed.values()))[of]]
    return estimate(mean_interval(_values(by_seed, of, key, names), patients))


def _values(by_seed: BySeed, of: str, key: str, names: Sequence[str]) -> Float[np.ndarray, "seeds cases"]:
    """Return the mean over structures of every seed and case; NaN where none is known."""
    rows = (
        [mean_of(row["structures"][name][key] for name in names) for row in by_seed[s][of]] for s in sorted(by_seed)
    )
    return np.array(list(rows), np.float64)
