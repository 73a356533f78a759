"""Charts of typed values: every figure that is no picture of anatomy. Drawn once, kept as SVG or PNG."""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D

from cardiosynth.evaluation.results import (
    ArmsFigure,
    BarsFigure,
    CurvesFigure,
    Estimate,
    PointsFigure,
    RadarFigure,
    Spread,
)

ARM_COLORS = ("#0072b2", "#d55e00", "#009e73", "#a05195", "#8a6d00", "#555555", "#56a0c8", "#b0413e")
"""Distinct for color-blind readers, the first six in gray as well."""
MARKERS = "osD^vPX*"
DASHES = ("-", "--", "-.", ":")
INK, SOFT, LINE = "#1d2733", "#5b6875", "#e6eaee"
WIDTH_IN = 8.6
MANY_POINTS = 100
"""Of one group; more are drawn smaller."""
ENOUGH_FOR_A_BOX = 5
"""Values; quartiles of fewer tell nothing that the values do not."""

Charted = ArmsFigure | BarsFigure | PointsFigure | CurvesFigure | RadarFigure


def draw_chart(figure: Charted) -> Drawing:
    """Return the chart of a figure."""
    with _style():
        match figure:
            case ArmsFigure():
                return _arms(figure)
            case BarsFigure():
                return _bars(figure)
            case PointsFigure():
                return _points(figure)
            case CurvesFigure():
                return _curves(figure)
            case RadarFigure():
                return _radar(figure)


def chart_bytes(chart: Drawing, form: Literal["svg", "png"]) -> bytes:
    """Return a chart as a file's content; the same chart gives the same bytes."""
    buffer = io.BytesIO()
    with _style():
        chart.savefig(buffer, format=form, dpi=200, metadata={"Date": None} if form == "svg" else {"Software": None})
    return buffer.getvalue()


def reading_of(figure: Charted) -> str:
    """Return how the marks of a chart are read."""
    match figure:
        case ArmsFigure():
            boxes = any(_finite(v).size >= ENOUGH_FOR_A_BOX for arm in figure.arms for v in arm.values.values())
            box = "box: quartiles, line: median, whiskers: 1.5 box lengths at most; " if boxes else ""
            return f"{figure.better.capitalize()} is better. Dots: cases; {box}diamond: mean."
        case BarsFigure():
            kinds = {type(value) for group in figure.groups for value in group.values.values()}
            words = {Estimate: "95 % interval", Spread: "standard deviation"}
            lines = " or ".join(word for kind, word in words.items() if kind in kinds)
            return f"{figure.better.capitalize()} is better." + (f" Line: {lines}." if lines else "")
        case PointsFigure():
            counts = ", ".join(f"{group.name} {len(group.points)}" for group in figure.groups)
            return f"Points: {counts}. Axes have no unit and no direction; only who lies among whom means something."
        case CurvesFigure():
            return ""
        case RadarFigure():
            return f"Middle {figure.ends[0]:g}, rim {figure.ends[1]:g}; outward is better."


@contextmanager
def _style() -> Iterator[None]:
    settings = {
        "font.size": 10.5, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": SOFT, "axes.axisbelow": True,
        "axes.spines.top": False, "axes.spines.right": False, "xtick.color": SOFT, "ytick.color": SOFT,
        "xtick.labelcolor": SOFT, "ytick.labelcolor": INK, "grid.color": LINE, "legend.frameon": False,
        "svg.fonttype": "path", "svg.hashsalt": "cardiosynth", "figure.facecolor": "white",
    }  # fmt: skip
    with mpl.rc_context(settings):  # pyright: ignore[reportArgumentType]
        yield


def _arms(figure: ArmsFigure) -> Drawing:
    names = [n for n in dict.fromkeys(n for arm in figure.arms for n in arm.values) if _known(figure, n)]
    band = len(figure.arms) + 0.8
    chart, axes = _axes(0.9 + 0.21 * band * max(len(names), 1), figure.arms)
    for row, name in enumerate(names):
        axes.axhline(row * band - 0.9, color=LINE, linewidth=0.8)
        for index, arm in enumerate(figure.arms):
            _spread_of(axes, _finite(arm.values.get(name, ())), row * band + index, index)
    axes.set_yticks([row * band + (len(figure.arms) - 1) / 2 for row in range(len(names))], [_plain(n) for n in names])
    axes.set_ylim(max(len(names), 1) * band - 0.9, -0.9)
    axes.tick_params(axis="y", length=0)
    every = [_finite(values) for arm in figure.arms for values in arm.values.values()]
    axes.set_xlim(*_span(np.concatenate([*every, np.zeros(1)]), figure.unit, margin=0.02))
    axes.grid(axis="x")
    axes.set_xlabel(_titled(figure.measure, figure.unit))
    _legend(chart, [arm.name for arm in figure.arms])
    return chart


def _spread_of(axes: Axes, values: np.ndarray, y: float, index: int) -> None:
    """Draw the cases of one arm and structure in one line."""
    if not values.size:
        return
    color = _color(index)
    if values.size >= ENOUGH_FOR_A_BOX:
        axes.boxplot(
            values, positions=[y], orientation="horizontal", widths=0.62, showfliers=False, manage_ticks=False,
            boxprops={"color": color}, medianprops={"color": color, "linewidth": 2}, whiskerprops={"color": color},
            capprops={"color": color},
        )  # fmt: skip
    axes.plot(values, np.full(values.size, y), "o", color=color, alpha=0.4, markersize=3.5, markeredgewidth=0)
    axes.plot([values.mean()], [y], "D", color=color, markersize=5.5, markeredgecolor="white", markeredgewidth=0.8)


def _bars(figure: BarsFigure) -> Drawing:
    arms = list(dict.fromkeys(name for group in figure.groups for name in group.values))
    chart, axes = _axes(3.6, arms)
    width = 0.8 / len(arms)
    for index, arm in enumerate(arms):
        for place, group in enumerate(figure.groups):
            value, low, high = _with_ends(group.values.get(arm))
            if math.isfinite(value):
                x = place + (index - (len(arms) - 1) / 2) * width
                axes.bar(x, value, 0.92 * width, color=_color(index))
                axes.plot([x, x], [low, high], color=INK, linewidth=1.1)
    ends = np.array([_with_ends(value) for group in figure.groups for value in group.values.values()]).ravel()
    axes.set_ylim(*_span(ends[np.isfinite(ends)], figure.unit, margin=0.0))
    axes.axhline(0, color=SOFT, linewidth=0.8)
    axes.set_xticks(range(len(figure.groups)), [_plain(group.name) for group in figure.groups])
    axes.tick_params(axis="x", length=0, labelcolor=INK)
    axes.grid(axis="y")
    axes.set_ylabel(_titled(figure.measure, figure.unit))
    _legend(chart, arms)
    return chart


def _points(figure: PointsFigure) -> Drawing:
    names = [group.name for group in figure.groups]
    chart, axes = _axes(4.6, names, width_in=5.4)
    for index, group in enumerate(figure.groups):
        xy = np.array(group.points, np.float64).reshape(-1, 2)
        marker = MARKERS[index % len(MARKERS)]
        size = 4 if len(xy) > MANY_POINTS else 6.5
        axes.plot(xy[:, 0], xy[:, 1], marker, color=_color(index), alpha=0.7, markersize=size, markeredgecolor="white",
                  markeredgewidth=0.4)  # fmt: skip
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["top", "right"]].set_visible(True)
    _legend(chart, names, MARKERS)
    return chart


def _curves(figure: CurvesFigure) -> Drawing:
    chart, axes = _axes(3.8, figure.curves)
    for index, curve in enumerate(figure.curves):
        axes.plot(curve.x, curve.y, DASHES[index % len(DASHES)], color=_color(index), linewidth=1.8)
    axes.set_ylim(bottom=min(0.0, *(min(curve.y, default=0.0) for curve in figure.curves)))
    axes.grid()
    axes.set_xlabel(figure.x_title)
    axes.set_ylabel(figure.y_title)
    _legend(chart, [curve.name for curve in figure.curves], " ", DASHES)
    return chart


def _radar(figure: RadarFigure) -> Drawing:
    chart = Drawing(figsize=(6.0, 4.6), layout="constrained")
    axes = chart.add_subplot(projection="polar")
    turns = np.linspace(0, 2 * np.pi, len(figure.criteria), endpoint=False)
    inner, rim = figure.ends
    for index, scores in enumerate(figure.scores.values()):
        share = (np.array(scores) - inner) / (rim - inner)
        axes.plot(np.append(turns, 0), np.append(share, share[0]), color=_color(index), linewidth=1.8)
        axes.fill(turns, share, color=_color(index), alpha=0.08)
    axes.set_theta_zero_location("N")  # pyright: ignore[reportAttributeAccessIssue]
    axes.set_theta_direction(-1)  # pyright: ignore[reportAttributeAccessIssue]
    axes.set_ylim(0, 1)
    axes.set_yticks([0.25, 0.5, 0.75], [""] * 3)
    axes.set_xticks(turns, [""] * len(turns))
    for turn, criterion in zip(turns, figure.criteria, strict=True):
        side = round(float(np.sin(turn)), 6)
        anchor = "center" if side == 0 else "left" if side > 0 else "right"
        level = "center" if side else "bottom" if np.cos(turn) > 0 else "top"
        axes.text(turn, 1.07, criterion.replace(" ", "\n"), ha=anchor, va=level)
    _legend(chart, list(figure.scores))
    return chart


def _axes(height_in: float, entries: Sequence[object], width_in: float = WIDTH_IN) -> tuple[Drawing, Axes]:
    """Return an empty chart with room for a legend of so many entries."""
    chart = Drawing(figsize=(width_in, height_in + 0.25 * math.ceil(len(entries) / 3)), layout="constrained")
    return chart, chart.add_subplot()


def _legend(chart: Drawing, names: Sequence[str], markers: str = "s", lines: Sequence[str] = ("",)) -> None:
    """Write the names above the chart, each beside its color, marker and line."""
    handles = [Line2D([], [], color=_color(i), marker=markers[i % len(markers)]) for i in range(len(names))]
    for i, handle in enumerate(handles):
        handle.set(linestyle=lines[i % len(lines)])
    chart.legend(handles, list(names), loc="outside upper left", ncols=min(len(names), 3), handletextpad=0.4)


def _span(values: np.ndarray, unit: str, margin: float) -> tuple[float, float]:
    """Return the ends of an axis that holds zero, all values, and the whole of what is a share."""
    low, high = min(0.0, float(values.min(initial=0))), float(values.max(initial=0))
    whole = 100.0 if unit == "%" else 1.0
    high = whole if 0 < high <= whole and (unit == "%" or not unit) else 1.05 * high or 1.0
    low *= 1.05
    return low - margin * (high - low), high + margin * (high - low)


def _with_ends(value: Estimate | Spread | float | None) -> tuple[float, float, float]:
    if isinstance(value, Estimate):
        return value.value, value.low, value.high
    if isinstance(value, Spread):
        return value.mean, value.mean - (value.sd or 0), value.mean + (value.sd or 0)
    number = math.nan if value is None else float(value)
    return number, number, number


def _known(figure: ArmsFigure, name: str) -> bool:
    return any(_finite(arm.values.get(name, ())).size for arm in figure.arms)


def _finite(values: Sequence[float | None]) -> np.ndarray:
    return np.array([v for v in values if v is not None and np.isfinite(v)], np.float64)


def _color(index: int) -> str:
    return ARM_COLORS[index % len(ARM_COLORS)]


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _titled(measure: str, unit: str) -> str:
    return f"{measure} in {unit}" if unit else measure
