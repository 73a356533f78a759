"""MAISI's U-Net and ControlNet: MONAI's modules, so that released weights fit, and a forward pass of our own.

The pass differs from MONAI's in four points. Residuals are added out of place: MONAI's ``+=`` overwrites what autograd
has kept, so that its U-Net and ControlNet cannot learn together. What the ``+=`` does besides - the last skip *is* the
middle block's input, so the last residual enters the middle block, too - is a switch, because released weights learned
with it. The condition's embedding is given, not computed again at every step. Blocks may be checkpointed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from monai.apps.generation.maisi.networks.controlnet_maisi import ControlNetMaisi
from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi
from monai.networks.blocks.selfattention import SABlock
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Trunk = DiffusionModelUNetMaisi | ControlNetMaisi
Features = Float[Tensor, "b _ ..."]
"""Of any level: channels and resolution differ from one to the next."""


def attend_fused(network: nn.Module) -> None:
    """Compute attention by PyTorch's fused kernels, whose memory grows linearly with the voxels, on every device.

    MONAI refuses to be asked for them at construction where there is no CUDA.
    """
    blocks = [module for module in network.modules() if isinstance(module, SABlock)]
    assert blocks, "the middle block always has attention"
    for block in blocks:
        assert isinstance(block.use_flash_attention, bool), "MONAI renamed the switch"
        block.use_flash_attention = True


def time_embedding(
    network: Trunk, timesteps: Float[Tensor, "b"], dtype: torch.dtype, modality: Int[Tensor, "b"] | None = None
) -> Float[Tensor, "b e"]:
    """Return the embedding of the timesteps, plus that of the modality where the network has one."""
    embedding = network.time_embed(get_timestep_embedding(timesteps, network.block_out_channels[0]).to(dtype))
    if network.num_class_embeds is None:
        return embedding
    assert modality is not None, "this network must be told the modality"
    return embedding + network.class_embedding(modality).to(dtype)


def residuals(
    network: ControlNetMaisi, x: Features, time: Float[Tensor, "b e"], embedding: Features, checkpointing: bool
) -> tuple[list[Features], Features]:
    """Return what a ControlNet adds to the U-Net's skips, and to the middle block's output.

    Args:
        network: without its own stem.
        x: noisy latents.
        time: see :func:`time_embedding`.
        embedding: of the condition, as many channels as the first level.
        checkpointing: compute blocks again in the backward pass instead of keeping what they need.
    """
    h, skips = _down(network, network.conv_in(x) + embedding, time, checkpointing)
    h = _run(checkpointing, network.middle_block, h, time)
    found = [block(skip) for block, skip in zip(network.controlnet_down_blocks, skips, strict=True)]
    return found, network.controlnet_mid_block(h)


def predict(
    network: DiffusionModelUNetMaisi,
    x: Features,
    time: Float[Tensor, "b e"],
    added: tuple[Sequence[Features], Features] | None,
    *,
    residual_leak: bool,
    checkpointing: bool,
    encoder: Sequence[Callable[..., Any]] | None = None,
    decoder: Sequence[Callable[..., Features]] | None = None,
) -> Features:
    """Return the U-Net's output.

    Args:
        network: the U-Net.
        x: noisy latents, and what is concatenated to them.
        time: see :func:`time_embedding`, followed by the embeddings of region and spacing.
        added: what :func:`residuals` returned; None where there is no ControlNet.
        residual_leak: let the last residual enter the middle block, as in MONAI.
        checkpointing: compute blocks again in the backward pass instead of keeping what they need.
        encoder: what runs in the place of the network's down-blocks, see ``diffusion/adapter.py``; None for these.
        decoder: what runs in the place of the network's up-blocks, see ``diffusion/spade.py``; None for these.
    """
    h, skips = _down(network, network.conv_in(x), time, checkpointing, encoder)
    if added is not None:
        skips = [skip + residual for skip, residual in zip(skips, added[0], strict=True)]
        h = skips[-1] if residual_leak else h
    h = _run(checkpointing, network.middle_block, h, time)
    h = h if added is None else h + added[1]
    for block, decode in zip(network.up_blocks, decoder or network.up_blocks, strict=True):
        taken = len(block.resnets)  # pyright: ignore[reportArgumentType]
        h, skips = _run(checkpointing, decode, h, skips[-taken:], time), skips[:-taken]
    return network.out(h)


def _down(
    network: Trunk,
    h: Features,
    time: Tensor,
    checkpointing: bool,
    encoder: Sequence[Callable[..., Any]] | None = None,
) -> tuple[Features, list[Features]]:
    """Return the last and all outputs of the encoder; the last of all is the last."""
    skips = [h]
    for encode in encoder or network.down_blocks:
        h, outputs = _run(checkpointing, encode, h, time)
        skips += outputs
    return h, skips


def _run(checkpointing: bool, block: Callable[..., Any], *inputs: Any) -> Any:
    if checkpointing and torch.is_grad_enabled():
        # There is no dropout, so that no state of a generator need be kept.
        return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
    return block(*inputs)
