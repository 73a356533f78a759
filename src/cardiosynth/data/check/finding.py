"""One thing that was found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cardiosynth.core.case import Case

Level = Literal["error", "warning", "info"]
LEVELS: tuple[Level, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        level: ``error`` must be mended before training, ``warning`` should be looked at, ``info`` is good to know.
        kind: what was looked for, e.g. ``fragments``; the same word for the same kind everywhere.
        case_id: the case concerned, None for the whole dataset.
        text: one sentence with the mend.
        facts: JSON-like, the numbers that the sentence rests on.
    """

    level: Level
    kind: str
    case_id: str | None
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """The sentence, with its case."""
        return f"{self.case_id}: {self.text}" if self.case_id else self.text

    def row(self) -> dict[str, Any]:
        """Return the finding as JSON."""
        return {
            "level": self.level,
            "kind": self.kind,
            "case_id": self.case_id,
            "message": self.message,
            "facts": dict(self.facts),
        }


def of_case(case: Case, level: Level, kind: str, text: str, **facts: Any) -> Finding:
    """Return a finding of one case."""
    return Finding(level, kind, case.case_id, text, facts)
