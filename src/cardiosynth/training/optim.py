"""AdamW, its learning rate, clipped gradients, and the average of the weights over the steps."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from cardiosynth.core.errors import InputError
from cardiosynth.training.processes import Processes
from cardiosynth.training.settings import TrainingSettings


def build_optimizer(parameters: Iterable[nn.Parameter], settings: TrainingSettings) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov and Hutter 2019) over ``parameters``."""
    return torch.optim.AdamW(
        list(parameters), lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """Return the learning rate of the step that follows ``step`` finished ones.

    It rises linearly over the warm-up, ``(step + 1) / warmup_steps`` of the full rate, and then stays or falls as
    half a cosine that would reach 0 at step ``settings.steps``.
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float, whose: str) -> Tensor:
    """Scale the gradients down to a joint 2-norm of at most ``max_norm``.

    Args:
        parameters: those that descend one loss.
        max_norm: the largest norm allowed.
        whose: names player and step in the error.

    Returns:
        The norm before clipping.

    Raises:
        InputError: a gradient is infinite or not a number.
    """
    norm = nn.utils.clip_grad_norm_(list(parameters), max_norm)
    if not torch.isfinite(norm):
        raise InputError(
            f"the gradient of {whose} is not finite; train in a new run folder with a lower training.learning_rate or "
            "with training.precision=fp32."
        )
    return norm


def check_loss(parts: Mapping[str, Tensor], whose: str, case_names: Sequence[str], processes: Processes) -> None:
    """See that every part of a loss is finite, in every process, so that all of them stop together.

    Args:
        parts: of the loss of this process's examples.
        whose: names player and step in the error.
        case_names: of this process's examples.
        processes: those that train together.

    Raises:
        InputError: a part is infinite or not a number; names the parts and the cases of the processes that saw it.
    """
    finite = torch.stack([value.detach().float() for value in parts.values()]).isfinite().tolist()
    bad = [name for name, is_finite in zip(parts, finite, strict=True) if not is_finite]
    if processes.any(len(bad)):
        names = ", ".join(processes.gathered(bad))
        cases = ", ".join(processes.gathered(case_names if bad else ()))
        raise InputError(
            f"the loss ({names}) of {whose} is not finite on the cases {cases}; look at these, or train in a new run "
            "folder with a lower training.learning_rate or with training.precision=fp32."
        )


def loss_part(values: Mapping[str, Tensor], player: str, part: str) -> Tensor:
    """Return one part of a player's loss.

    Args:
        values: ``PLAYER/PART`` of one step.
        player: its name.
        part: its name.

    Raises:
        InputError: the loss has no such part.
    """
    if f"{player}/{part}" not in values:
        known = ", ".join(name.partition("/")[2] for name in values if name.startswith(f"{player}/"))
        raise InputError(f"training.plateau.part '{part}' is no part of the loss of '{player}'; it has {known}.")
    return values[f"{player}/{part}"]


class MovingAverage:
    """Exponential moving average of a module's state: what one uses after training.

    Args:
        module: the averages begin at its present state.
        decay: of each step, approached as ``min(decay, (1 + n) / (10 + n))`` after n steps, so that the first,
            random weights are soon forgotten.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.tensors = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the module's state after ``step`` earlier steps. Integer buffers are copied."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.tensors[name].lerp_(value, weight)
            else:
                self.tensors[name].copy_(value)
