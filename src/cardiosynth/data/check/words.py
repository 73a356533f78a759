"""An examination as a person reads it."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from cardiosynth.data.check.finding import LEVELS

LISTED = 6
"""So many findings of one kind are spelled out; `--json` and the sheet hold all of them."""


def in_words(facts: dict[str, Any]) -> str:
    """Return what ``Examination.facts`` says, worst first."""
    counts = Counter(row["level"] for row in facts["findings"])
    lines = [f"{facts['dataset']}: {counted(facts['cases'], 'case')}, {facts['pairs']} with image and mask"]
    lines += [
        f"  {grid['cases']} of {_product(grid['shape'])} voxels of {_product(grid['spacing_mm'])} mm, {grid['axes']}"
        for grid in facts["grids"]
    ]
    lines += ["", *_structures(facts), "", *_findings(facts["findings"])]
    lines.append(verdict(counts["error"], counts["warning"]))
    return "\n".join(lines)


def verdict(errors: int, warnings: int) -> str:
    """Return the counts as a person says them."""
    said = [counted(number, word) for number, word in ((errors, "error"), (warnings, "warning")) if number]
    return ", ".join(said) or "nothing to mend"


def counted(number: int, word: str) -> str:
    """Return ``1 case``, ``2 cases``."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _structures(facts: dict[str, Any]) -> list[str]:
    is_ct = facts["intensity_unit"] == "hu"
    lines = [f"{'structure':28} {'cases':>6} {'ml':>18} {'median ' + facts['intensity_unit']:>22}"
             + (f" {'usual':>14}" if is_ct else "")]  # fmt: skip
    for row in facts["structures"]:
        usual = f"{row['usual_hu'][0]:g} to {row['usual_hu'][1]:g}" if row["usual_hu"] else ""
        line = f"{row['name']:28} {row['cases']:>6} {_spread(row['volume_ml']):>18} {_spread(row['median']):>22}"
        lines.append((line + (f" {usual:>14}" if is_ct else "")).rstrip())
    return lines


def _findings(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for level in LEVELS:
        kinds: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            if row["level"] == level:
                kinds[row["kind"]].append(row["message"])
        for kind, messages in kinds.items():
            # Good news about every case are told once.
            shown = messages[: 1 if level == "info" and len(messages) > LISTED else LISTED]
            lines += [f"{level}: {message}" for message in shown]
            if len(messages) > len(shown):
                lines.append(f"{level}: {kind.replace('_', ' ')}: {len(messages) - len(shown)} more")
    return lines


def _spread(values: Sequence[float] | None) -> str:
    if values is None:
        return "-"
    low, median, high = (f"{v:.0f}" if abs(v) >= 10 else f"{v:.2g}" for v in values)
    return f"{median} ({low} to {high})"


def _product(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
