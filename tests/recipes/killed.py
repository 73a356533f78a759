"""`segment` killed at one moment after another, as a process of its own: ``python -m tests.recipes.killed DATA RUN``.

Each attempt is a fork that dies by its own hand, without a chance to tidy up; importing everything once is enough.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cardiosynth.recipes import segment as steps
from cardiosynth.recipes.backends import find_backend
from cardiosynth.segmentation import predictions
from cardiosynth.training import loop

SETTINGS = (
    "segmenter.crop=[8, 8, 8]", "segmenter.training.steps=6", "segmenter.training.checkpoint_every=2",
    "segmenter.training.warmup_steps=0", "pretrain_share=0.5",
)  # fmt: skip


def request(data: Path, run: Path) -> steps.Segmentation:
    return steps.Segmentation(
        kind="own", backend=find_backend("own", "fcas/tiny", overrides=SETTINGS), out=run, test=data / "test",
        pretrain=data / "synthetic", finetune=data / "real",
    )  # fmt: skip


def mortal(place: Any, name: str, calls: int) -> Callable[[], None]:
    """Return what lets the function end the process when it has been called so often."""

    def arm() -> None:
        work, left = getattr(place, name), iter(range(calls))

        def counted(*arguments: Any, **options: Any) -> Any:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return work(*arguments, **options)

        setattr(place, name, counted)

    return arm


def attempt(asked: steps.Segmentation, arm: Callable[[], None]) -> int:
    """Return the signal that an attempt died of, 0 where it came to its end."""
    child = os.fork()
    if not child:
        arm()
        steps.segment(asked)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    asked = request(Path(sys.argv[1]), Path(sys.argv[2]))
    # Three steps of each stage with a checkpoint after the second, two test cases.
    deaths = [
        mortal(loop, "take_step", 2), mortal(loop, "take_step", 3), mortal(loop, "take_step", 0),
        mortal(predictions, "predict_ensemble", 1), mortal(steps, "judge", 0), mortal(steps, "write_results", 0),
    ]  # fmt: skip
    sys.stdout.write(str([attempt(asked, arm) for arm in deaths]))
    steps.segment(asked)
