"""FQCDM's strategies in tables: every arm, by network, and the differences that are asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cardiosynth.evaluation.statistics import Interval, holm, mean_interval, paired_p_value
from cardiosynth.experiments.markdown import head, in_brackets, line, mean_of
from cardiosynth.experiments.strategies import Network, Strategy

Row = Mapping[str, Any]
BySeed = Mapping[int, Mapping[str, Sequence[Row]]]
"""Seed of the segmenter -> ``volumes`` and ``slices``: rows in the same order everywhere."""


def tables(strategies: Mapping[str, Strategy], found: Mapping[Network, Mapping[str, BySeed]], steps: int) -> str:
    """Return everything as Markdown, of the cells that there are.

    Args:
        strategies: by name.
        found: network -> arm -> what its segmenters were judged.
        steps: of every arm.
    """
    parts = [
        f"{steps} optimizer steps in every arm. Means over seeds and test volumes (slices put together) with 95 % "
        "bootstrap intervals over seeds and patients. HD95: of structures that were found, in the headers' mm. Slices "
        "without a structure are in no volume."
    ]
    for name, strategy in strategies.items():
        for network, arms in found.items():
            there = {arm.name: arms[arm.name] for arm in strategy.arms if arm.name in arms}
            if there:
                parts += [f"## {name}, {network}", arms_table(there, strategy.published.get(network, {}))]
                parts += [difference_table(there, strategy.pairs)]
    return "\n\n".join(part for part in parts if part) + "\n"


def arms_table(arms: Mapping[str, BySeed], published: Mapping[str, float]) -> str:
    """Return Dice of volumes and slices, by structure, and surface distances of every arm, beside what is published."""
    first = next(iter(next(iter(arms.values())).values()))["volumes"][0]
    names, extra = list(first["structures"]), ["published Dice, %"] if published else []
    titles = [name.replace("_", " ") for name in names]
    lines = head("arm", "seeds", "Dice", *titles, "HD95, mm", "Dice of slices", *extra)
    for arm, by_seed in arms.items():
        cells = [_interval(by_seed, "volumes", "dice", names, 3)]
        cells += [_interval(by_seed, "volumes", "dice", [name], 3) for name in names]
        cells += [
            _interval(by_seed, "volumes", "hausdorff95_mm", names, 1),
            _interval(by_seed, "slices", "dice", names, 3),
        ]
        cells += [f"{published[arm]:.2f}" if arm in published else "-"] if published else []
        lines.append(line(arm, str(len(by_seed)), *cells))
    return "\n".join(lines)


def difference_table(arms: Mapping[str, BySeed], pairs: Sequence[tuple[str, str]]) -> str:
    """Return the differences of arms, paired by seed and volume, with intervals and p-values after Holm."""
    there = [pair for pair in pairs if all(arm in arms for arm in pair) and arms[pair[0]].keys() & arms[pair[1]].keys()]
    if not there:
        return ""
    compared = [difference(arms[arm], arms[baseline]) for arm, baseline in there]
    p_values = holm([p for _, p in compared])
    lines = head("arm", "less", "Dice", "p")
    for (arm, baseline), (interval, _), p in zip(there, compared, p_values, strict=True):
        lines.append(line(arm, baseline, in_brackets(interval, 4, sign=True), f"{p:.3g}"))
    note = (
        "Differences are paired by seed and volume; intervals draw seeds and patients. p: Wilcoxon's signed-rank test "
        f"over patients, each the mean over volumes and seeds, after Holm for the {len(there)} rows."
    )
    return "\n".join([*lines, "", note])


def difference(arm: BySeed, baseline: BySeed) -> tuple[Interval, float]:
    """Return by how much Dice of volumes is larger than the baseline's, of the same seeds and volumes, and p."""
    seeds = sorted(arm.keys() & baseline.keys())
    rows = arm[seeds[0]]["volumes"]
    names, patients = list(rows[0]["structures"]), [row["patient"] for row in rows]
    one, other = (_values({seed: x[seed] for seed in seeds}, "volumes", "dice", names) for x in (arm, baseline))
    by_patient = [
        np.nanmean((one - other)[:, [p == patient for p in patients]], axis=1) for patient in dict.fromkeys(patients)
    ]
    return mean_interval(one - other, patients), paired_p_value(np.stack(by_patient, axis=1))


def _interval(by_seed: BySeed, of: str, key: str, names: Sequence[str], digits: int) -> str:
    patients = [row["patient"] for row in next(iter(by_seed.values()))[of]]
    return in_brackets(mean_interval(_values(by_seed, of, key, names), patients), digits)


def _values(by_seed: BySeed, of: str, key: str, names: Sequence[str]) -> Float[np.ndarray, "seeds cases"]:
    """Return the mean over structures of every seed and case; NaN where none is known."""
    rows = (
        [mean_of(row["structures"][name][key] for name in names) for row in by_seed[s][of]] for s in sorted(by_seed)
    )
    return np.array(list(rows), np.float64)
