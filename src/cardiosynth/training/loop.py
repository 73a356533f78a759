"""The one training loop: a diffusion model (one player), a VAE-GAN (two) and a segmenter are all trained here.

Batches are functions of (seed, step, index in the global batch), never of rank, and everything a step changes is in
the checkpoint. So a run that was stopped anywhere and started again equals an unbroken one bit for bit (on the CPU,
and on GPUs as far as their kernels repeat themselves), and several processes equal one with the same global batch, but
for dropout and batch statistics.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from cardiosynth.core.random import generator, named_seed
from cardiosynth.core.store import checkpoints, read_json, remove_old, remove_partial, save_checkpoint
from cardiosynth.training.compiled import compiled
from cardiosynth.training.log import RunLog, keep_config
from cardiosynth.training.optim import check_loss, clip_gradients, loss_part
from cardiosynth.training.processes import Processes, join_processes
from cardiosynth.training.settings import TrainingSettings, uses_bfloat16
from cardiosynth.training.state import TrainingState
from cardiosynth.training.stop import StopRequest, stopped
from cardiosynth.training.watch import Watch

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Player:
    """Parameters that descend one loss. Most models have one player, a VAE-GAN has two.

    Attributes:
        name: heads the player's values in ``metrics.jsonl``.
        parameters: belong to the task's module.
        loss: parts of the loss of a batch, each a mean over its examples; ``"total"`` is descended, the rest is
            logged. A deterministic function of module and batch (but for dropout). Called under autocast: what needs
            float32 must cast to it.
        first_step: finished steps of the run before the player begins to move, as in a warm-up without a discriminator.
        follow: changes what follows no gradient, such as codes that are averages of latents, after the player's step;
            alike in every process. What it changes is in the module's state.
        pace: the player's learning rate over the run's, as for a discriminator that learns faster (Heusel et al. 2017).
    """

    name: str
    parameters: list[nn.Parameter]
    loss: Callable[[Batch], dict[str, Tensor]]
    first_step: int = 0
    follow: Callable[[Batch, Processes], None] | None = None
    pace: float = 1.0


@runtime_checkable
class Task(Protocol):
    """What the loop needs to know of a model."""

    @property
    def module(self) -> nn.Module:
        """All weights, those that are not trained included: what a checkpoint holds; see also `WithOpponent`."""
        ...

    def players(self) -> list[Player]:
        """Return the players, in the order in which they move within a step."""
        ...

    def batch(self, generators: Sequence[torch.Generator]) -> Batch:
        """Return one example per generator, stacked, on the CPU.

        All randomness of an example (case, crop, noise, time) is drawn from its own generator and travels in the batch.
        The loop adds ``step``, the number of finished steps (0-dimensional), for losses that change on the way.
        """
        ...

    def case_names(self, batch: Batch) -> list[str]:
        """Return the names of the cases that a batch was made from, so that a loss that fails can tell of which."""
        ...


def fit(
    task: Task,
    settings: TrainingSettings,
    run: Path,
    record: Mapping[str, Any],
    *,
    device: str = "cpu",
    label: str = "train",
    watches: Sequence[Watch] = (),
    stop_at: int | None = None,
) -> Path:
    """Train ``task`` up to ``settings.steps``, from the newest checkpoint in ``run`` if there is one.

    Args:
        task: its weights are where training starts; afterwards they are the raw ones, not the averaged.
        settings: the loop's.
        run: the stage's folder; gets ``config.json``, ``metrics.jsonl``, TensorBoard events and ``step-*/``.
        record: JSON-like, what the checkpoint is; must be the same when the run goes on.
        device: ``cpu`` or ``cuda``.
        label: what is being trained, for progress and messages.
        watches: what is looked at on the way, with the averaged weights in place, in the process that writes.
        stop_at: save and return after this step, as if asked to stop.

    Returns:
        The newest checkpoint: of the last step, or of ``stop_at``.

    Raises:
        InputError: the run was begun with other settings, a loss or a gradient is not finite, a loss cannot be compiled
            though that was asked for, or the disk is full.
        SystemExit: SIGTERM or SIGINT came; the step was finished and saved.
    """
    processes = join_processes(device)
    own = processes.own_examples(settings.batch_size)
    record = {**record, "training": settings.model_dump(mode="json")}
    newest = _begin(run, record, processes)
    done = 0 if newest is None else int(read_json(newest / "record.json")["step"])
    last = settings.steps if stop_at is None else min(stop_at, settings.steps)
    if newest is not None and done >= last:
        return newest
    module = task.module.to(processes.device).train()
    players = _compiled(task.players()) if settings.compile else task.players()
    state = TrainingState(module, {player.name: player.parameters for player in players}, settings)
    if newest is not None:
        state.restore(newest, done)
    processes.align(module)
    with ExitStack() as stack:
        log = stack.enter_context(RunLog(run, label, settings, done)) if processes.writes else None
        stop = stack.enter_context(StopRequest())
        stack.enter_context(_forked_generators(processes.device))
        while state.step < last:
            started, rate = time.monotonic(), state.learning_rate
            batch = task.batch([generator(settings.seed, "batch", state.step, index) for index in own])
            values = take_step(state, players, batch, settings, processes, task.case_names)
            elapsed_s, row = time.monotonic() - started, {}
            if state.step % settings.log_every == 0:
                row = {name: processes.mean(value) for name, value in values.items()}
                row["learning_rate"] = rate
            if log is not None:
                row |= look(watches, state)
                if row:
                    log.row(state.step, row, elapsed_s)
                log.advance(loss=float(values[f"{players[0].name}/total"]))
            asked = processes.any(stop.signal)
            if state.step % settings.checkpoint_every == 0 or state.step == last or asked:
                newest = _save(run, state, record, settings, processes)
            if asked:
                raise stopped(asked, label, state.step, settings.steps)
    assert newest is not None, "there is nothing to do before step 1"
    return newest


def take_step(
    state: TrainingState,
    players: Sequence[Player],
    batch: Batch,
    settings: TrainingSettings,
    processes: Processes,
    case_names: Callable[[Batch], list[str]],
) -> dict[str, Tensor]:
    """Move every player once, in order, and take in the new weights.

    Returns:
        ``PLAYER/PART`` and ``PLAYER/gradient_norm`` of this process, scalars.

    Raises:
        InputError: a loss is not finite, in any process, or a gradient is not.
    """
    device, rate, values = processes.device, state.learning_rate, {}
    batch = {name: value.to(device) for name, value in batch.items()} | {"step": torch.tensor(state.step)}
    # Dropout reads torch's global generators; examples cannot have their own there, so each process has.
    torch.manual_seed(named_seed(settings.seed, "dropout", state.step, processes.rank))
    for player in (player for player in players if state.step >= player.first_step):
        optimizer = state.optimizers[player.name]
        for group in optimizer.param_groups:
            group["lr"] = rate * player.pace
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(settings.precision, device)):
            parts = player.loss(batch)
        whose = f"'{player.name}' at step {state.step + 1}"
        check_loss(parts, whose, case_names(batch), processes)
        parts["total"].backward()
        processes.average_gradients(player.parameters)
        norm = clip_gradients(player.parameters, settings.max_gradient_norm, whose)
        optimizer.step()
        if player.follow is not None:
            player.follow(batch, processes)
        values |= {f"{player.name}/{name}": value.detach() for name, value in parts.items()}
        values[f"{player.name}/gradient_norm"] = norm
    if settings.plateau is not None and state.plateau is not None:
        watched = loss_part(values, players[0].name, settings.plateau.part)
        state.plateau.take(processes.mean(watched))
    state.average.update(state.used, state.step)
    state.step += 1
    return values


def look(watches: Sequence[Watch], state: TrainingState) -> dict[str, float]:
    """Return what the watches that are due see of the averaged weights; training goes on as if nobody had looked."""
    due = [watch for watch in watches if watch.is_due(state.step)]
    if not due:
        return {}
    with state.averaged(), torch.no_grad():
        return {name: value for watch in due for name, value in watch.look(state.step).items()}


def _compiled(players: Sequence[Player]) -> list[Player]:
    return [replace(player, loss=compiled(player.loss, f"'{player.name}'")) for player in players]


def _begin(run: Path, record: Mapping[str, Any], processes: Processes) -> Path | None:
    found = checkpoints(run)
    processes.wait()
    if processes.writes:
        remove_partial(run)
    keep_config(run, record, resumes=bool(found), writes=processes.writes)
    return found[-1] if found else None


def _save(
    run: Path, state: TrainingState, record: Mapping[str, Any], settings: TrainingSettings, processes: Processes
) -> Path:
    if processes.writes:
        save_checkpoint(run, state.step, state.average.tensors, state.tensors(), record)
        remove_old(run, settings.keep_checkpoints)
    processes.wait()
    return checkpoints(run)[-1]


def _forked_generators(device: torch.device) -> AbstractContextManager[None]:
    # The caller's global generators are given back as they were.
    return torch.random.fork_rng([device] if device.type == "cuda" else [])
