"""VQ-VAE's encoder and decoder (van den Oord et al. 2017, section 4.1), in two or three dimensions.

Windows of 4 voxels and stride 2, residual blocks of a 3x3 and a 1x1 convolution, ReLU, no normalization.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from cardiosynth.autoencoder.chain import Branch, Chain, Merge
from cardiosynth.autoencoder.layers import Convolve, Count, Layer, Rows, Scale, Shape, Sizes, Slab
from cardiosynth.autoencoder.networks import Autoencoder, AutoencoderSettings, convolution

NARROWED = 4
"""A residual block's 3x3 convolution has a fourth of the level's channels. Published 32 of 128."""


class VqvaeAutoencoder(Autoencoder):
    """Strided convolutions, then residual blocks at latent resolution; the decoder mirrors them."""

    LOG_VARIANCE = (-20.0, 4.0)

    def __init__(self, settings: AutoencoderSettings):
        super().__init__(settings)
        dims, channels, blocks = settings.spatial_dims, settings.channels, settings.num_res_blocks[-1]
        wide, steps = channels[-1], list(pairwise((1, *channels)))
        self.down = nn.ModuleList(_strided(dims, fine, coarse) for fine, coarse in steps)
        self.mix = convolution(dims, wide, wide, 3)
        self.encoder_blocks = nn.ModuleList(_Residual(dims, wide) for _ in range(blocks))
        self.to_latent = convolution(dims, wide, self.moment_channels, 1)
        self.from_latent = convolution(dims, self.decoder_channels, wide, 3)
        self.decoder_blocks = nn.ModuleList(_Residual(dims, wide) for _ in range(blocks))
        self.up = nn.ModuleList(_transposed(dims, coarse, fine) for fine, coarse in reversed(steps))

    @property
    def last_weight(self) -> Tensor:
        """The kernel of the decoder's last convolution, a transposed one."""
        last = self.up[-1]
        assert isinstance(last, nn.ConvTranspose2d | nn.ConvTranspose3d)
        return last.weight

    def encoding(self) -> Chain:
        """Return the layers from images to moments; the grid must be a multiple of ``compression``."""
        layers: list[Layer] = [Scale("to [-1, 1]", 2, -1)]
        for index, step in enumerate(self.down):
            assert isinstance(step, nn.Conv2d | nn.Conv3d)
            layers += [Halve(f"down.{index}", step), Rectify(f"down.{index} (ReLU)")]
        layers += [Convolve("mix", self.mix), *_described(self.encoder_blocks, "encoder_blocks")]
        return Chain((*layers, Rectify("encoder (ReLU)"), Convolve("to_latent", self.to_latent)))

    def decoding(self) -> Chain:
        """Return the layers from latents to images."""
        layers = [Convolve("from_latent", self.from_latent), *_described(self.decoder_blocks, "decoder_blocks")]
        for index, step in enumerate(self.up):
            assert isinstance(step, nn.ConvTranspose2d | nn.ConvTranspose3d)
            layers += [Rectify(f"up.{index} (ReLU)"), Double(f"up.{index}", step)]
        return Chain((*layers, Scale("to [0, 1]", 0.5, 0.5)))


class _Residual(nn.Module):
    """x + a 3x3 convolution to a few channels and a 1x1 one back, each after a ReLU."""

    def __init__(self, dims: int, channels: int):
        super().__init__()
        narrow = max(1, channels // NARROWED)
        self.first, self.second = convolution(dims, channels, narrow, 3), convolution(dims, narrow, channels, 1)


def _described(blocks: nn.ModuleList, name: str) -> list[Layer]:
    layers: list[Layer] = []
    for index, block in enumerate(blocks):
        own = f"{name}.{index}"
        assert isinstance(block, _Residual)
        first, second = Convolve(f"{own}.first", block.first), Convolve(f"{own}.second", block.second)
        layers += [Branch(own), Rectify(f"{own} (ReLU)"), first, Rectify(f"{own} (ReLU)"), second, Merge(own)]
    return layers


def _strided(dims: int, inputs: int, outputs: int) -> nn.Conv2d | nn.Conv3d:
    return (nn.Conv3d if dims == 3 else nn.Conv2d)(inputs, outputs, 4, stride=2, padding=1)


def _transposed(dims: int, inputs: int, outputs: int) -> nn.ConvTranspose2d | nn.ConvTranspose3d:
    return (nn.ConvTranspose3d if dims == 3 else nn.ConvTranspose2d)(inputs, outputs, 4, stride=2, padding=1)


# ---------------------------------------------------------------------------------------------------------------
# Layers.


@dataclass(frozen=True, eq=False)
class Rectify(Layer):
    """ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Return what is positive of x."""
        return F.relu(x)


@dataclass(frozen=True, eq=False)
class _Resized(Layer):
    """A convolution whose output is in its precision."""

    def itemsize(self, x: int, low: int) -> int:
        """Return the convolutions' precision."""
        return low

    def scratch(self, size: Sizes) -> Count | float:
        """Return the input in the convolution's precision."""
        return size.cast


@dataclass(frozen=True, eq=False)
class Halve(_Resized):
    """A window of 4 and stride 2, one zero beyond either end."""

    conv: nn.Conv2d | nn.Conv3d

    def forward(self, x: Tensor) -> Tensor:
        """Return half the grid."""
        return self.conv(x)

    def shape(self, shape: Shape) -> Shape:
        """Return half the grid, rounded down."""
        return (self.conv.out_channels, *(n // 2 for n in shape[1:]))

    def needs(self, want: Rows, length: int) -> Rows:
        """Return rows 2 i - 1 to 2 i + 2 of each output row i, and one before, so that they begin at an even one."""
        return Rows(np.maximum(2 * want.start - 2, 0), np.minimum(2 * want.stop + 1, length))

    def slab(self, x: Tensor, slab: Slab) -> Tensor:
        """Halve all rows at hand and cut the one that saw a false border, since padding one side would copy."""
        return slab.cut(self.forward(x), slab.have.start // 2)

    def computed(self, slab: Slab) -> Count:
        """Return half the rows at hand."""
        return slab.have.number // 2

    def flops(self) -> int:
        """Return two per weight."""
        return 2 * self.conv.weight.numel()


@dataclass(frozen=True, eq=False)
class Double(_Resized):
    """What undoes the grid of ``Halve``: every input voxel adds to a window of 4."""

    conv: nn.ConvTranspose2d | nn.ConvTranspose3d

    def forward(self, x: Tensor) -> Tensor:
        """Return twice the grid."""
        return self.conv(x)

    def shape(self, shape: Shape) -> Shape:
        """Return twice the grid."""
        return (self.conv.out_channels, *(2 * n for n in shape[1:]))

    def needs(self, want: Rows, length: int) -> Rows:
        """Return the rows whose windows reach the output rows: i - 1 and i for 2 i, i and i + 1 for 2 i + 1."""
        return Rows(np.maximum((want.start - 1) // 2, 0), np.minimum(want.stop // 2 + 1, length))

    def slab(self, x: Tensor, slab: Slab) -> Tensor:
        """Double all rows at hand and cut those that lack a neighbor's window."""
        return slab.cut(self.forward(x), 2 * slab.have.start)

    def computed(self, slab: Slab) -> Count:
        """Return twice the rows at hand."""
        return 2 * slab.have.number

    def flops(self) -> int:
        """Return two per weight that reaches an output voxel: half of them along each axis."""
        return 2 * self.conv.weight.numel() // 2 ** len(self.conv.kernel_size)
