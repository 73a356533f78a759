"""The examination of a dataset: findings, and the sheet where one is wanted. What a recipe adds is handed in."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from cardiosynth.data.check.examination import Examined, check_dataset
from cardiosynth.data.check.finding import Finding
from cardiosynth.data.check.needs import Needs
from cardiosynth.report.check_sheet import CheckSheet


def examine_dataset(
    root: Path,
    against: Sequence[Path] = (),
    needs: Needs | None = None,
    fit: Callable[[], Sequence[Finding]] | None = None,
    sheet: Path | None = None,
) -> dict[str, Any]:
    """Examine a dataset folder.

    Args:
        root: the folder.
        against: other dataset folders that must share neither patients nor images with it.
        needs: what a recipe asks for; None for none.
        fit: tells whether that recipe fits the machine; called once the dataset has been read.
        sheet: HTML page to write; None for none.

    Returns:
        JSON-like: what ``Examination.facts`` returns, and under ``examined`` one row per case.

    Raises:
        InputError: a folder is no dataset, or the page cannot be written.
    """
    rows: list[dict[str, Any]] = []
    with CheckSheet(sheet) if sheet is not None else nullcontext() as page:

        def each(examined: Examined) -> None:
            rows.append(examined.row())
            if page is not None:
                page.add(examined)

        found = check_dataset(root, against, needs, each)
        if fit is not None:
            found = replace(found, findings=(*found.findings, *fit()))
        if page is not None:
            page.write(found)
    return {**found.facts(), "examined": rows}
