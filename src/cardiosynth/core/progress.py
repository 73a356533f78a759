"""Progress of long work: rich on a terminal, one plain line every 30 s otherwise, JSON lines with ``--json``."""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Literal, TypeVar

Mode = Literal["rich", "plain", "json", "quiet"]
T = TypeVar("T")

PLAIN_INTERVAL_S = 30.0
_mode: ContextVar[Mode | None] = ContextVar("mode", default=None)


def set_mode(mode: Mode | None) -> None:
    """Choose how progress is shown from here on; None decides by whether standard error is a terminal."""
    _mode.set(mode)


def mode() -> Mode:
    """Return how progress is shown now."""
    return _mode.get() or ("rich" if sys.stderr.isatty() else "plain")


def say(text: str, **facts: Any) -> None:
    """Tell the user one thing, on standard error (or as a JSON line with ``facts`` on standard output)."""
    if mode() == "json":
        print(json.dumps({"message": text, **facts}, ensure_ascii=False), flush=True)  # noqa: T201
    elif mode() != "quiet":
        print(text, file=sys.stderr, flush=True)  # noqa: T201


class Progress:
    """Counts work done out of ``total`` and shows it. Use as a context manager.

    Args:
        label: what is being done, e.g. ``"train autoencoder"``.
        total: units of work in all.
        done: units that an earlier run has done already.
    """

    def __init__(self, label: str, total: int, done: int = 0):
        self.label, self.total, self.done, self._first = label, total, done, done
        self._start = self._last = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "Progress":
        if mode() == "rich":
            import rich.console
            import rich.progress as rp

            columns = (
                rp.TextColumn("{task.description}"), rp.BarColumn(), rp.MofNCompleteColumn(),
                rp.TimeElapsedColumn(), rp.TextColumn("left"), rp.TimeRemainingColumn(),
                rp.TextColumn("{task.fields[facts]}"),
            )  # fmt: skip
            self._bar = rp.Progress(*columns, console=rich.console.Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total, completed=self.done, facts="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self.done > self._first:
            self._line({}, "done")

    def update(self, advance: int = 1, **facts: float) -> None:
        """Count ``advance`` more units as done; ``facts`` (loss, ...) are shown beside the count."""
        self.done += advance
        if self._bar is not None:
            shown = " ".join(f"{k} {v:.4g}" for k, v in facts.items())
            self._bar.update(self._task, completed=self.done, facts=shown)
        elif time.monotonic() - self._last >= PLAIN_INTERVAL_S:
            self._line(facts, "")

    def _line(self, facts: dict[str, float], note: str) -> None:
        now = time.monotonic()
        self._last = now
        worked = self.done - self._first
        left_s = (now - self._start) / worked * (self.total - self.done) if worked else float("nan")
        text = f"{self.label}: {self.done}/{self.total}"
        if note:
            text += f" {note} in {now - self._start:.0f} s"
        else:
            text += "".join(f", {k} {v:.4g}" for k, v in facts.items()) + f", about {left_s:.0f} s left"
        numbers = {"label": self.label, "done": self.done, "total": self.total, **facts}
        say(text, **numbers) if note or left_s == left_s else say(text)


def track(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Yield ``items`` while showing how many of ``total`` are done."""
    with Progress(label, total) as progress:
        for item in items:
            yield item
            progress.update()
