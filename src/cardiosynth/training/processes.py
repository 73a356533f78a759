"""The processes that train together: who writes, on which device, and averages over them.

accelerate finds devices and the launch (torchrun, accelerate launch, a plain process). Modules are not wrapped: the
loop averages gradients after each backward, so that a loss may call any part of a module.
"""

import atexit
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import set_mode


@dataclass(frozen=True)
class Processes:
    """This process among those of one run.

    Attributes:
        rank: index of this process, 0 for the one that writes.
        count: how many there are.
        device: where this process computes.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def own_examples(self, batch_size: int) -> range:
        """Return the indices in the global batch that this process computes.

        Raises:
            InputError: the batch cannot be shared out evenly.
        """
        share, rest = divmod(batch_size, self.count)
        if rest:
            raise InputError(
                f"training.batch_size {batch_size} cannot be shared by {self.count} processes; make it a multiple."
            )
        return range(self.rank * share, (self.rank + 1) * share)

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes; a gradient that no process has stays None."""
        if self.count == 1:
            return
        here = [parameter.grad is not None for parameter in parameters]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flags = torch.tensor(here, dtype=torch.float32, device=self.device)
        flat = torch.cat([gradient.flatten() for gradient in gradients] + [flags])
        dist.all_reduce(flat)
        sums = flat[: -len(here)].split([gradient.numel() for gradient in gradients])
        for parameter, total, holders in zip(parameters, sums, flat[-len(here) :].tolist(), strict=True):
            parameter.grad = (total / self.count).view_as(parameter) if holders else None

    def mean(self, value: Tensor) -> float:
        """Return the mean of a scalar over the processes."""
        value = value.detach().float().clone()
        if self.count > 1:
            dist.all_reduce(value)
        return float(value) / self.count

    def any(self, flag: int) -> int:
        """Return the largest ``flag`` of all processes, so that all of them act on it at the same step."""
        if self.count == 1:
            return flag
        value = torch.tensor(flag, device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return int(value)

    def gathered(self, texts: Sequence[str]) -> list[str]:
        """Return the texts of all processes, each once, in order."""
        found: list[Sequence[str]] = [list(texts)] * self.count
        if self.count > 1:
            dist.all_gather_object(found, list(texts))
        return sorted({text for part in found for text in part})

    def whole_batch(self, examples: Tensor) -> Tensor:
        """Return the examples of all processes, without gradients, in the order of the global batch."""
        if self.count == 1:
            return examples.detach()
        parts = [torch.empty_like(examples) for _ in range(self.count)]
        dist.all_gather(parts, examples.detach().contiguous())
        return torch.cat(parts)

    @torch.no_grad()
    def align(self, module: nn.Module) -> None:
        """Give every process the weights and buffers of the first."""
        if self.count > 1:
            for value in module.state_dict().values():
                dist.broadcast(value, src=0)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            dist.barrier()

    @contextmanager
    def writer_first(self) -> Iterator[None]:
        """Let the process that writes go through the block first; the others find there what it has written."""
        if not self.writes:
            self.wait()
        try:
            yield
        finally:
            if self.writes:
                self.wait()


ALONE = Processes(0, 1, torch.device("cpu"))
"""One process by itself."""


def join_processes(device: str) -> Processes:
    """Join the other processes of this launch, if there are any. All but the one that writes become quiet.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``. With several processes each takes the GPU of its local rank.

    Raises:
        InputError: the device is not there.
    """
    from accelerate import PartialState

    wanted = torch.device(device)
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {device}: torch sees no CUDA device here; use --device cpu.")
    state = PartialState(cpu=wanted.type == "cpu")
    if state.num_processes > 1:
        _leave_at_exit()
    if state.process_index > 0:
        set_mode("quiet")
    own = wanted if state.num_processes == 1 or state.device is None else state.device
    return Processes(state.process_index, state.num_processes, own)


@cache
def _leave_at_exit() -> None:
    # A process that ends while the group's threads still run is now and then killed by the C++ runtime, after its work
    # is done and saved.
    atexit.register(lambda: dist.destroy_process_group() if dist.is_initialized() else None)
