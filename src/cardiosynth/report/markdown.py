"""What a report says, as Markdown: its sentences and tables, for pages of documentation."""

from cardiosynth.evaluation.results import Cell, Column, Results, Table
from cardiosynth.report.words import cell_text, usual_n

ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}


def as_markdown(results: Results) -> str:
    """Return the whole report without pictures."""
    parts = [f"# {results.title}", results.summary, "\n".join(f"- {note}" for note in results.notes)]
    parts += [f"## {table.title}\n\n{table_markdown(table)}" for table in results.tables]
    return "\n\n".join(part for part in parts if part) + "\n"


def table_markdown(table: Table) -> str:
    """Return a table with its protocol below; the best is bold."""
    lines = [_line(*map(_title, table.columns)), "| --- |" + " ---: |" * (len(table.columns) - 1)]
    for i, row in enumerate(table.rows):
        cells = [_cell(cell, column, table) for cell, column in zip(row, table.columns, strict=True)]
        lines.append(_line(*(f"**{text}**" if (i, j) in table.best else text for j, text in enumerate(cells))))
    return "\n".join([*lines, "", table.protocol])


def _title(column: Column) -> str:
    return _plain(column.title) + (f", {column.unit}" if column.unit else "") + ARROWS[column.better]


def _cell(cell: Cell, column: Column, table: Table) -> str:
    return _plain(cell_text(cell, column, usual_n(table, column)))


def _plain(text: str) -> str:
    return text.replace("|", r"\|")


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
