"""A study: named steps, each done once, timed, and skipped when the same command runs again."""

import fcntl
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import say
from cardiosynth.core.store import append_row, read_json, read_rows, write_json
from cardiosynth.evaluation.results import Stage


class Task(NamedTuple):
    """A step of a study. Parts that share one name it alike, and it is done once.

    Attributes:
        name: of the step.
        command: that does the same by hand.
        work: does it.
        expected_s: how long it takes, to tell how much is left.
    """

    name: str
    command: str
    work: Callable[[], object]
    expected_s: float


class Study:
    """Runs the steps of one experiment in one folder; several processes may share it.

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
        """Do ``work`` unless it was done before; record seconds, and the command that repeats it by hand.

        A step that another process is at is waited for.
        """
        if not self._is_done(name):
            with self._alone(name):
                if not self._is_done(name):
                    self._do(name, command, work)

    def do(self, *tasks: Task) -> None:
        """Do what is not done yet of some steps, in order."""
        for task in tasks:
            self.step(task.name, task.command, task.work)

    def _is_done(self, name: str) -> bool:
        return any(row["step"] == name and row["done"] for row in read_rows(self._times))

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Let no other process into the block; the system opens the lock of one that was killed."""
        lock = self.out / ".locks" / name.replace("/", " ")
        lock.parent.mkdir(exist_ok=True)
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _do(self, name: str, command: str, work: Callable[[], object]) -> None:
        say(f"[{self._position(name)}] {name}{self._left(name, read_rows(self._times))}")
        start, done = time.monotonic(), False
        try:
            work()
            done = True
        finally:
            seconds = round(time.monotonic() - start, 2)
            with self._alone(self._times.name):
                append_row(self._times, {"step": name, "seconds": seconds, "done": done, "command": command})

    def times(self) -> list[tuple[str, float, str]]:
        """Return (step, seconds over all sessions, command), in the order they were done."""
        rows = read_rows(self._times)
        names = list(dict.fromkeys(row["step"] for row in rows))
        return [
            (name, sum(r["seconds"] for r in rows if r["step"] == name), _last(rows, name)["command"]) for name in names
        ]

    def stages(self) -> tuple[Stage, ...]:
        """Return what was done, for a report."""
        return tuple(Stage(name=name, seconds=seconds, command=text) for name, seconds, text in self.times())

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
