"""The study of templates in tables: means over seeds and cases, with intervals over seeds and protocols."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.evaluation.results import BarGroup, BarsFigure, Cell, Column, Estimate, Results, Table, estimate
from cardiosynth.evaluation.statistics import Interval, mean_interval, mean_of, ratio_interval

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


def template_results(rows: Rows, originals: dict[str, list[Row]]) -> Results:
    """Return everything that is shown, of the models there are.

    Args:
        rows: as ``measure`` of the study makes them.
        originals: ``ceiling`` and ``independent``, as ``originals`` of the study makes them.
    """
    ceiling, independent = originals["ceiling"], originals["independent"]
    counts = ", ".join(f"{kind} {len(seeds_of(rows, kind))}" for kind in ("mask", "template", "painted"))
    protocols = {row["protocol"] for row in ceiling}
    said = (
        f"{len(ceiling)} test cases of {len(protocols)} protocols that no network has seen; means over seeds and cases "
        f"with 95 % intervals over seeds and protocols. Seeds: {counts}."
    )
    tables = [likeness_table(rows, ceiling, said), structure_table(rows, ceiling, said)]
    if _told_templates(rows):
        tables.append(slope_table(rows, said))
    tables.append(copies_table(rows, independent, said))
    errors = {title: _estimate(rows, arm, hu_error) for arm, title in _present(rows)}
    group = BarGroup(name="all large structures", values={**errors})
    chart = BarsFigure(
        title="HU error",
        caption=said,
        measure="|mean synthetic - mean real|",
        unit="HU",
        better="lower",
        groups=(group,),
    )
    return Results(title="Templates", summary=said, notes=tuple(goals(rows)), tables=tuple(tables), figures=(chart,))


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

HU = Column(title="HU error", unit="HU", better="lower", digits=1)


def likeness_table(rows: Rows, ceiling: list[Row], said: str) -> Table:
    """Return how like the images are to the real ones of their masks, and the gain in HU over masks alone."""
    measures: tuple[tuple[Value, Column], ...] = (
        (lambda r: r["ssim_heart"], Column(title="SSIM in the heart", better="higher", digits=3)),
        (lambda r: r["rmse_heart_hu"], Column(title="RMSE in the heart", unit="HU", better="lower", digits=0)),
        (lambda r: r["contrast_kept"], Column(title="coronary contrast kept", better="higher")),
    )
    cells: list[tuple[Cell, ...]] = []
    for arm, title in _present(rows):
        gain = estimate(gain_over_mask(rows, arm, hu_error))
        cells.append((title, _estimate(rows, arm, hu_error), gain, *(_estimate(rows, arm, v) for v, _ in measures)))
    alone = (mean_of(map(value, ceiling)) for value, _ in measures)
    cells.append(("autoencoder alone", mean_of(map(hu_error, ceiling)), None, *alone))
    columns = (
        Column(title="told"), HU, Column(title="less than mask only", unit="HU", better="higher", digits=1),
        *(column for _, column in measures),
    )  # fmt: skip
    protocol = f"{said} HU error: mean over the large structures of |mean synthetic - mean real|."
    return Table(title="Likeness to the real images", protocol=protocol, columns=columns, rows=tuple(cells))


def structure_table(rows: Rows, ceiling: list[Row], said: str) -> Table:
    """Return the HU error by structure, beside how far the templates' own means are from the targets'."""
    cells: list[tuple[Cell, ...]] = [
        (title, *(_estimate(rows, arm, lambda r, n=name: abs(r["error_hu"][n])) for name in TARGETS))
        for arm, title in _present(rows)
    ]
    cells.append(("autoencoder alone", *(mean_of(abs(r["error_hu"][n]) for r in ceiling) for n in TARGETS)))
    truth = {row["case"]: row["means_hu"] for row in ceiling}
    shown = next((found for (kind, _), found in rows.items() if kind != "mask"), [])
    for choice, title in (("same", "means of the template, same protocol"), ("other", "of another protocol")):
        means = [(truth[row["case"]], row["template_means_hu"]) for row in shown if row["choice"] == choice]
        if means:
            cells.append((title, *(mean_of(abs(a[n] - b[n]) for a, b in means) for n in TARGETS)))
    columns = (Column(title="told"), *(HU.model_copy(update={"title": _title(n), "digits": 0}) for n in TARGETS))
    return Table(title="HU error by structure", protocol=said, columns=columns, rows=tuple(cells))


def slope_table(rows: Rows, said: str) -> Table:
    """Return the follow slopes, pooled over blood pools and by structure."""
    pools = (BLOOD, *((name,) for name in TARGETS))
    cells = [(kind, *(estimate(follow_slope(rows, kind, names)) for names in pools)) for kind in _told_templates(rows)]
    columns = (Column(title="told"), Column(title="blood pools"), *(Column(title=_title(name)) for name in TARGETS))
    protocol = (
        f"{said} Change of synthetic HU over the change of template HU when the template is swapped; 1 follows it."
    )
    return Table(title="Follow slope", protocol=protocol, columns=columns, rows=tuple(cells))


def copies_table(rows: Rows, independent: list[Row], said: str) -> Table:
    """Return how often images are nearer to their template, beside real images that nobody made from it."""
    flags = (nearer_in_heart, nearer_by_texture, nearer_than_others)
    titles = ("nearer than the target, HU in the heart", "than the target, texture", "than others, texture")
    cells: list[tuple[Cell, ...]] = []
    for arm, title in _present(rows):
        shares = (_estimate(rows, arm, flag) for flag in flags)
        alike = (
            _estimate(rows, arm, lambda r, n=n: r["copies"][f"texture_{n}"]) for n in ("template", "target", "others")
        )
        cells.append((title, *shares, *alike))
    for choice, title in (("same", "a real image, same protocol"), ("other", "a real image, another protocol")):
        chosen = [row for row in independent if row["choice"] == choice]
        alike = (mean_of(row["copies"][f"texture_{n}"] for row in chosen) for n in ("template", "target"))
        cells.append((title, *(mean_of(map(flag, chosen)) for flag in flags[:2]), None, *alike, None))
    columns = (
        Column(title="told"), *(Column(title=title) for title in titles),
        *(Column(title=f"texture like the {name}", digits=3) for name in ("template", "target", "others")),
    )  # fmt: skip
    protocol = (
        f"{said} Shares of images that are nearer to their template, 1/2 by chance of the last; texture: correlation "
        "of what is left when every structure's mean is taken away."
    )
    return Table(title="Copies of the template", protocol=protocol, columns=columns, rows=tuple(cells))


def _estimate(rows: Rows, arm: tuple[str, str], value: Value) -> Estimate | None:
    return estimate(interval(rows, arm, value))


# ---------------------------------------------------------------------------------------------------------------
# What was aimed at.


def goals(rows: Rows) -> list[str]:
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
        lines.append(f"{kind}, follow slope of blood pools at least 0.7: {_in_words(slope, 2)} ({met}).")
        for what, value, digits, reached in aims:
            text = _gain_text(rows, kind, value, digits, reached)
            if text:
                lines.append(f"{kind}, same protocol, {what} less than mask only by {text}.")
    return lines


def _gain_text(rows: Rows, kind: str, value: Value, digits: int, reached: Callable[[Interval], bool]) -> str:
    """Return a gain over mask only, whether it is enough, and that of every seed; empty where nothing is to compare."""
    found = gain_over_mask(rows, (kind, "same"), value)
    if found is None:
        return ""
    each = [gain_over_mask(rows, (kind, "same"), value, seed) for seed in seeds_of(rows, kind)]
    own = "; ".join(_in_words(one, digits) for one in each if one is not None)
    return f"{_in_words(found, digits)} ({'met' if reached(found) else 'missed'}; by seed {own})"


def _in_words(found: Interval, digits: int) -> str:
    return f"{found.value:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def _told_templates(rows: Rows) -> list[str]:
    return [kind for kind in ("template", "painted") if seeds_of(rows, kind)]


def _present(rows: Rows) -> list[tuple[tuple[str, str], str]]:
    return [(arm, title) for arm, title in ARMS.items() if seeds_of(rows, arm[0])]


def _title(name: str) -> str:
    return CARDIAC_CT.named(name).title
