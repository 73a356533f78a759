"""SPADE on the decoder side of the U-Net (FQCDM Eq. 9): a label scales and shifts what is normalized, place by place.

After Park et al. (2019), and in the decoder alone after Wang et al. (2022). MONAI's SPADE normalizes gamma and beta
themselves, by an instance norm that its convolutions bring along: what a label means on average is lost, and one that
is the same everywhere changes nothing at all. Here they stay as the convolutions make them. The U-Net keeps its own
group normalizations, whose learned scales gamma and beta add to, so that its weights are those of the unconditional
network.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi
from monai.networks.nets.diffusion_model_unet import AttnUpBlock, DiffusionUNetResnetBlock, UpBlock
from torch import Tensor, nn

from cardiosynth.diffusion.trunk import Features

Decode = Callable[[Features, Sequence[Features], Tensor], Features]
"""(features, skips, time embedding) -> features of the next finer level: a block of the decoder."""


class Modulation(nn.Module):
    """gamma and beta of one normalization; nothing changes before training.

    Args:
        dims: 2 or 3.
        labels: channels of the label map.
        hidden: channels between. Published (SPADE) 128.
        channels: of what is normalized.
    """

    def __init__(self, dims: int, labels: int, hidden: int, channels: int):
        super().__init__()
        conv = nn.Conv3d if dims == 3 else nn.Conv2d
        self.shared = conv(labels, hidden, 3, padding=1)
        self.gamma_beta = conv(hidden, 2 * channels, 3, padding=1)
        for parameter in self.gamma_beta.parameters():
            nn.init.zeros_(parameter)

    def forward(self, normalized: Features, label: Features) -> Features:
        """Return normalized * (1 + gamma) + beta, with gamma and beta of the label map at the same resolution."""
        gamma, beta = self.gamma_beta(F.relu(self.shared(label))).chunk(2, 1)
        return normalized * (1 + gamma) + beta


class LabelModulation(nn.Module):
    """A modulation after each of the two normalizations of every residual block of a decoder.

    Blocks that only change resolution (``resblock_updown``) stay as they are.

    Args:
        unet: whose decoder is modulated; its weights stay where they are.
        dims: 2 or 3.
        labels: channels of the label map.
        hidden: channels between label and modulation.
    """

    def __init__(self, unet: DiffusionModelUNetMaisi, dims: int, labels: int, hidden: int):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                Modulation(dims, labels, hidden, norm.num_channels)
                for resnet in block.resnets  # pyright: ignore[reportGeneralTypeIssues]
                for norm in (resnet.norm1, resnet.norm2)
            )
            for block in unet.up_blocks
        )

    def decoder(self, unet: DiffusionModelUNetMaisi, label: Float[Tensor, "b k *latent"]) -> list[Decode]:
        """Return the blocks of the decoder, coarsest first, told of a label map.

        Args:
            unet: as given at construction.
            label: at latent resolution; coarser levels see its mean over their voxels.
        """
        pool, levels = F.avg_pool3d if label.ndim == 5 else F.avg_pool2d, [label]
        for _ in range(len(self.blocks) - 1):
            levels.insert(0, pool(levels[0], 2))
        return [
            partial(_decode, block, modulations, level)
            for block, modulations, level in zip(unet.up_blocks, self.blocks, levels, strict=True)
        ]


def _decode(
    block: nn.Module, modulations: nn.Module, label: Features, h: Features, skips: Sequence[Features], time: Tensor
) -> Features:
    assert isinstance(block, AttnUpBlock | UpBlock), block
    assert isinstance(modulations, nn.ModuleList), modulations
    for index, resnet in enumerate(block.resnets):
        assert isinstance(resnet, DiffusionUNetResnetBlock), resnet
        pair = (modulations[2 * index], modulations[2 * index + 1])
        h = _residual(resnet, pair, label, torch.cat([h, skips[-1 - index]], 1), time)
        if isinstance(block, AttnUpBlock):
            h = block.attentions[index](h).contiguous()
    return h if block.upsampler is None else block.upsampler(h, time)


def _residual(
    resnet: DiffusionUNetResnetBlock, pair: tuple[nn.Module, nn.Module], label: Features, x: Features, time: Tensor
) -> Features:
    """Return MONAI's residual block with a modulation after each of its normalizations."""
    activate = resnet.nonlinearity
    h = resnet.conv1(activate(pair[0](resnet.norm1(x), label)))
    h = h + resnet.time_emb_proj(activate(time))[(..., *[None] * resnet.spatial_dims)]
    h = resnet.conv2(activate(pair[1](resnet.norm2(h), label)))
    return resnet.skip_connection(x) + h
