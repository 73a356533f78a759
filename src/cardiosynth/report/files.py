"""What a report shows as files of their own: charts as SVG and PNG, pictures as PNG, tables as CSV and LaTeX."""

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

from cardiosynth.core.lettering import captioned, legend, stacked
from cardiosynth.core.picture import Picture, contact_sheet, png_bytes
from cardiosynth.core.store import whole_file
from cardiosynth.evaluation.results import (
    CaseFigure,
    Cell,
    Column,
    Estimate,
    Figure,
    GalleryFigure,
    ProjectionFigure,
    Results,
    Spread,
    Table,
)
from cardiosynth.report.charts import chart_bytes, draw_chart
from cardiosynth.report.figures import Library, PanelGrid, panels_of
from cardiosynth.report.words import cell_text, usual_n

PARTS: dict[type, dict[str, Callable]] = {
    Spread: {"mean": lambda c: c.mean, "sd": lambda c: c.sd, "n": lambda c: c.n},
    Estimate: {"value": lambda c: c.value, "low": lambda c: c.low, "high": lambda c: c.high},
}
"""What of a cell becomes a column of its own in CSV."""
SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$", "–": "--", "∞": r"$\infty$",
    "<": "$<$", ">": "$>$",
}  # fmt: skip
ARROWS = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", None: ""}


def write_files(results: Results, folder: Path, root: Path) -> list[Path]:
    """Write every figure and table of ``results`` into ``folder`` and return where; names begin with their number.

    Args:
        results: what an evaluation found.
        folder: made where it is not there.
        root: folder that dataset paths are relative to. A figure whose cases are not there is left out.

    Raises:
        InputError: a file cannot be written.
    """
    library, files = Library(root), dict[str, bytes]()
    for number, figure in enumerate(results.figures, start=1):
        for ending, content in _of_figure(figure, library).items():
            files[f"figure-{number:02d}-{_slug(figure.title)}.{ending}"] = content
    for number, table in enumerate(results.tables, start=1):
        name = f"table-{number:02d}-{_slug(table.title)}"
        files |= {f"{name}.csv": as_csv(table).encode(), f"{name}.tex": as_latex(table).encode()}
    written = []
    for name, content in files.items():
        with whole_file(folder / name) as partial:
            partial.write_bytes(content)
        written.append(folder / name)
    return written


def _of_figure(figure: Figure, library: Library) -> dict[str, bytes]:
    """Return the content of a figure's files by their ending."""
    grid = panels_of(figure, library)
    if grid is not None:
        return {"png": png_bytes(_sheet(grid))} if grid.rows else {}
    assert not isinstance(figure, CaseFigure | ProjectionFigure | GalleryFigure), "these have panels"
    chart = draw_chart(figure)
    return {"svg": chart_bytes(chart, "svg"), "png": chart_bytes(chart, "png")}


def _sheet(grid: PanelGrid) -> Picture:
    pictures = [
        [None if x is None else captioned(x.picture, [x.caption]) if x.caption else x.picture for x in row]
        for _, row in grid.rows
    ]
    titles = [title for title, _ in grid.rows] if grid.columns else []
    sheet = contact_sheet(pictures, titles, [heading for heading, _ in grid.columns])
    return stacked([sheet, legend(grid.legend, sheet.shape[1], 16)]) if grid.legend else sheet


def as_csv(table: Table) -> str:
    """Return a table as CSV, numbers in full; means, deviations, counts and ends of intervals in columns of their own.

    Empty is nothing to measure. The last column says what of a row is marked as the best.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = [_parts([row[i] for row in table.rows]) for i in range(len(table.columns))]
    heads = [head for column, found in zip(table.columns, parts, strict=True) for head in _heads(column, found)]
    writer.writerow([*heads, "best"])
    for i, row in enumerate(table.rows):
        values = [_value(cell, part) for cell, found in zip(row, parts, strict=True) for part in found]
        writer.writerow([*values, "; ".join(table.columns[j].title for at, j in table.best if at == i)])
    return text.getvalue()


def as_latex(table: Table) -> str:
    """Return a table as LaTeX (package booktabs), its protocol as the note beneath it; the best is bold."""
    heads = [
        _escaped(column.title + (f" [{column.unit}]" if column.unit else "")) + ARROWS[column.better]
        for column in table.columns
    ]
    lines = [
        r"\begin{table}", rf"\caption{{{_escaped(table.title)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}", r"\toprule", " & ".join(heads) + r" \\", r"\midrule",
    ]  # fmt: skip
    for i, row in enumerate(table.rows):
        cells = [
            _escaped(cell_text(cell, column, usual_n(table, column)))
            for cell, column in zip(row, table.columns, strict=True)
        ]
        lines.append(
            " & ".join(rf"\textbf{{{c}}}" if (i, j) in table.best else c for j, c in enumerate(cells)) + r" \\"
        )
    note = _escaped(table.protocol)
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", rf"\par\small {note}", r"\end{table}", ""])


def _parts(cells: list[Cell]) -> list[tuple[type, str]]:
    """Return (kind of cell, part of it) of every column that the cells need."""
    kinds = [kind for kind in PARTS if any(isinstance(cell, kind) for cell in cells)]
    plain = any(cell is not None and type(cell) not in PARTS for cell in cells) or not kinds
    return [(object, "")] * plain + [(kind, part) for kind in kinds for part in PARTS[kind]]


def _heads(column: Column, parts: list[tuple[type, str]]) -> list[str]:
    title = f"{column.title} [{column.unit}]" if column.unit else column.title
    return [f"{title} {part}".strip() for _, part in parts]


def _value(cell: Cell, part: tuple[type, str]) -> object:
    kind, name = part
    if kind is object:
        return "" if type(cell) in PARTS or cell is None else cell
    return PARTS[kind][name](cell) if isinstance(cell, kind) else ""


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(letter, letter) for letter in text)


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:48] or "untitled"
