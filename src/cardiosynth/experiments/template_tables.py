"""The study of templates in tables: means over seeds and cases, with intervals over seeds and protocols."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.evaluation.statistics import Interval, mean_interval, ratio_interval
from cardiosynth.experiments.markdown import head, in_brackets, line, mean_of

Row = dict[str, Any]
Rows = dict[tuple[str, int], list[Row]]
"""(kind, seed) -> a row per test case and choice of template."""
Value = Callable[[Row], float]

BLOOD = ("ascending_aorta", "left_atrium", "left_ventricle", "right_atrium", "right_ventricle", "pulmonary_artery")
LARGE = (*BLOOD, "left_ventricular_myocardium")
"""Structures whose mean means something at these voxels: all targets but the coronary arteries."""
TARGETS = tuple(label.name for label in CARDIAC_CT.targets)
ARMS = {
    ("mask", "none"): "mask only",
    ("template", "same"): "template, same protocol", ("template", "other"): "template, another protocol",
    ("painted", "same"): "painted, same protocol", ("painted", "other"): "painted, another protocol",
}  # fmt: skip


def tables(rows: Rows, originals: dict[str, list[Row]]) -> str:
    """Return everything as Markdown, of the models there are.

    Args:
        rows: as ``measure`` of the study makes them.
        originals: ``ceiling`` and ``independent``, as ``originals`` of the study makes them.
    """
    ceiling, independent = originals["ceiling"], originals["independent"]
    counts = ", ".join(f"{kind} {len(seeds_of(rows, kind))}" for kind in ("mask", "template", "painted"))
    protocols = {row["protocol"] for row in ceiling}
    parts = [
        f"{len(ceiling)} test cases of {len(protocols)} protocols; seeds: {counts}.",
        likeness_table(rows, ceiling), structure_table(rows, ceiling), slope_table(rows),
        copies_table(rows, independent), goals(rows),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


# ---------------------------------------------------------------------------------------------------------------
# Values of a row, and over rows.


def hu_error(row: Row) -> float:
    """Return the mean over the large structures of |mean synthetic - mean real|, in HU."""
    return float(np.mean([abs(row["error_hu"][name]) for name in LARGE]))


def nearer_in_heart(row: Row) -> float:
    """Return 1 where the image is nearer to its template than to its target, voxel by voxel in the heart; else 0."""
    return float(row["copies"]["heart_template"] < row["copies"]["heart_target"])


def nearer_by_texture(row: Row) -> float:
    """Return 1 where the image's texture is more like its template's than its target's; else 0."""
    return float(row["copies"]["texture_template"] > row["copies"]["texture_target"])


def nearer_than_others(row: Row) -> float:
    """Return the share of others of the template's protocol that the image's texture is less like than its template's.

    Which of them was the template is arbitrary, so an image that has nothing of it but the protocol gives 1/2 on
    average, whatever textures of one protocol have in common.
    """
    return row["copies"]["nearer_than_others"]


def seeds_of(rows: Rows, kind: str) -> list[int]:
    """Return the seeds of a kind that are measured."""
    return sorted(seed for known, seed in rows if known == kind)


def over(
    rows: Rows, kind: str, choice: str, value: Value, seeds: Sequence[int] | None = None
) -> Float[np.ndarray, "seeds cases"]:
    """Return a value of every seed and case, cases in the order of the test."""
    seeds = seeds_of(rows, kind) if seeds is None else seeds
    return np.array([[value(row) for row in rows[kind, seed] if row["choice"] == choice] for seed in seeds], np.float64)


def interval(rows: Rows, arm: tuple[str, str], value: Value) -> Interval:
    """Return the mean of a value, with its interval over seeds and protocols."""
    return mean_interval(over(rows, *arm, value), groups=_protocols(rows))


def gain_over_mask(rows: Rows, arm: tuple[str, str], value: Value, seed: int | None = None) -> Interval | None:
    """Return by how much a value is lower than from masks alone, paired by seed and case; of one seed, or of all.

    None without a seed that both have.
    """
    seeds = [s for s in seeds_of(rows, "mask") if s in seeds_of(rows, arm[0]) and seed in (None, s)]
    if not seeds or arm[0] == "mask":
        return None
    differences = over(rows, "mask", "none", value, seeds) - over(rows, *arm, value, seeds)
    return mean_interval(differences, groups=_protocols(rows))


def follow_slope(rows: Rows, kind: str, names: Sequence[str]) -> Interval:
    """Return the change of synthetic HU over the change of template HU when the template is swapped.

    The slope of the least-squares line through the origin over masks and structures: the two images of a mask differ in
    nothing but the template, of the same protocol or of another.
    """

    def change(key: str, name: str) -> np.ndarray:
        other, same = (over(rows, kind, choice, lambda row: row[key][name]) for choice in ("other", "same"))
        return other - same

    made, told = (np.stack([change(key, n) for n in names], -1) for key in ("means_hu", "template_means_hu"))
    return ratio_interval((made * told).sum(-1), (told * told).sum(-1), _protocols(rows))


def _protocols(rows: Rows) -> list[str]:
    found = next(iter(rows.values()))
    return [row["protocol"] for row in found if row["choice"] == found[0]["choice"]]


# ---------------------------------------------------------------------------------------------------------------
# Tables.


def likeness_table(rows: Rows, ceiling: list[Row]) -> str:
    """Return how like the images are to the real ones of their masks, and the gain in HU over masks alone."""
    measures: dict[str, tuple[Value, int]] = {
        "SSIM in the heart": (lambda r: r["ssim_heart"], 3), "RMSE in the heart, HU": (lambda r: r["rmse_heart_hu"], 0),
        "coronary contrast kept": (lambda r: r["contrast_kept"], 2),
    }  # fmt: skip
    lines = head("told", "HU error", "less than mask only", *measures)
    for arm, title in _present(rows):
        cells = [in_brackets(interval(rows, arm, hu_error), 1), in_brackets(gain_over_mask(rows, arm, hu_error), 1)]
        lines.append(line(title, *cells, *(in_brackets(interval(rows, arm, v), d) for v, d in measures.values())))
    cells = [f"{mean_of(map(value, ceiling)):.{digits}f}" for value, digits in measures.values()]
    lines.append(line("autoencoder alone", f"{mean_of(map(hu_error, ceiling)):.1f}", "-", *cells))
    return "\n".join(lines)


def structure_table(rows: Rows, ceiling: list[Row]) -> str:
    """Return the HU error by structure, beside how far the templates' own means are from the targets'."""
    lines = head("HU error", *map(_title, TARGETS))
    for arm, title in _present(rows):
        cells = [in_brackets(interval(rows, arm, lambda r, n=name: abs(r["error_hu"][n])), 0) for name in TARGETS]
        lines.append(line(title, *cells))
    lines.append(
        line("autoencoder alone", *(f"{mean_of(abs(r['error_hu'][n]) for r in ceiling):.0f}" for n in TARGETS))
    )
    truth = {row["case"]: row["means_hu"] for row in ceiling}
    shown = next((found for (kind, _), found in rows.items() if kind != "mask"), [])
    for choice, title in (("same", "means of the template, same protocol"), ("other", "of another protocol")):
        means = [(truth[row["case"]], row["template_means_hu"]) for row in shown if row["choice"] == choice]
        if means:
            lines.append(line(title, *(f"{mean_of(abs(a[n] - b[n]) for a, b in means):.0f}" for n in TARGETS)))
    return "\n".join(lines)


def slope_table(rows: Rows) -> str:
    """Return the follow slopes, pooled over blood pools and by structure; nothing where no model is told templates."""
    lines = head("follow slope", "blood pools", *map(_title, TARGETS))
    for kind in _told_templates(rows):
        pools = (BLOOD, *((name,) for name in TARGETS))
        lines.append(line(kind, *(in_brackets(follow_slope(rows, kind, names), 2) for names in pools)))
    return "\n".join(lines) if len(lines) > 2 else ""


def copies_table(rows: Rows, independent: list[Row]) -> str:
    """Return how often images are nearer to their template, beside real images that nobody made from it."""
    flags = (nearer_in_heart, nearer_by_texture, nearer_than_others)
    lines = head(
        "share nearer to the template", "than to the target, HU in the heart", "than to the target, texture",
        "than to others, texture", "correlation of texture: template", "target", "others",
    )  # fmt: skip
    for arm, title in _present(rows):
        cells = [in_brackets(interval(rows, arm, flag), 2) for flag in flags]
        alike = [
            interval(rows, arm, lambda r, n=n: r["copies"][f"texture_{n}"]) for n in ("template", "target", "others")
        ]
        lines.append(line(title, *cells, *(in_brackets(found, 3) for found in alike)))
    for choice, title in (("same", "a real image, same protocol"), ("other", "a real image, another protocol")):
        chosen = [row for row in independent if row["choice"] == choice]
        cells = [f"{mean_of(map(flag, chosen)):.2f}" for flag in flags[:2]]
        alike = [f"{mean_of(row['copies'][f'texture_{n}'] for row in chosen):.3f}" for n in ("template", "target")]
        lines.append(line(title, *cells, "-", *alike, "-"))
    return "\n".join(lines)


def goals(rows: Rows) -> str:
    """Return what was aimed at and whether it was reached, by kind; differences by seed too.

    Chance for copies is 1/2, and what models score that were told no template: with few patients both vary alike.
    """
    aims = (
        ("HU error", hu_error, 1, lambda found: found.low > 0),
        ("share nearer to the template than to others", nearer_than_others, 2, lambda found: found.high >= 0),
    )
    lines = []
    for kind in _told_templates(rows):
        slope = follow_slope(rows, kind, BLOOD)
        met = "met" if slope.value >= 0.7 else "missed"
        lines.append(f"- {kind}, follow slope of blood pools at least 0.7: {in_brackets(slope, 2)} ({met}).")
        for what, value, digits, reached in aims:
            text = _gain_text(rows, kind, value, digits, reached)
            if text:
                lines.append(f"- {kind}, same protocol, {what} less than mask only by {text}.")
    return "\n".join(lines)


def _gain_text(rows: Rows, kind: str, value: Value, digits: int, reached: Callable[[Interval], bool]) -> str:
    """Return a gain over mask only, whether it is enough, and that of every seed; empty where nothing is to compare."""
    found = gain_over_mask(rows, (kind, "same"), value)
    if found is None:
        return ""
    each = [gain_over_mask(rows, (kind, "same"), value, seed) for seed in seeds_of(rows, kind)]
    own = "; ".join(in_brackets(one, digits) for one in each if one is not None)
    return f"{in_brackets(found, digits)} ({'met' if reached(found) else 'missed'}; by seed {own})"


def _told_templates(rows: Rows) -> list[str]:
    return [kind for kind in ("template", "painted") if seeds_of(rows, kind)]


def _present(rows: Rows) -> list[tuple[tuple[str, str], str]]:
    return [(arm, title) for arm, title in ARMS.items() if seeds_of(rows, arm[0])]


def _title(name: str) -> str:
    return CARDIAC_CT.named(name).title
