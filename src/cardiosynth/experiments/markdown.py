"""Tables of a study in Markdown."""

from collections.abc import Iterable

import numpy as np

from cardiosynth.evaluation.statistics import Interval


def head(*titles: str) -> list[str]:
    """Return the two lines that begin a table; the first column names the row, the others hold numbers."""
    return [line(*titles), "| --- |" + " ---: |" * (len(titles) - 1)]


def line(*cells: str) -> str:
    """Return one row."""
    return "| " + " | ".join(cells) + " |"


def in_brackets(found: Interval | None, digits: int, *, sign: bool = False) -> str:
    """Return ``value [low, high]``, and ``-`` where nothing is known."""
    if found is None or np.isnan(found.value):
        return "-"
    value, low, high = (f"{x:{'+' if sign else ''}.{digits}f}" for x in found)
    return f"{value} [{low}, {high}]"


def mean_of(values: Iterable[float | None]) -> float:
    """Return the mean of what is known (None and NaN are not); NaN where nothing is."""
    known = [value for value in values if value is not None and not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
