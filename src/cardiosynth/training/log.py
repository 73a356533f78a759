"""What a run tells while it trains: ``config.json``, ``metrics.jsonl``, TensorBoard events, progress."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import Progress
from cardiosynth.core.store import append_row, read_json, read_rows, write_json, write_text
from cardiosynth.training.settings import MAY_CHANGE, TrainingSettings
from cardiosynth.training.watch import MAY_LOOK

FREE = (
    ".code_version",
    ".encode_budget_gb",
    *(f".training.{name}" for name in MAY_CHANGE),
    *(f".watch.{name}" for name in MAY_LOOK),
)
"""Ends of the keys that may differ when a run goes on: an update of the program must not end a long training."""

SECONDS = "seconds_per_step"
"""Name of the curve that tells how long steps took."""


def keep_config(run: Path, config: Mapping[str, Any], resumes: bool, writes: bool) -> None:
    """Write ``config.json``; where the run goes on, first see that it is still the same run.

    Args:
        run: the stage's folder.
        config: JSON-like, the loop's settings under ``training``.
        resumes: whether the folder holds a checkpoint.
        writes: whether this process writes files.

    Raises:
        InputError: the run was begun with other values than those in ``MAY_CHANGE``.
    """
    config = json.loads(json.dumps(config))
    file = run / "config.json"
    before = read_json(file) if resumes and file.exists() else config
    if before != config:
        _refuse_other(run, dict(_flat(before)), dict(_flat(config)))
    if writes:
        write_json(file, config)


def _refuse_other(run: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key in (*now, *before):
        # Null is as good as nothing: a run that was begun before there was a setting goes on without it.
        old, new = before.get(key), now.get(key)
        if old != new and not f".{key}".endswith(FREE):
            raise InputError(
                f"{run} was begun with {key} = {_shown(old)}, not {_shown(new)}; use another run folder or the recipe "
                "of its beginning."
            )


def _shown(value: Any) -> Any:
    return "nothing" if value is None else value


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield key, value
    else:
        for name, item in inner:
            yield from _flat(item, f"{key}.{name}" if key else str(name))


class RunLog:
    """Progress on the terminal, rows in ``metrics.jsonl``, curves for TensorBoard. Use as a context manager.

    Rows after ``step`` belong to work that was lost with a kill; they are dropped and come again, the same.

    Args:
        run: the stage's folder.
        label: what is being trained.
        settings: the loop's.
        step: steps taken already.
    """

    def __init__(self, run: Path, label: str, settings: TrainingSettings, step: int):
        from torch.utils.tensorboard import SummaryWriter

        self._file = run / "metrics.jsonl"
        rows = read_rows(self._file)
        write_text(self._file, "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))
        self._events = SummaryWriter(str(run), purge_step=step + 1)
        self._progress = Progress(label, settings.steps, step)

    def __enter__(self) -> "RunLog":
        self._progress.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.__exit__(*error)
        self._events.close()

    def advance(self, loss: float) -> None:
        """Count one more step as done."""
        self._progress.update(1, loss=loss)

    def row(self, step: int, values: Mapping[str, float], seconds_per_step: float) -> None:
        """Write the values of one step. Time goes to TensorBoard only: rows are the same whenever they are made."""
        append_row(self._file, {"step": step, **values})
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        self._events.add_scalar(SECONDS, seconds_per_step, step)


def mean_seconds_per_step(run: Path) -> float | None:
    """Return the mean of the seconds that a stage's logged steps took, from its events; None where there are none."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not list(run.glob("events.out.tfevents.*")):
        return None
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    if SECONDS not in events.Tags()["scalars"]:
        return None
    found = [event.value for event in events.Scalars(SECONDS)]
    return sum(found) / len(found)
