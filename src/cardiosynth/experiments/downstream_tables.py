"""The downstream study in tables: means over seeds and cases, with intervals, and every arm beside the baseline."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from cardiosynth.evaluation.segmentations import RDICE_RADIUS_MM
from cardiosynth.evaluation.statistics import holm, mean_interval, paired_p_value
from cardiosynth.experiments.markdown import head, in_brackets, line, mean_of
from cardiosynth.experiments.protocols import Protocol

VESSEL = "coronary_artery"
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


MEASURES: dict[str, tuple[Value, int]] = {
    "Dice": (mean_dice, 3), "RDice": (_of_all("rdice_symmetric"), 3), "HD95, mm": (_of_all("hausdorff95_mm"), 1),
    "coronary Dice": (_of_vessel("dice"), 3), "coronary RDice": (_of_vessel("rdice_symmetric"), 3),
    "coronary clDice": (_of_vessel("cl_dice"), 3), "coronary HD95, mm": (_of_vessel("hausdorff95_mm"), 1),
}  # fmt: skip
COMPARED = ("Dice", "coronary Dice", "coronary clDice")
"""What is tested."""


def tables(
    protocol: Protocol,
    final: Mapping[str, BySeed],
    pretrained: Mapping[str, Mapping[int, Mapping[str, list[Row]]]],
    images: Mapping[str, list[Row]],
) -> str:
    """Return everything as Markdown, of the arms there are.

    Args:
        protocol: its baseline, and what a paper found.
        final: arm -> seed -> rows of the test cases.
        pretrained: pre-training -> seed -> kind of images -> rows.
        images: kind of images -> what they keep of the real ones.
    """
    counts = ", ".join(f"{name} {len(found)}" for name, found in final.items())
    parts = [
        f"Means over seeds and cases with 95 % intervals over both. Seeds: {counts or 'none yet'}. RDice: symmetric, "
        f"{RDICE_RADIUS_MM:g} mm. HD95: of structures that were found.",
        arms_table(final), structure_table(final), difference_table(final, protocol.baseline),
        pretrained_table(pretrained), image_table(images), published_table(protocol),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def over(rows: BySeed, value: Value, seeds: Iterable[int] | None = None) -> Float[np.ndarray, "seeds cases"]:
    """Return a value of every seed and case; NaN where there is nothing to measure, or no distance."""
    return np.array([[value(row) for row in rows[s]] for s in (seeds or sorted(rows))], np.float64)


def differences(final: Mapping[str, BySeed], arm: str, baseline: str, value: Value) -> Float[np.ndarray, "seeds cases"]:
    """Return by how much an arm's value is larger than the baseline's, of the same seed and case."""
    seeds = sorted(final[arm].keys() & final[baseline].keys())
    return over(final[arm], value, seeds) - over(final[baseline], value, seeds)


def arms_table(final: Mapping[str, BySeed]) -> str:
    """Return every measure of every arm."""
    lines = head("arm", *MEASURES)
    for arm, rows in final.items():
        lines.append(line(arm, *(in_brackets(mean_interval(over(rows, value)), d) for value, d in MEASURES.values())))
    return "\n".join(lines) if final else ""


def structure_table(final: Mapping[str, BySeed]) -> str:
    """Return Dice by structure."""
    if not final:
        return ""
    first = next(iter(next(iter(final.values())).values()))[0]
    names = list(first["structures"])
    lines = head("Dice", *(name.replace("_", " ") for name in names))
    for arm, rows in final.items():
        cells = (mean_interval(over(rows, lambda row, n=n: mean_of([row["structures"][n]["dice"]]))) for n in names)
        lines.append(line(arm, *(in_brackets(cell, 3) for cell in cells)))
    return "\n".join(lines)


def difference_table(final: Mapping[str, BySeed], baseline: str) -> str:
    """Return each arm less the baseline with intervals and p-values, corrected over the arms and measures together."""
    arms = [arm for arm in final if arm != baseline and final.get(baseline, {}).keys() & final[arm].keys()]
    if not arms:
        return ""
    found = {(arm, name): differences(final, arm, baseline, MEASURES[name][0]) for arm in arms for name in COMPARED}
    p_values = dict(zip(found, holm([paired_p_value(values) for values in found.values()]), strict=True))
    lines = head(f"less {baseline}", *(title for name in COMPARED for title in (name, "p")))
    for arm in arms:
        cells = (
            (in_brackets(mean_interval(found[arm, name]), 3, sign=True), f"{p_values[arm, name]:.3g}")
            for name in COMPARED
        )
        lines.append(line(arm, *(cell for pair in cells for cell in pair)))
    note = (
        "Differences are paired by seed and case. p: Wilcoxon's signed-rank test over cases, each the mean over its "
        f"seeds, after Holm for all {len(found)} tests of the table."
    )
    return "\n".join([*lines, "", note])


def pretrained_table(pretrained: Mapping[str, Mapping[int, Mapping[str, list[Row]]]]) -> str:
    """Return what pre-trained segmenters know before they see a real case, by kind of images."""
    kinds = {
        "test": "test, real", "others": "known protocols, real", "coded": "the same, coded",
        "reference": "the same, synthetic",
    }  # fmt: skip
    lines = head("before fine-tuning", *(f"{title}: {m}" for title in kinds.values() for m in ("Dice", "coronary")))
    for name, by_seed in pretrained.items():
        cells = []
        for kind in kinds:
            rows = {seed: found[kind] for seed, found in by_seed.items()}
            cells += [in_brackets(mean_interval(over(rows, MEASURES[m][0])), 3) for m in ("Dice", "coronary Dice")]
        lines.append(line(name, *cells))
    return "\n".join(lines) if pretrained else ""


def image_table(images: Mapping[str, list[Row]]) -> str:
    """Return what coded and synthetic images keep of the real ones of the same masks."""
    names = list(next(iter(images.values()))[0]["kept"])
    lines = head("contrast kept", *(name.replace("_", " ") for name in names), "PSNR, dB", "SSIM in the heart")
    for kind, rows in images.items():
        cells = [f"{mean_of(row['kept'][name] for row in rows):.2f}" for name in names]
        lines.append(
            line(
                kind, *cells, *(f"{mean_of(r[k] for r in rows):.{d}f}" for k, d in (("psnr_db", 1), ("ssim_heart", 3)))
            )
        )
    return "\n".join(lines)


def published_table(protocol: Protocol) -> str:
    """Return what the paper found with these arms, on its data; nothing where there is none."""
    lines = head("published, %", "Dice", "RDice", "coronary Dice", "coronary RDice")
    for arm, found in protocol.published.items():
        values = (found.dice, found.rdice, found.coronary_dice, found.coronary_rdice)
        lines.append(line(arm, *("-" if value is None else f"{value:.2f}" for value in values)))
    return "\n".join(lines) if protocol.published else ""
