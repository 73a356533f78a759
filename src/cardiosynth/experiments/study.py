"""A study: named steps, each done once, timed, and skipped when the same command runs again."""

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import say
from cardiosynth.core.store import append_row, read_json, read_rows, write_json


class Study:
    """Runs the steps of one experiment in one folder.

    Args:
        out: the experiment's folder.
        identity: JSON-like value that must be the same when the folder is used again (recipe, seed, plan).
        expected_s: seconds each step is expected to take, by its name, to tell how much is left.

    Raises:
        InputError: the folder holds another experiment.
    """

    def __init__(self, out: Path, identity: dict[str, Any], expected_s: dict[str, float]):
        self.out, self.expected_s = out, expected_s
        self._times = out / "steps.jsonl"
        known = out / "study.json"
        if known.exists() and read_json(known) != identity:
            raise InputError(f"{out} holds an experiment with other settings; give another folder or remove it.")
        if not known.exists() and out.exists() and any(out.iterdir()):
            raise InputError(f"{out} is not empty and was not made by this command; give a new folder.")
        write_json(known, identity)

    def step(self, name: str, command: str, work: Callable[[], object]) -> None:
        """Do ``work`` unless it was done before; record seconds, and the command that repeats it by hand."""
        rows = read_rows(self._times)
        if any(row["step"] == name and row["done"] for row in rows):
            return
        say(f"[{self._position(name)}] {name}{self._left(name, rows)}")
        start, done = time.monotonic(), False
        try:
            work()
            done = True
        finally:
            seconds = round(time.monotonic() - start, 2)
            append_row(self._times, {"step": name, "seconds": seconds, "done": done, "command": command})

    def times(self) -> list[tuple[str, float, str]]:
        """Return (step, seconds over all sessions, command), in the order they were done."""
        rows = read_rows(self._times)
        names = list(dict.fromkeys(row["step"] for row in rows))
        return [
            (name, sum(r["seconds"] for r in rows if r["step"] == name), _last(rows, name)["command"]) for name in names
        ]

    def _position(self, name: str) -> str:
        return f"{list(self.expected_s).index(name) + 1}/{len(self.expected_s)}"

    def _left(self, name: str, rows: list[dict[str, Any]]) -> str:
        """Say how much time is left, scaled by how fast the machine has been so far."""
        names = list(self.expected_s)
        finished = [n for n in names if any(r["step"] == n and r["done"] for r in rows)]
        expected = sum(self.expected_s[n] for n in finished)
        spent = sum(r["seconds"] for r in rows if r["step"] in finished)
        pace = spent / expected if expected > 0 else 1.0
        left_s = pace * sum(self.expected_s[n] for n in names[names.index(name) :])
        return f" (about {left_s / 60:.0f} minutes to the end)" if left_s >= 60 else ""


def _last(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return [row for row in rows if row["step"] == name][-1]


def command_line(*words: object) -> str:
    """Return the ``cardiosynth`` command with ``words``, quoted for a shell."""
    return shlex.join(["cardiosynth", *map(str, words)])
