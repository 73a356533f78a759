"""What a computation costs, counted before it runs: FLOPs, bytes moved, and the most bytes alive at once.

The computation itself runs, on fake tensors that have shapes and no data: nothing is estimated from formulas, so what
is counted is what the code does, recomputation and casts included. A network for it is built on the ``meta`` device
and turned into a fake one by :func:`counterfeit`::

    with counting() as meter:
        network = counterfeit(network_on_meta)
        network(torch.empty(1, 4, 32, 32, 32)).sum().backward()
    meter.peak_bytes
"""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from cardiosynth.training.loop import Player, Task
from cardiosynth.training.settings import TrainingSettings
from cardiosynth.training.state import TrainingState

COUNTED_AS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        torch.ops.aten._scaled_dot_product_flash_attention_backward
    ),
}
"""Attention's operations on CPUs, which torch does not count, by those on GPUs, which it does."""


@dataclass(frozen=True)
class Cost:
    """What a computation costs.

    Attributes:
        flops: of matrix products, convolutions and attention; a multiply-add is two.
        moved_bytes: read and written by everything else, each tensor once per operation: what takes the time where
            there is nothing to multiply.
        peak_bytes: the most that was alive at once, what was there before included.
    """

    flops: int
    moved_bytes: int
    peak_bytes: int

    def __add__(self, other: "Cost") -> "Cost":
        """Return the cost of one after the other."""
        peak = max(self.peak_bytes, other.peak_bytes)
        return Cost(self.flops + other.flops, self.moved_bytes + other.moved_bytes, peak)

    def seconds(self, flops_per_s: float, bytes_per_s: float) -> float:
        """Return the time it takes at these sustained rates, arithmetic and the rest one after the other."""
        return self.flops / flops_per_s + self.moved_bytes / bytes_per_s


class Meter(TorchDispatchMode):
    """Counts what runs while it is active. A storage counts from its creation to its end, a view not at all.

    Args:
        scratch: what a kernel takes for itself while it runs, in bytes, from the operation's inputs and outputs.
    """

    def __init__(self, scratch: "Scratch | None" = None):
        super().__init__()
        self.live_bytes = 0
        self._flops = self._moved_bytes = self._peak_bytes = 0
        self._scratch = scratch
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run one operation and count it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given, made = _tensors((args, kwargs)), _tensors(result)
        for tensor in made:
            self._watch(tensor.untyped_storage())
        extra = 0 if self._scratch is None else self._scratch(func, given, made)
        self._peak_bytes = max(self._peak_bytes, self.live_bytes + extra)
        flops = flop_registry.get(COUNTED_AS.get(func.overloadpacket, func.overloadpacket))
        if flops is not None:
            self._flops += flops(*args, **kwargs, out_val=result)
        elif given and func.namespace != "prim" and not func.is_view:
            self._moved_bytes += sum(_num_bytes(x) for x in {id(x): x for x in given + made}.values())
        return result

    def take(self) -> Cost:
        """Return what was counted since the last call and begin anew; what is alive stays counted."""
        cost = Cost(self._flops, self._moved_bytes, self._peak_bytes)
        self._flops, self._moved_bytes, self._peak_bytes = 0, 0, self.live_bytes
        return cost

    def _watch(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._known:
            self._known.add(storage)
            self.live_bytes += storage.nbytes()
            weakref.finalize(storage, self._release, storage.nbytes())

    def _release(self, num_bytes: int) -> None:
        self.live_bytes -= num_bytes


Scratch = Callable[[Any, Sequence[Tensor], Sequence[Tensor]], int]
"""(operation, tensors it read, tensors it made) -> bytes."""


def processor_scratch(operation: Any, given: Sequence[Tensor], made: Sequence[Tensor]) -> int:
    """Return what an operation on the CPU takes beside its result, as measured.

    oneDNN convolves channels-last tensors as they are and copies others first, also those of float32 convolutions of
    one voxel; softmax copies what is not stored plainly. Nothing else here takes memory of its own that counts.
    """
    match operation.overloadpacket:
        case torch.ops.aten.convolution:
            x, weight = given[:2]
            result = 0 if _is_channels_last(weight) else _num_bytes(made[0])
            return max(_num_bytes(x), result) if _is_copied(x, weight) else 0
        case torch.ops.aten.convolution_backward:
            gradient, x, weight = given[:3]
            return sum(_num_bytes(tensor) for tensor in (gradient, x) if _is_copied(tensor, weight))
        case torch.ops.aten._softmax | torch.ops.aten._log_softmax:
            return 0 if given[0].is_contiguous() else _num_bytes(made[0])
    return 0


def _is_copied(x: Tensor, weight: Tensor) -> bool:
    is_pointwise = all(n == 1 for n in weight.shape[2:])
    return not _is_channels_last(x) or (is_pointwise and x.dtype == torch.float32)


def _is_channels_last(x: Tensor) -> bool:
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim)
    return layout is not None and x.is_contiguous(memory_format=layout)


WIDENED = ("group_norm", "layer_norm", "softmax", "log_softmax", "cross_entropy")
"""Functions that autocast computes in float32 on GPUs and in bfloat16 on CPUs."""


def _widened(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def computed(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return function(x.float() if torch.is_autocast_enabled("cpu") else x, *args, **kwargs)

    return computed


@contextmanager
def counting(*, gpu: bool) -> Iterator[Meter]:
    """Make every tensor fake and count what is done with them.

    Args:
        gpu: count what a GPU would do. The fake tensors are the CPU's all the same, because without a GPU torch cannot
            run a backward pass on fake ones of a GPU; what differs - which operations autocast widens, whose kernels
            take memory - is put in its place.
    """
    with ExitStack() as stack:
        # Small constants, such as a schedule's, may be real.
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        meter = stack.enter_context(Meter(None if gpu else processor_scratch))
        if gpu:
            # Patched and not watched for by a mode, because modes are off where checkpoints compute again.
            for name in WIDENED:
                stack.enter_context(patch.object(F, name, _widened(getattr(F, name))))
        yield meter


def counterfeit(module: nn.Module) -> nn.Module:
    """Turn a module that was built on the ``meta`` device into one of fake tensors, within :func:`counting`."""
    for part in module.modules():
        for name, value in part.named_parameters(recurse=False):
            part.register_parameter(name, nn.Parameter(_fake(value), value.requires_grad))
        for name, value in part.named_buffers(recurse=False):
            part.register_buffer(name, _fake(value), persistent=name not in part._non_persistent_buffers_set)
    return module


class StepCost(NamedTuple):
    """Cost of a training step, and the bytes that stay between steps: weights, their average, moments."""

    step: Cost
    held_bytes: int


def count_training_step(
    meter: Meter, task: Task, batch: Mapping[str, Tensor], settings: TrainingSettings, *, bfloat16: bool
) -> StepCost:
    """Return the cost of one step of the loop, once every player moves and the optimizers have their moments.

    Args:
        meter: from :func:`counting`, active.
        task: its module is fake.
        batch: fake, as the task's ``batch`` shapes it.
        settings: the loop's.
        bfloat16: whether losses are computed under autocast.
    """
    players = task.players()
    task.module.train()
    state = TrainingState(task.module, {player.name: player.parameters for player in players}, settings)
    for player in players:
        _make_moments(player, state)
    held = meter.live_bytes - sum(_num_bytes(value) for value in batch.values())
    batch = {**batch, "step": torch.tensor(settings.steps)}
    meter.take()
    for player in players:
        _move(player, batch, state, settings, bfloat16)
    state.average.update(state.used, 0)
    return StepCost(meter.take(), held)


def _make_moments(player: Player, state: TrainingState) -> None:
    optimizer = state.optimizers[player.name]
    for parameter in player.parameters:
        parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


def _move(
    player: Player, batch: Mapping[str, Tensor], state: TrainingState, settings: TrainingSettings, bfloat16: bool
) -> None:
    state.optimizers[player.name].zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        total = player.loss(batch)["total"]
    total.backward()
    nn.utils.clip_grad_norm_(player.parameters, settings.max_gradient_norm)
    state.optimizers[player.name].step()


def _fake(like: Tensor) -> Tensor:
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device="cpu")


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
