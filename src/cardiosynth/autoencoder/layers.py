"""Layers that are local, computed on a whole volume or on a slab of it, with what a planner asks of them.

A row of a layer's output (a plane across the streamed axis) needs a few rows of its input: ``needs`` says which,
``slab`` computes from them what the whole volume would have there.
"""

from abc import ABC
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cardiosynth.autoencoder.moments import Moments, measure_moments
from cardiosynth.core.errors import InputError

Count: TypeAlias = int | np.integer | np.ndarray
Shape: TypeAlias = tuple[int, ...]
"""Channels, then voxels per axis."""


class Rows(NamedTuple):
    """Rows start <= i < stop of the streamed axis; arrays hold one entry per slab."""

    start: Count
    stop: Count

    @property
    def number(self) -> Count:
        """How many."""
        return self.stop - self.start


class Slab(NamedTuple):
    """Where a piece of a tensor lies: the rows at hand, those wanted of the output, and the axis they are counted on.

    Attributes:
        have: rows of the input.
        want: rows of the output.
        length: rows of the whole input.
        axis: the streamed axis, 0 for the first spatial one.
    """

    have: Rows
    want: Rows
    length: int
    axis: int

    def cut(self, x: Tensor, first: Count) -> Tensor:
        """Return the wanted rows of an output whose rows begin at ``first``."""
        return x.narrow(2 + self.axis, int(self.want.start - first), int(self.want.number))


class Sizes(NamedTuple):
    """What a layer works on.

    Attributes:
        x: values of the input.
        out: values of the output.
        item: bytes per value of the input.
        low: bytes per value in which convolutions are computed.
    """

    x: Count
    out: Count
    item: int
    low: int

    @property
    def cast(self) -> Count:
        """Bytes of the copy that a convolution makes of an input of another precision."""
        return self.x * self.low if self.item != self.low else 0


@dataclass(frozen=True, eq=False)
class Layer(ABC):
    """A local map of volumes; this base is the identity.

    Attributes:
        name: as a person finds it in the network.
    """

    name: str

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's value on a whole volume, with gradients where they are on."""
        return x

    def shape(self, shape: Shape) -> Shape:
        """Return the output's channels and grid."""
        return shape

    def needs(self, want: Rows, length: int) -> Rows:
        """Return the input rows that output rows are made of.

        Args:
            want: rows of the output.
            length: rows of the whole input.
        """
        return want

    def slab(self, x: Tensor, slab: Slab) -> Tensor:
        """Return ``slab.want`` of the output from ``slab.have`` of the input, a view of a few rows more at most."""
        return self.forward(x)

    def computed(self, slab: Slab) -> Count:
        """Return how many rows ``slab`` computes, wanted or not."""
        return slab.want.number

    def itemsize(self, x: int, low: int) -> int:
        """Return bytes per output value, for inputs of ``x`` bytes and convolutions in ``low`` bytes."""
        return x

    def scratch(self, size: "Sizes") -> Count | float:
        """Return the bytes of what lives only while the layer runs, beside its input and output."""
        return 0

    def flops(self) -> int:
        """Return floating-point operations of convolutions per output voxel, a multiply-add being two."""
        return 0


@dataclass(frozen=True, eq=False)
class Convolve(Layer):
    """A convolution that keeps the grid, zero beyond the volume."""

    conv: nn.Conv2d | nn.Conv3d

    def __post_init__(self):
        conv, reach = self.conv, self.conv.kernel_size[0] // 2
        regular = all(k == 2 * reach + 1 for k in conv.kernel_size) and all(p == reach for p in conv.padding)
        plain = conv.padding_mode == "zeros" and conv.groups == 1 and set(conv.stride + conv.dilation) == {1}
        if not (regular and plain and reach <= 1):
            raise InputError(f"layer {self.name} is a convolution of another kind ({conv}) than a chain can stream.")

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution."""
        return self.conv(x)

    def pointwise(self, x: Tensor) -> Tensor:
        """Return the convolution of a kernel of one; without gradients as a product, which copies no input on CPUs."""
        if torch.is_grad_enabled():
            return self.conv(x)
        return F.linear(x.movedim(1, -1), self.conv.weight.flatten(1), self.conv.bias).movedim(-1, 1)

    def shape(self, shape: Shape) -> Shape:
        """Return the grid with the output's channels."""
        return (self.conv.out_channels, *shape[1:])

    def needs(self, want: Rows, length: int) -> Rows:
        """Return the rows and, for a kernel of three, one more on either side where there is one."""
        reach = self.conv.kernel_size[0] // 2
        return Rows(np.maximum(want.start - reach, 0), np.minimum(want.stop + reach, length))

    def slab(self, x: Tensor, slab: Slab) -> Tensor:
        """Convolve; at one border of the volume as if at both, since padding one side would copy the slab."""
        if self.conv.kernel_size[0] == 1:
            return self.conv(x)
        padding: list[int] = [1] * len(self.conv.kernel_size)
        at_border = bool(self._at_border(slab))
        padding[slab.axis] = int(at_border)
        convolve = F.conv3d if isinstance(self.conv, nn.Conv3d) else F.conv2d
        out = convolve(x, self.conv.weight, self.conv.bias, 1, padding)
        return slab.cut(out, slab.have.start if at_border else slab.want.start)

    def computed(self, slab: Slab) -> Count:
        """Return the wanted rows, and one or two false ones where the slab touches a border."""
        if self.conv.kernel_size[0] == 1:
            return slab.want.number
        return np.where(self._at_border(slab), slab.have.number, slab.want.number)

    def itemsize(self, x: int, low: int) -> int:
        """Return the convolutions' precision."""
        return low

    def scratch(self, size: Sizes) -> Count | float:
        """Return the input in the convolution's precision."""
        return size.cast

    def flops(self) -> int:
        """Return two per weight."""
        return 2 * self.conv.weight.numel()

    @staticmethod
    def _at_border(slab: Slab) -> bool | np.bool_ | np.ndarray:
        return (slab.want.start == 0) | (slab.want.stop == slab.length)


@dataclass(frozen=True, eq=False)
class Downsample(Layer):
    """Halving as in MAISI and VQGAN: a zero after each axis's last voxel, then a convolution of kernel 3 and stride 2.

    An odd axis loses its last half: n voxels become floor(n / 2).
    """

    conv: nn.Conv2d | nn.Conv3d

    def forward(self, x: Tensor) -> Tensor:
        """Return the halved volume."""
        return self.conv(F.pad(x, (0, 1) * (x.ndim - 2)))

    def shape(self, shape: Shape) -> Shape:
        """Return half the grid, rounded down."""
        return (self.conv.out_channels, *(n // 2 for n in shape[1:]))

    def needs(self, want: Rows, length: int) -> Rows:
        """Return rows 2 i to 2 i + 2 of each output row i."""
        return Rows(2 * want.start, np.minimum(2 * want.stop + 1, length))

    def slab(self, x: Tensor, slab: Slab) -> Tensor:
        """Return rows of the halved volume; the zero row is added where the volume ends."""
        dims = x.ndim - 2
        padding = [0, 1] * dims
        padding[2 * (dims - 1 - slab.axis) + 1] = int(2 * slab.want.number + 1 - slab.have.number)
        return self.conv(F.pad(x, padding))

    def scratch(self, size: Sizes) -> Count | float:
        """Return the padded copy."""
        return size.x * size.item + size.cast

    def itemsize(self, x: int, low: int) -> int:
        """Return the convolutions' precision."""
        return low

    def flops(self) -> int:
        """Return two per weight."""
        return 2 * self.conv.weight.numel()


@dataclass(frozen=True, eq=False)
class Upsample(Layer):
    """Linear interpolation along each axis to twice the grid, the border voxel repeated."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the doubled volume."""
        return F.interpolate(x, scale_factor=2.0, mode="trilinear" if x.ndim == 5 else "bilinear")

    def shape(self, shape: Shape) -> Shape:
        """Return twice the grid."""
        return (shape[0], *(2 * n for n in shape[1:]))

    def needs(self, want: Rows, length: int) -> Rows:
        """Return the rows between whose centers the output rows lie: 2 i and 2 i + 1 reach i - 1, i and i, i + 1."""
        return Rows(np.maximum((want.start - 1) // 2, 0), np.minimum(want.stop // 2 + 1, length))

    def slab(self, x: Tensor, slab: Slab) -> Tensor:
        """Double all rows at hand and cut those that repeated a false border."""
        return slab.cut(self.forward(x), 2 * slab.have.start)

    def computed(self, slab: Slab) -> Count:
        """Return twice the rows at hand."""
        return 2 * slab.have.number


@dataclass(frozen=True, eq=False)
class Normalize(Layer):
    """Group normalization, and SiLU where ``activated``."""

    norm: nn.GroupNorm
    activated: bool

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized volume.

        Without gradients the statistics are ours: torch's for channels-last tensors on CPUs are off by 6e-5 of the
        spread, and by 4e-3 where the mean is ten times the spread, and that layout makes the interpolation four times
        as fast.
        """
        if not torch.is_grad_enabled():
            return self.normalize(x, measure_moments(x))
        x = F.group_norm(x, self.norm.num_groups, self.norm.weight, self.norm.bias, self.norm.eps)
        return F.silu(x) if self.activated else x

    def normalize(self, x: Tensor, moments: Moments) -> Tensor:
        """Return ``x`` normalized by the moments of the volume it is a part of, in its own dtype; no gradients."""
        columns = (...,) + (None,) * (x.ndim - 2)
        scale, shift = (value[columns] for value in moments.affine(self.norm))
        out = torch.addcmul(shift, x, scale)
        return (F.silu(out, inplace=True) if self.activated else out).to(x.dtype)

    def scratch(self, size: Sizes) -> Count | float:
        """Return the float32 values before they are rounded to a lower precision."""
        return size.out * 4 if size.item < 4 else 0


@dataclass(frozen=True, eq=False)
class Activate(Layer):
    """SiLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x times its logistic function."""
        return F.silu(x)


@dataclass(frozen=True, eq=False)
class ChannelsLast(Layer):
    """Stores channels last where nothing is learned: halos along the first axis are then views, and all runs faster.

    With gradients the layout stays, for the reason given in ``Normalize``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the same values."""
        return x if torch.is_grad_enabled() else x.contiguous(memory_format=channels_last(x.ndim))


@dataclass(frozen=True, eq=False)
class Scale(Layer):
    """factor * x + offset, in float32 or better."""

    factor: float
    offset: float

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled volume."""
        x = x if x.dtype == torch.float64 else x.float()
        return self.factor * x + self.offset

    def scratch(self, size: Sizes) -> Count | float:
        """Return the product."""
        return size.out * 4

    def itemsize(self, x: int, low: int) -> int:
        """Return four, or eight."""
        return max(4, x)


@dataclass(frozen=True, eq=False)
class Fork(Layer):
    """Two convolutions of one input, their channels one after the other."""

    first: Convolve
    second: Convolve

    def forward(self, x: Tensor) -> Tensor:
        """Return both."""
        return torch.cat((self.first.forward(x), self.second.forward(x)), dim=1)

    def shape(self, shape: Shape) -> Shape:
        """Return the grid with the channels of both."""
        return (self.first.conv.out_channels + self.second.conv.out_channels, *shape[1:])

    def scratch(self, size: Sizes) -> Count | float:
        """Return the two before they are joined."""
        return size.out * size.low + size.cast

    def itemsize(self, x: int, low: int) -> int:
        """Return the convolutions' precision."""
        return low

    def flops(self) -> int:
        """Return those of both."""
        return self.first.flops() + self.second.flops()


def channels_last(ndim: int) -> torch.memory_format:
    """Return the layout that stores channels last, for tensors of 4 or 5 axes."""
    return torch.channels_last_3d if ndim == 5 else torch.channels_last
