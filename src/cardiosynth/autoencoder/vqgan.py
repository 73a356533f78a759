"""VQGAN's encoder and decoder (Esser et al. 2021), in two or three dimensions, behind the contract of `Autoencoder`.

Two things differ: no attention at the coarsest level, which no budget could stream (FQCDM does not say whether it has
any), and voxels are doubled by linear interpolation instead of repetition, which leaves no blocks.
"""

from itertools import pairwise

from torch import nn

from cardiosynth.autoencoder.chain import Branch, Chain, Merge
from cardiosynth.autoencoder.layers import Convolve, Downsample, Layer, Normalize, Scale, Upsample
from cardiosynth.autoencoder.networks import Autoencoder, AutoencoderSettings, convolution


class VqganAutoencoder(Autoencoder):
    """Residual blocks with group normalization and SiLU, halved by strided convolutions."""

    LOG_VARIANCE = (-30.0, 20.0)

    def __init__(self, settings: AutoencoderSettings):
        super().__init__(settings)
        dims, channels, groups = settings.spatial_dims, settings.channels, settings.norm_groups
        middle, finest = channels[-1], channels[0]
        down: list[nn.Module] = [convolution(dims, 1, finest, 3)]
        up: list[nn.Module] = []
        for level, count in enumerate(settings.num_res_blocks):
            wide = channels[level]
            if level:
                down.append(_halving(dims, channels[level - 1]))
            inner = (channels[max(0, level - 1)], *(wide,) * count)
            outer = (channels[min(level + 1, len(channels) - 1)], *(wide,) * count)
            down += [NormalizedResidual(dims, a, b, groups) for a, b in pairwise(inner)]
            doubling = [nn.Upsample(scale_factor=2), convolution(dims, wide, wide, 3)] if level else []
            up = [*(NormalizedResidual(dims, a, b, groups) for a, b in pairwise(outer)), *doubling, *up]
        mixing = [NormalizedResidual(dims, middle, middle, groups) for _ in range(2)]
        self.encoder = nn.Sequential(
            *down, mixing[0], _norm(middle, groups), convolution(dims, middle, self.moment_channels, 3)
        )
        self.decoder = nn.Sequential(
            convolution(dims, self.decoder_channels, middle, 3), mixing[1], *up,
            _norm(finest, groups), convolution(dims, finest, 1, 3),
        )  # fmt: skip

    def encoding(self) -> Chain:
        """Return the layers from images to moments; an axis that is not a multiple of ``compression`` loses its end."""
        return Chain((Scale("to [-1, 1]", 2, -1), *_described(self.encoder, "encoder")))

    def decoding(self) -> Chain:
        """Return the layers from latents to images."""
        return Chain((*_described(self.decoder, "decoder"), Scale("to [0, 1]", 0.5, 0.5)))


class NormalizedResidual(nn.Module):
    """shortcut(x) + two convolutions, each after group normalization and SiLU."""

    def __init__(self, dims: int, inputs: int, outputs: int, groups: int):
        super().__init__()
        self.norm1, self.first = _norm(inputs, groups), convolution(dims, inputs, outputs, 3)
        self.norm2, self.second = _norm(outputs, groups), convolution(dims, outputs, outputs, 3)
        self.shortcut = None if inputs == outputs else convolution(dims, inputs, outputs, 1)

    def layers(self, name: str) -> list[Layer]:
        """Return the block as layers."""
        shortcut = None if self.shortcut is None else Convolve(f"{name}.shortcut", self.shortcut)
        return [
            Branch(name),
            Normalize(f"{name}.norm1", self.norm1, activated=True),
            Convolve(f"{name}.first", self.first),
            Normalize(f"{name}.norm2", self.norm2, activated=True),
            Convolve(f"{name}.second", self.second),
            Merge(name, shortcut),
        ]


def _described(half: nn.Sequential, prefix: str) -> list[Layer]:
    layers: list[Layer] = []
    for index, module in enumerate(half):
        name = f"{prefix}.{index}"
        if isinstance(module, NormalizedResidual):
            layers += module.layers(name)
        elif isinstance(module, nn.GroupNorm):
            layers.append(Normalize(name, module, activated=True))
        elif isinstance(module, nn.Upsample):
            layers.append(Upsample(name))
        else:
            assert isinstance(module, nn.Conv2d | nn.Conv3d), module
            layers.append(Downsample(name, module) if module.stride[0] == 2 else Convolve(name, module))
    return layers


def _norm(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


def _halving(dims: int, channels: int) -> nn.Conv2d | nn.Conv3d:
    return (nn.Conv3d if dims == 3 else nn.Conv2d)(channels, channels, 3, stride=2)
