"""T2I-Adapter (Mou et al. 2024): a small network beside a frozen U-Net, whose maps are added to its encoder.

After the last block of every level its map is added to the features, before they go on down and before they are kept
as a skip. So it reaches the middle of the U-Net, where a ControlNet adds to skips and to the middle block's output.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi
from monai.networks.nets.diffusion_model_unet import AttnDownBlock, DownBlock
from torch import Tensor, nn

from cardiosynth.diffusion.trunk import Features

Encode = Callable[[Features, Tensor], tuple[Features, list[Features]]]
"""(features, time embedding) -> features of the next coarser level, all that becomes skips: a block of the encoder."""
NUM_BLOCKS = 2
"""Residual blocks per level. Published 2."""


class Adapter(nn.Module):
    """From the features of a condition to a map per level of an encoder.

    Maps pass through zero weights at first, as all that conditions our networks does; published are none.

    Args:
        dims: 2 or 3.
        features: channels of the condition's features, at the first level's resolution.
        channels: of the U-Net, per level.
    """

    def __init__(self, dims: int, features: int, channels: Sequence[int]):
        super().__init__()
        conv = nn.Conv3d if dims == 3 else nn.Conv2d
        self.levels = nn.ModuleList(
            nn.Sequential(conv(before, wide, 1), *(_Residual(dims, wide) for _ in range(NUM_BLOCKS)))
            for before, wide in pairwise((features, *channels))
        )
        self.out = nn.ModuleList(conv(wide, wide, 1) for wide in channels)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, h: Float[Tensor, "b f *latent"]) -> list[Features]:
        """Return the maps, finest first; between levels voxels are averaged."""
        pool, maps = F.avg_pool3d if h.ndim == 5 else F.avg_pool2d, []
        for index, (level, out) in enumerate(zip(self.levels, self.out, strict=True)):
            h = level(h if index == 0 else pool(h, 2))
            maps.append(out(h))
        return maps

    def encoder(self, unet: DiffusionModelUNetMaisi, features: Float[Tensor, "b f *latent"]) -> list[Encode]:
        """Return the blocks of the encoder, finest first, with the maps added.

        Args:
            unet: whose encoder it is; its weights stay where they are.
            features: of the condition.
        """
        return [partial(_encode, block, added) for block, added in zip(unet.down_blocks, self(features), strict=True)]


class _Residual(nn.Module):
    """x + a 3 and a 1 wide convolution, ReLU between, as published."""

    def __init__(self, dims: int, channels: int):
        super().__init__()
        conv = nn.Conv3d if dims == 3 else nn.Conv2d
        self.first, self.second = conv(channels, channels, 3, padding=1), conv(channels, channels, 1)

    def forward(self, x: Features) -> Features:
        """Return the sum."""
        return x + self.second(F.relu(self.first(x)))


def _encode(block: nn.Module, added: Features, h: Features, time: Tensor) -> tuple[Features, list[Features]]:
    """Return what MONAI's block returns, with ``added`` after its last residual block (and attention)."""
    assert isinstance(block, AttnDownBlock | DownBlock), block
    outputs, last = [], len(block.resnets) - 1
    for index, resnet in enumerate(block.resnets):
        h = resnet(h, time)
        if isinstance(block, AttnDownBlock):
            h = block.attentions[index](h).contiguous()
        if index == last:
            h = h + added
        outputs.append(h)
    if block.downsampler is not None:
        h = block.downsampler(h, time)
        outputs.append(h)
    return h, outputs
