"""The downstream study in tables: means over seeds and cases, with intervals, and every arm beside the baseline."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from cardiosynth.evaluation.results import (
    BarGroup,
    BarsFigure,
    Cell,
    Column,
    Estimate,
    Figure,
    Results,
    Table,
    estimate,
)
from cardiosynth.evaluation.segmentations import RDICE_RADIUS_MM
from cardiosynth.evaluation.statistics import (
    BEYOND_CHANCE,
    best_beyond_chance,
    holm,
    mean_interval,
    mean_of,
    mean_over_seeds,
    paired_p_value,
)
from cardiosynth.experiments.protocols import Protocol

VESSEL = "coronary_artery"
MOST_BARS = 8
"""Arms of which a chart can be read."""
Row = Mapping[str, Any]
BySeed = Mapping[int, list[Row]]
"""Seed of the segmenter -> a row per case, in the same order everywhere: ``case`` and ``structures``."""
Value = Callable[[Row], float]


def mean_dice(row: Row) -> float:
    """Return Dice, mean over the structures that there are."""
    return mean_of(agreement["dice"] for agreement in row["structures"].values())


def _of_all(key: str) -> Value:
    return lambda row: mean_of(agreement[key] for agreement in row["structures"].values())


def _of_vessel(key: str) -> Value:
    return lambda row: mean_of([row["structures"][VESSEL][key]])


def _column(title: str, unit: str = "") -> Column:
    return Column(title=title, unit=unit, better="lower" if unit else "higher", digits=1 if unit else 3)


MEASURES: dict[str, tuple[Value, Column]] = {
    column.title: (value, column)
    for value, column in (
        (mean_dice, _column("Dice")), (_of_all("rdice_symmetric"), _column("RDice")),
        (_of_all("hausdorff95_mm"), _column("HD95", "mm")),
        (_of_vessel("dice"), _column("coronary Dice")), (_of_vessel("rdice_symmetric"), _column("coronary RDice")),
        (_of_vessel("cl_dice"), _column("coronary clDice")),
        (_of_vessel("hausdorff95_mm"), _column("coronary HD95", "mm")),
    )
}  # fmt: skip
PUBLISHED = {"dice": "Dice", "rdice": "RDice", "coronary_dice": "coronary Dice", "coronary_rdice": "coronary RDice"}
COMPARED = ("Dice", "coronary Dice", "coronary clDice")
"""What is tested."""
KINDS = {
    "test": "test, real", "others": "known protocols, real", "coded": "the same, coded",
    "reference": "the same, synthetic",
}  # fmt: skip
"""Images that pre-trained segmenters are judged on."""


@dataclass(frozen=True)
class Findings:
    """What a study has measured so far.

    Attributes:
        protocol: its baseline, and what a paper found.
        steps: of every arm.
        final: arm -> seed -> rows of the test cases.
        pretrained: pre-training -> seed -> kind of images -> rows.
        images: kind of images -> what they keep of the real ones.
    """

    protocol: Protocol
    steps: int
    final: Mapping[str, BySeed]
    pretrained: Mapping[str, Mapping[int, Mapping[str, list[Row]]]]
    images: Mapping[str, list[Row]]

    def results(self) -> Results:
        """Return everything that is shown, of the arms there are."""
        tables: list[Table | None] = [image_table(self.images)]
        if self.pretrained:
            tables.insert(0, pretrained_table(self.pretrained))
        if self.final:
            tables = [arms_table(self), structure_table(self), difference_table(self), *tables]
        missing = [arm.name for arm in self.protocol.arms if arm.name not in self.final]
        notes = (f"Not run yet: {', '.join(missing)}.",) if missing else ()
        return Results(
            title="Downstream", summary=self.said(), notes=notes, figures=figures(self.final) if self.final else (),
            tables=tuple(table for table in tables if table),
        )  # fmt: skip

    def said(self) -> str:
        """Return what every number rests on."""
        counts = ", ".join(f"{name} {len(found)}" for name, found in self.final.items()) or "none yet"
        cases = len(next(iter(next(iter(self.final.values())).values()))) if self.final else self.protocol.test
        return (
            f"Every arm takes {self.steps} optimizer steps, but where its name says short. Means over seeds and "
            f"{cases} test cases with 95 % intervals over both. Seeds: {counts}."
        )


def over(rows: BySeed, value: Value, seeds: Iterable[int] | None = None) -> Float[np.ndarray, "seeds cases"]:
    """Return a value of every seed and case; NaN where there is nothing to measure, or no distance."""
    return np.array([[value(row) for row in rows[s]] for s in (seeds or sorted(rows))], np.float64)


def differences(final: Mapping[str, BySeed], arm: str, baseline: str, value: Value) -> Float[np.ndarray, "seeds cases"]:
    """Return by how much an arm's value is larger than the baseline's, of the same seed and case."""
    seeds = sorted(final[arm].keys() & final[baseline].keys())
    return over(final[arm], value, seeds) - over(final[baseline], value, seeds)


def arms_table(found: Findings) -> Table:
    """Return every measure of every arm, beside what the paper found; the best is marked where chance is ruled out."""
    told = [key for key in PUBLISHED if any(getattr(x, key) is not None for x in found.protocol.published.values())]
    rows: list[tuple[Cell, ...]] = []
    for arm, by_seed in found.final.items():
        cells = (_mean(by_seed, value) for value, _ in MEASURES.values())
        rows.append((arm, len(by_seed), *cells, *(_published(found.protocol, arm, key) for key in told)))
    columns = (
        Column(title="arm"), Column(title="seeds", digits=0), *(column for _, column in MEASURES.values()),
        *(Column(title=f"published {PUBLISHED[key]}", unit="%") for key in told),
    )  # fmt: skip
    protocol = (
        f"{found.said()} RDice: symmetric, {RDICE_RADIUS_MM:g} mm. HD95: of structures that were found. "
        f"{'Published numbers are of other patients. ' if told else ''}Bold: {BEYOND_CHANCE}."
    )
    return Table(
        title="What each arm finds", protocol=protocol, columns=columns, rows=tuple(rows), best=_best(found.final),
        bars=("Dice",),
    )  # fmt: skip


def _best(final: Mapping[str, BySeed]) -> tuple[tuple[int, int], ...]:
    """Return (row, column) of the arms that are best beyond chance in a measure."""
    signs = [-1.0 if column.better == "lower" else 1.0 for _, column in MEASURES.values()]
    values = [
        np.stack([sign * mean_over_seeds(over(rows, value)) for rows in final.values()])
        for sign, (value, _) in zip(signs, MEASURES.values(), strict=True)
    ]
    return tuple((arm, 2 + at) for at, arm in enumerate(best_beyond_chance(values)) if arm is not None)


def _published(protocol: Protocol, arm: str, key: str) -> float | None:
    return getattr(protocol.published[arm], key) if arm in protocol.published else None


def structure_table(found: Findings) -> Table:
    """Return Dice by structure."""
    names = list(next(iter(next(iter(found.final.values())).values()))[0]["structures"])
    rows = [
        (arm, *(_mean(by_seed, lambda row, n=n: mean_of([row["structures"][n]["dice"]])) for n in names))
        for arm, by_seed in found.final.items()
    ]
    columns = (Column(title="arm"), *(_column(name.replace("_", " ")) for name in names))
    return Table(title="Dice by structure", protocol=found.said(), columns=columns, rows=tuple(rows))


def difference_table(found: Findings) -> Table | None:
    """Return each arm less the baseline with intervals and p-values, corrected over the arms and measures together."""
    final, baseline = found.final, found.protocol.baseline
    arms = [arm for arm in final if arm != baseline and final.get(baseline, {}).keys() & final[arm].keys()]
    if not arms:
        return None
    apart = {(arm, name): differences(final, arm, baseline, MEASURES[name][0]) for arm in arms for name in COMPARED}
    p_values = dict(zip(apart, holm([paired_p_value(values) for values in apart.values()]), strict=True))
    rows = [
        (arm, *(c for n in COMPARED for c in (estimate(mean_interval(apart[arm, n])), f"{p_values[arm, n]:.3g}")))
        for arm in arms
    ]
    columns = [_column(name).model_copy(update={"signed": True}) for name in COMPARED]
    protocol = (
        f"{found.said()} Differences are paired by seed and case. p: Wilcoxon's signed-rank test over cases, each the "
        f"mean over its seeds, after Holm for all {len(apart)} tests of the table."
    )
    titles = (x for column in columns for x in (column, Column(title=f"p, {column.title}")))
    return Table(
        title=f"Each arm less {baseline}", protocol=protocol, columns=(Column(title="arm"), *titles), rows=tuple(rows)
    )


def pretrained_table(pretrained: Mapping[str, Mapping[int, Mapping[str, list[Row]]]]) -> Table:
    """Return what pre-trained segmenters know before they see a real case, by kind of images."""
    measures = ("Dice", "coronary Dice")
    rows: list[tuple[Cell, ...]] = []
    for name, by_seed in pretrained.items():
        kinds = [{seed: found[kind] for seed, found in by_seed.items()} for kind in KINDS]
        rows.append((name, *(_mean(of_kind, MEASURES[m][0]) for of_kind in kinds for m in measures)))
    columns = (Column(title="pre-training"), *(_column(f"{title}: {m}") for title in KINDS.values() for m in measures))
    protocol = "Pre-trained alone, no real case seen. Means over seeds and cases with 95 % intervals over both."
    return Table(title="Before fine-tuning", protocol=protocol, columns=columns, rows=tuple(rows))


def image_table(images: Mapping[str, list[Row]]) -> Table:
    """Return what coded and synthetic images keep of the real ones of the same masks."""
    names = list(next(iter(images.values()))[0]["kept"])
    rows = [
        (
            kind,
            *(_over_cases(row["kept"][name] for row in rows) for name in names),
            *(_over_cases(row[key] for row in rows) for key in ("psnr_db", "ssim_heart")),
        )
        for kind, rows in images.items()
    ]
    columns = (
        Column(title="images"), *(Column(title=name.replace("_", " ")) for name in names),
        Column(title="PSNR", unit="dB", better="higher", digits=1),
        Column(title="SSIM in the heart", better="higher", digits=3),
    )  # fmt: skip
    count = len(next(iter(images.values())))
    protocol = (
        f"Share of each structure's contrast that is kept, of {count} other patients whose own masks were used: images "
        "encoded and decoded (coded) and synthesized (reference). Means with 95 % intervals over cases."
    )
    return Table(title="What the images keep of the real ones", protocol=protocol, columns=columns, rows=tuple(rows))


def figures(final: Mapping[str, BySeed]) -> tuple[Figure, ...]:
    """Return the measures that are compared as bars (FCaS Fig. 6), where there are few enough arms to be read."""
    if len(final) > MOST_BARS:
        return ()
    groups = [
        BarGroup(name=name, values={arm: _mean(rows, MEASURES[name][0]) for arm, rows in final.items()})
        for name in COMPARED
    ]
    caption = "Means over seeds and test cases. RDice and distances stand in the tables."
    return (BarsFigure(title="Dice of every arm", caption=caption, measure="Dice", groups=tuple(groups)),)


def _mean(rows: BySeed, value: Value) -> Estimate | None:
    return estimate(mean_interval(over(rows, value)))


def _over_cases(values: Iterable[float | None]) -> Estimate | None:
    return estimate(mean_interval(np.array([[np.nan if value is None else value for value in values]], np.float64)))
