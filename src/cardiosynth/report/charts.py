"""Small charts as numbers: where every mark of an inline SVG goes. The template only writes them down."""

from dataclasses import dataclass

import numpy as np

from cardiosynth.evaluation.results import ArmsFigure, Cell, Column, Estimate, Spread, Table

ARM_COLORS = ("#0072b2", "#d55e00", "#009e73", "#a05195", "#8a6d00", "#555555")
"""Distinct for color-blind readers and in gray."""

LEFT, PLOT, RIGHT = 215, 520, 125
ARM_PX, GAP_PX, TOP_PX = 15, 12, 8
TICKS = 5


@dataclass(frozen=True)
class Mark:
    """One arm of one structure, in pixels: mean, ends of the deviation, every case; and the mean in words."""

    y: float
    color: str
    mean: float
    low: float
    high: float
    cases: list[float]
    words: str


@dataclass(frozen=True)
class Chart:
    """Several arms side by side.

    Attributes:
        width: of the drawing, pixels.
        height: of the drawing, pixels.
        base: y of the axis.
        ticks: (x, label) along the axis.
        bands: (title, y of the title, y of the line above) per structure.
        marks: what is drawn.
        legend: (name, color) of the arms.
    """

    width: int
    height: int
    base: float
    ticks: list[tuple[float, str]]
    bands: list[tuple[str, float, float]]
    marks: list[Mark]
    legend: list[tuple[str, str]]


def arms_chart(figure: ArmsFigure) -> Chart:
    """Return where the marks of ``figure`` go: one band per structure, one line per arm."""
    names = list(dict.fromkeys(name for arm in figure.arms for name in arm.values))
    names = [name for name in names if any(_finite(arm.values.get(name, ())).size for arm in figure.arms)]
    every = np.concatenate([_finite(values) for arm in figure.arms for values in arm.values.values()] or [[0.0]])
    top = 1.0 if not figure.unit and every.max(initial=0) <= 1 else float(every.max(initial=0)) * 1.05 or 1.0
    colors = [ARM_COLORS[i % len(ARM_COLORS)] for i in range(len(figure.arms))]
    bands, marks, y = [], [], float(TOP_PX)
    for name in names:
        band = len(figure.arms) * ARM_PX + GAP_PX
        bands.append((name.replace("_", " "), y + band / 2, y))
        for index, arm in enumerate(figure.arms):
            values = _finite(arm.values.get(name, ()))
            if values.size:
                marks.append(_mark(values, top, y + GAP_PX / 2 + (index + 0.5) * ARM_PX, colors[index]))
        y += band
    ticks = [(_x(top * i / TICKS, top), f"{top * i / TICKS:.2g}") for i in range(TICKS + 1)]
    legend = [(arm.name, color) for arm, color in zip(figure.arms, colors, strict=True)]
    return Chart(LEFT + PLOT + RIGHT, round(y + 34), y, ticks, bands, marks, legend)


def bar_percent(cell: Cell, column: Column, table: Table) -> float | None:
    """Return the length of a cell's bar in percent of the longest possible one; None where there is nothing to draw."""
    if column.title not in table.bars:
        return None
    index = [c.title for c in table.columns].index(column.title)
    values = [v for v in (_value(row[index]) for row in table.rows) if v is not None]
    value = _value(cell)
    if value is None or max(values) <= 0:
        return None
    whole = 100.0 if column.unit == "%" else 1.0 if max(values) <= 1 else max(values)
    return min(100.0, max(0.0, 100 * value / max(whole, max(values))))


def _mark(values: np.ndarray, top: float, y: float, color: str) -> Mark:
    mean, sd = float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else 0.0
    words = f"{mean:.3f}" + (f" ± {sd:.3f}" if values.size > 1 else "")
    ends = (_x(min(max(mean + side * sd, 0.0), top), top) for side in (-1, 1))
    return Mark(y, color, _x(mean, top), *ends, cases=[_x(float(v), top) for v in values], words=words)


def _x(value: float, top: float) -> float:
    return round(LEFT + PLOT * value / top, 1)


def _finite(values: tuple[float | None, ...]) -> np.ndarray:
    return np.array([v for v in values if v is not None and np.isfinite(v)], np.float64)


def _value(cell: Cell) -> float | None:
    if isinstance(cell, Spread):
        return cell.mean
    if isinstance(cell, Estimate):
        return cell.value
    return float(cell) if isinstance(cell, int | float) else None
