"""torch.compile for losses: the whole loss in one graph, or an error that says why not."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from cardiosynth.core.errors import InputError

Loss = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def compiled(loss: Loss, whose: str) -> Loss:
    """Return ``loss`` compiled as one graph, on its first call.

    What torch cannot put into the graph is an error: left to itself it would compute those parts as before, and nobody
    would learn why nothing became faster.

    Args:
        loss: a player's.
        whose: names the player in the error.

    Raises:
        InputError: (when called) the loss cannot be compiled on this machine.
    """
    from torch._dynamo.exc import TorchDynamoException

    graph = torch.compile(loss, fullgraph=True)

    def in_one_graph(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        try:
            return graph(batch)
        except TorchDynamoException as error:
            why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise InputError(
                f"training.compile: the loss of {whose} cannot be compiled here ({why}); set training.compile=false."
            ) from error

    return in_one_graph
