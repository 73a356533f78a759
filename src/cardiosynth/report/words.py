"""Cells of tables in words, and how long a bar beside one is."""

import math

from cardiosynth.evaluation.results import Cell, Column, Estimate, Spread, Table

NOTHING = "–"


def cell_text(cell: Cell, column: Column, common_n: int | None = None) -> str:
    """Return a cell in words: mean ± standard deviation, and n where it is not the column's usual one; intervals."""
    if cell is None:
        return NOTHING
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Estimate):
        ends = (cell.value, cell.low, cell.high)
        value, low, high = (number_text(number, column.digits, column.signed) for number in ends)
        return f"{value} ({low} to {high})"
    if not isinstance(cell, Spread):
        return number_text(cell, column.digits, column.signed)
    text = number_text(cell.mean, column.digits, column.signed)
    if cell.sd is not None:
        text += f" ± {number_text(cell.sd, column.digits)}"
    return text if cell.n == common_n else f"{text} (n {cell.n})"


def number_text(value: float, digits: int, signed: bool = False) -> str:
    """Return a number with a true minus sign and without a negative zero; ``signed`` ones have a plus above zero."""
    if not math.isfinite(value):
        return "∞" if value > 0 else NOTHING
    text = f"{value:.{digits}f}"
    if text.lstrip("-").strip("0.") == "":
        return text.lstrip("-")
    return ("+" if signed and value > 0 else "") + text.replace("-", "−")


def duration_text(seconds: float | None) -> str:
    """Return seconds as a person says them."""
    if seconds is None:
        return NOTHING
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def usual_n(table: Table, column: Column) -> int | None:
    """Return the most frequent number of cases among the means of a column; None where it holds none."""
    counts = [cell.n for cell in cells_of(table, column) if isinstance(cell, Spread)]
    return max(sorted(set(counts), reverse=True), key=counts.count) if counts else None


def cells_of(table: Table, column: Column) -> list[Cell]:
    """Return the cells of a column."""
    index = [other.title for other in table.columns].index(column.title)
    return [row[index] for row in table.rows]


def bar_percent(cell: Cell, column: Column, table: Table) -> float | None:
    """Return the length of a cell's bar in percent of the longest possible one; None where there is nothing to draw."""
    if column.title not in table.bars:
        return None
    values = [v for v in map(_value, cells_of(table, column)) if v is not None]
    value = _value(cell)
    if value is None or max(values) <= 0:
        return None
    whole = 100.0 if column.unit == "%" else 1.0 if max(values) <= 1 else max(values)
    return min(100.0, max(0.0, 100 * value / max(whole, max(values))))


def _value(cell: Cell) -> float | None:
    if isinstance(cell, Spread):
        return cell.mean
    if isinstance(cell, Estimate):
        return cell.value
    return float(cell) if isinstance(cell, int | float) else None
