"""One HTML page that holds everything: pictures, tables, charts, how to repeat it. Opens offline and prints."""

import base64
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from cardiosynth import __version__
from cardiosynth.core.picture import Picture, confidence_colors, heat_colors, png_bytes
from cardiosynth.core.store import write_text
from cardiosynth.evaluation.results import CaseFigure, GalleryFigure, ProjectionFigure, Results
from cardiosynth.report.charts import chart_bytes, draw_chart, reading_of
from cardiosynth.report.figures import Library, panels_of
from cardiosynth.report.words import bar_percent, cell_text, duration_text, usual_n


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
    pictures, charts = [], []
    for figure in results.figures:
        grid = panels_of(figure, library)
        if grid is not None:
            pictures.append((figure, grid))
        elif not isinstance(figure, CaseFigure | ProjectionFigure | GalleryFigure):
            charts.append((figure, data_uri(chart_bytes(draw_chart(figure), "svg"), "svg+xml"), reading_of(figure)))
    command = next((stage.command for stage in reversed(results.stages) if stage.command), "")
    return page_environment().get_template("report.html.j2").render(
        results=results, pictures=pictures, charts=charts, command=command, version=__version__,
        scales={"confidence": _scale(confidence_colors), "error": _scale(heat_colors)},
    )  # fmt: skip


def data_uri(content: bytes | Picture, form: Literal["png", "svg+xml"] = "png") -> str:
    """Return a picture, or a file's content, as text that a page can hold."""
    content = content if isinstance(content, bytes) else png_bytes(content)
    return f"data:image/{form};base64,{base64.b64encode(content).decode('ascii')}"


def _scale(colors: Callable[[np.ndarray], Picture]) -> str:
    """Return a color scale from 0 to 1 as a picture."""
    return data_uri(colors(np.repeat(np.linspace(0, 1, 120)[None], 10, axis=0)))


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
