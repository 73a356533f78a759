"""What is looked at while a network trains: a loss on cases that are held out, sheets of samples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pydantic

from cardiosynth.core.config import Settings

MAY_LOOK = ("validate_every", "sheet_every", "sheet_cases")
"""Settings that a resumed run may have otherwise than the run had at its beginning: they change no weight."""


class WatchSettings(Settings):
    """How often one looks, and at what. Looking changes no weight.

    Attributes:
        cases: how many cases are held out of training, patient by patient in the order of their names' hash.
        validate_every: steps between losses on the held-out cases; 0 for none.
        sheet_every: steps between sheets of samples; 0 for none.
        sheet_cases: rows of a sheet: held-out cases, or training cases, which are labeled so, where none is held out.
    """

    cases: int = pydantic.Field(default=0, ge=0)
    validate_every: int = pydantic.Field(default=0, ge=0)
    sheet_every: int = pydantic.Field(default=0, ge=0)
    sheet_cases: int = pydantic.Field(default=2, ge=1)

    @pydantic.model_validator(mode="after")
    def _has_cases(self) -> "WatchSettings":
        if self.validate_every and not self.cases:
            raise ValueError("validate_every needs cases that are held out; set watch.cases to how many")
        return self


@dataclass(frozen=True)
class Watch:
    """Something that is done every few steps, by the process that writes.

    Attributes:
        every: steps between; 0 for never.
        look: called with the number of finished steps. The module then holds the averaged weights, is in eval mode and
            takes no gradients. The values it returns go to ``metrics.jsonl``.
    """

    every: int
    look: Callable[[int], Mapping[str, float]]

    def is_due(self, step: int) -> bool:
        """Return whether to look after ``step`` finished steps."""
        return self.every > 0 and step % self.every == 0
