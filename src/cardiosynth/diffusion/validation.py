"""The loss on held-out cases: noise, times and templates are functions of the cases' names, so that rows compare."""

from collections import Counter

import torch

from cardiosynth.core.random import generator
from cardiosynth.diffusion.task import ControlTask, DiffusionTask
from cardiosynth.training.settings import Precision, uses_bfloat16

TIMES = (0.125, 0.375, 0.625, 0.875)
"""Noise levels of every held-out case: the middles of four equal parts, whatever times are trained."""


def validation_loss(task: DiffusionTask | ControlTask, precision: Precision) -> dict[str, float]:
    """Return every part of the loss, ``validation/PART``: the mean over held-out cases and ``TIMES``.

    What is drawn depends on the cases' names alone, not on the run's seed, the step or the times that are trained.

    Args:
        task: with held-out cases; its module as it is.
        precision: that of training.
    """
    device = next(task.module.parameters()).device
    sums: Counter[str] = Counter()
    for index in task.held_out:
        for t in TIMES:
            rng = generator(0, "validation", task.case_ids[index], str(t))
            batch = {name: value.to(device) for name, value in task.held_out_batch(index, rng).items()}
            with torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(precision, device)):
                parts = task.loss({**batch, "t": torch.full_like(batch["t"], t)})
            sums.update({name: float(value) for name, value in parts.items()})
    count = len(task.held_out) * len(TIMES)
    return {f"validation/{name}": total / count for name, total in sums.items()}
