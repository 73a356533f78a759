"""Weights from one training to the next, strictly, on any device, with or without the output layers."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from cardiosynth.core.errors import InputError

HEAD = ".seg_layers."
"""In the names of the layers that give the segmentation, at every level of deep supervision."""


def transfer_weights(network: nn.Module, checkpoint: Path, head: bool) -> None:
    """Give a network the weights of a checkpoint of nnU-Net.

    Such a checkpoint is a pickle, which can run any code: take those of people you trust only.

    Args:
        network: nnU-Net's, maybe compiled.
        checkpoint: ``checkpoint_final.pth``; of a GPU or not.
        head: whether the output layers are taken too; otherwise they keep what they have.

    Raises:
        InputError: no such file, or a weight that is missing, foreign or of another shape.
    """
    if not checkpoint.exists():
        raise InputError(f"{checkpoint} does not exist; finish that training first.")
    found = torch.load(checkpoint, map_location="cpu", weights_only=False)["network_weights"]
    plain: Any = getattr(network, "_orig_mod", network)
    own = plain.state_dict()
    taken = {name: value for name, value in found.items() if head or HEAD not in name}
    kept = {name: value for name, value in own.items() if not head and HEAD in name}
    for name in sorted(own.keys() | taken.keys()):
        there, wanted = (shapes.get(name) for shapes in ({**taken, **kept}, own))
        if there is None or wanted is None or there.shape != wanted.shape:
            sizes = " and ".join("nothing" if x is None else str(tuple(x.shape)) for x in (there, wanted))
            raise InputError(
                f"{checkpoint}: '{name}' is {sizes} in the new network; use the same plans, and head_transfer=false "
                "where the labels differ."
            )
    plain.load_state_dict({**taken, **kept})
