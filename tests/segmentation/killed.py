"""Chains of training and predicting in a process of their own, which dies where it is told to."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from cardiosynth.core.store import checkpoints
from cardiosynth.data.dataset import read_dataset
from cardiosynth.training import loop


def die_at(death: int, predictor: ModuleType, name: str) -> None:
    """Let this process finish so many events, training steps or cases to predict, and no more: kill -9.

    Args:
        death: how many.
        predictor: the module that calls what predicts a case.
        name: of that function.
    """
    events = iter(range(death))

    def mortal(work: Any) -> Any:
        def counted(*arguments: Any) -> Any:
            if next(events, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return work(*arguments)

        return counted

    loop.take_step = mortal(loop.take_step)
    setattr(predictor, name, mortal(getattr(predictor, name)))


def killed_again_and_again(module: str, run: Path, deaths: Mapping[int, str]) -> None:
    """Run ``python -m MODULE RUN DEATH`` for every death, and see that each left behind what it should, and no more.

    Args:
        module: whose process it is.
        run: the run's folder.
        deaths: number of events -> what is there when they are over.
    """
    for death, survivor in deaths.items():
        command = [sys.executable, "-m", module, str(run), str(death)]
        died = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert (run / survivor).exists()


def assert_same(unbroken: Path, broken: Path, stage: str) -> None:
    """See that two runs ended with the same bytes: both stages' checkpoints, and all masks."""
    for run in ("pre-trained", "fine-tuned"):
        one, other = (checkpoints(folder / run / stage)[-1] for folder in (unbroken, broken))
        assert one.name == other.name
        for name in ("model.safetensors", "training.safetensors", "record.json"):
            assert (one / name).read_bytes() == (other / name).read_bytes()
    masks = [read_dataset(folder / "masks") for folder in (unbroken, broken)]
    assert masks[0].case_ids == masks[1].case_ids
    for case_id in masks[0].case_ids:
        assert masks[0].file("mask", case_id).read_bytes() == masks[1].file("mask", case_id).read_bytes()
