"""One HTML page that holds everything: pictures, tables, charts, how to repeat it. Opens offline and prints."""

import base64
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from cardiosynth import __version__
from cardiosynth.core.picture import confidence_colors, png_bytes
from cardiosynth.core.store import write_text
from cardiosynth.evaluation.results import (
    ArmsFigure,
    CaseFigure,
    Cell,
    Column,
    Estimate,
    ProjectionFigure,
    Results,
    Spread,
    Table,
)
from cardiosynth.report.charts import arms_chart, bar_percent
from cardiosynth.report.figures import Library, case_panels, projection_panels

NOTHING = "–"


def write_report(results: Results, out: Path, relative_to: Path | None = None) -> None:
    """Write ``results`` as one self-contained HTML page.

    Args:
        results: what an evaluation found.
        out: the file to write, whole or not at all.
        relative_to: folder that the figures' dataset paths are relative to, that of the results file; the folder of
            ``out`` for None. A dataset that is not there becomes a sentence in place of its pictures.

    Raises:
        InputError: the page cannot be written.
    """
    write_text(out, render_report(results, relative_to or Path(out).parent))


def render_report(results: Results, root: Path) -> str:
    """Return the page as text; ``root`` is the folder that dataset paths are relative to."""
    library = Library(root)
    cases = [(f, case_panels(f, library)) for f in results.figures if isinstance(f, CaseFigure)]
    projections = [(f, projection_panels(f, library)) for f in results.figures if isinstance(f, ProjectionFigure)]
    charts = [(f, arms_chart(f)) for f in results.figures if isinstance(f, ArmsFigure)]
    return page_environment().get_template("report.html.j2").render(
        results=results, cases=cases, projections=projections, charts=charts, scale=_scale(), version=__version__,
    )  # fmt: skip


def cell_text(cell: Cell, column: Column, common_n: int | None = None) -> str:
    """Return a cell in words: mean ± standard deviation, and n where it is not the column's usual one; intervals."""
    if cell is None:
        return NOTHING
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Estimate):
        value, low, high = (number_text(number, column.digits) for number in (cell.value, cell.low, cell.high))
        return f"{value} ({low} to {high})"
    if not isinstance(cell, Spread):
        return number_text(cell, column.digits)
    text = number_text(cell.mean, column.digits)
    if cell.sd is not None:
        text += f" ± {number_text(cell.sd, column.digits)}"
    return text if cell.n == common_n else f"{text} (n {cell.n})"


def number_text(value: float, digits: int) -> str:
    """Return a number with a true minus sign and without a negative zero."""
    if not math.isfinite(value):
        return "∞" if value > 0 else NOTHING
    text = f"{value:.{digits}f}"
    if text.lstrip("-").strip("0.") == "":
        text = text.lstrip("-")
    return text.replace("-", "−")


def duration_text(seconds: float | None) -> str:
    """Return seconds as a person says them."""
    if seconds is None:
        return NOTHING
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def usual_n(table: Table, column: Column) -> int | None:
    """Return the most frequent number of cases among the means of a column; None where it holds none."""
    index = [other.title for other in table.columns].index(column.title)
    counts = [cell.n for cell in (row[index] for row in table.rows) if isinstance(cell, Spread)]
    return max(sorted(set(counts), reverse=True), key=counts.count) if counts else None


def data_uri(png: bytes) -> str:
    """Return a picture as text that a page can hold."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _scale() -> str:
    """Return the color scale of confidence, from 0 to 1, as a picture."""
    ramp = np.repeat(np.linspace(0, 1, 120)[None], 10, axis=0)
    return data_uri(png_bytes(confidence_colors(ramp)))


def _total(values: Iterable[float | None]) -> float:
    return sum(value for value in values if value is not None)


def page_environment() -> Environment:
    """Return what fills in pages: everything is escaped, what is missing is an error."""
    environment = Environment(
        loader=PackageLoader("cardiosynth.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(
        cell=cell_text, duration=duration_text, data_uri=data_uri, usual_n=usual_n, bar=bar_percent, total=_total
    )
    return environment
