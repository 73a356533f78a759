"""Autoencoders as chains of local layers: one description that is computed whole, slab by slab, or only planned.

A chain is linear but for residual blocks, whose skip is opened by ``Branch`` and closed by ``Merge``. Between group
norms, whose statistics span the volume, every layer is local: a row of its output (a plane across the streamed axis)
needs a few rows of its input. ``needs`` says which, ``slab`` computes them as the whole volume would.
"""

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cardiosynth.autoencoder.moments import Moments, measure_moments
from cardiosynth.core.errors import InputError

Count: TypeAlias = int | np.ndarray
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
    """A local map of volumes; this base is the identity of what the planner asks.

    Attributes:
        name: as a person finds it in the network.
    """

    name: str

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's value on a whole volume, with gradients where they are on."""
        raise NotImplementedError(type(self))

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
    def _at_border(slab: Slab) -> Count:
        return (slab.want.start == 0) | (slab.want.stop == slab.length)


@dataclass(frozen=True, eq=False)
class Downsample(Layer):
    """MAISI's halving: a zero after the last voxel of each axis, then a convolution of kernel 3 and stride 2.

    An odd axis loses its last half: n voxels become floor(n / 2).
    """

    conv: nn.Conv3d

    def forward(self, x: Tensor) -> Tensor:
        """Return the halved volume."""
        return self.conv(F.pad(x, (0, 1, 0, 1, 0, 1)))

    def shape(self, shape: Shape) -> Shape:
        """Return half the grid, rounded down."""
        return (self.conv.out_channels, *(n // 2 for n in shape[1:]))

    def needs(self, want: Rows, length: int) -> Rows:
        """Return rows 2 i to 2 i + 2 of each output row i."""
        return Rows(2 * want.start, np.minimum(2 * want.stop + 1, length))

    def slab(self, x: Tensor, slab: Slab) -> Tensor:
        """Return rows of the halved volume; the zero row is added where the volume ends."""
        padding = [0, 1, 0, 1, 0, 1]
        padding[2 * (2 - slab.axis) + 1] = int(2 * slab.want.number + 1 - slab.have.number)
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
    """Trilinear interpolation to twice the grid, the border voxel repeated."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the doubled volume."""
        return F.interpolate(x, scale_factor=2.0, mode="trilinear")

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

        Without gradients the statistics are ours: on CPUs torch's are wrong in the fourth digit and worse for
        channels-last tensors, whose layout makes the interpolation four times as fast.
        """
        if not torch.is_grad_enabled():
            return self.normalize(x, measure_moments(x))
        x = F.group_norm(x, self.norm.num_groups, self.norm.weight, self.norm.bias, self.norm.eps)
        return F.silu(x) if self.activated else x

    def normalize(self, x: Tensor, moments: Moments) -> Tensor:
        """Return ``x`` normalized by the moments of the volume it is a part of, in its own dtype; no gradients."""
        scale, shift = moments.affine(self.norm)
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
class Branch(Layer):
    """Begins a residual block: what comes in is also its skip."""


@dataclass(frozen=True, eq=False)
class Merge(Layer):
    """Ends a residual block: the skip, through a 1x1 convolution where the channels change, is added."""

    shortcut: Convolve | None = None

    def merge(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return x + shortcut(skip)."""
        skip = skip if self.shortcut is None else self.shortcut.forward(skip)
        if torch.is_grad_enabled() or skip.dtype != x.dtype:
            return skip + x
        return x.add_(skip)

    def scratch(self, size: Sizes) -> Count | float:
        """Return the shortcut's output; the sum takes the place of ``x``."""
        return (0 if self.shortcut is None else size.out * size.low) - size.out * size.item

    def flops(self) -> int:
        """Return the shortcut's."""
        return 0 if self.shortcut is None else self.shortcut.flops()


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


@dataclass(frozen=True, eq=False)
class SpaceToDepth(Layer):
    """Blocks of two voxels per axis become channels."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the blocks."""
        return space_to_depth(x)

    def shape(self, shape: Shape) -> Shape:
        """Return half the grid.

        Raises:
            InputError: an odd axis.
        """
        if any(n % 2 for n in shape[1:]):
            raise InputError(f"a grid of {shape[1:]} cannot be halved; give multiples of the compression.")
        return (shape[0] * 2 ** (len(shape) - 1), *(n // 2 for n in shape[1:]))

    def needs(self, want: Rows, length: int) -> Rows:
        """Return two rows for each."""
        return Rows(2 * want.start, 2 * want.stop)

    def scratch(self, size: Sizes) -> Count | float:
        """Return the blocks before their channels are stored last."""
        return size.out * size.item


@dataclass(frozen=True, eq=False)
class DepthToSpace(Layer):
    """Channels become blocks of two voxels per axis."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the voxels."""
        return depth_to_space(x)

    def shape(self, shape: Shape) -> Shape:
        """Return twice the grid."""
        return (shape[0] // 2 ** (len(shape) - 1), *(2 * n for n in shape[1:]))

    def needs(self, want: Rows, length: int) -> Rows:
        """Return the row of which each is a half."""
        return Rows(want.start // 2, (want.stop + 1) // 2)

    def slab(self, x: Tensor, slab: Slab) -> Tensor:
        """Unfold all rows at hand and cut those wanted."""
        return slab.cut(self.forward(x), 2 * slab.have.start)

    def computed(self, slab: Slab) -> Count:
        """Return twice the rows at hand."""
        return 2 * slab.have.number

    def scratch(self, size: Sizes) -> Count | float:
        """Return the voxels before their channels are stored last."""
        return size.out * size.item


@dataclass(frozen=True, eq=False)
class Chain:
    """Layers one after the other, and what a planner needs of them.

    Attributes:
        layers: position i lies before layer i; the last position is the output.
        opened: per position, the position whose tensor is the skip of the block it lies in, or None.
    """

    layers: tuple[Layer, ...]
    opened: tuple[int | None, ...] = field(init=False)

    def __post_init__(self):
        opened: list[int | None] = [None]
        for index, layer in enumerate(self.layers):
            if isinstance(layer, Branch):
                assert opened[-1] is None, "a block within a block"
                opened.append(index)
            else:
                opened.append(None if isinstance(layer, Merge) else opened[-1])
        assert opened[-1] is None, "a block stays open"
        object.__setattr__(self, "opened", tuple(opened))

    def forward(self, x: Float[Tensor, "b c *grid"], checkpointing: bool = False) -> Float[Tensor, "b d *other"]:
        """Return the chain's value on whole volumes, with gradients where they are on.

        Args:
            x: the input.
            checkpointing: keep block inputs only and compute the rest again for the gradients.
        """
        if not (checkpointing and torch.is_grad_enabled()):
            return _apply(self.layers, x)
        for block in self.blocks():
            x = checkpoint(_apply, block, x, use_reentrant=False)  # pyright: ignore[reportAssignmentType]
        return x

    def blocks(self) -> list[tuple[Layer, ...]]:
        """Return the layers in groups: residual blocks, and what lies between."""
        starts = [0, *(i + isinstance(l, Merge) for i, l in enumerate(self.layers) if isinstance(l, Branch | Merge))]
        return [self.layers[a:b] for a, b in zip(starts, [*starts[1:], len(self.layers)], strict=True) if a < b]

    def shapes(self, shape: Shape) -> list[Shape]:
        """Return channels and grid at every position for an input of ``shape``."""
        shapes = [shape]
        for layer in self.layers:
            shapes.append(layer.shape(shapes[-1]))
        return shapes


def _apply(layers: Sequence[Layer], x: Tensor) -> Tensor:
    skip: Tensor | None = None
    for layer in layers:
        if isinstance(layer, Branch):
            skip = x
        elif isinstance(layer, Merge):
            assert skip is not None
            x, skip = layer.merge(x, skip), None
        else:
            x = layer.forward(x)
    return x


def channels_last(ndim: int) -> torch.memory_format:
    """Return the layout that stores channels last, for tensors of 4 or 5 axes."""
    return torch.channels_last_3d if ndim == 5 else torch.channels_last


def space_to_depth(x: Float[Tensor, "b c *fine"]) -> Float[Tensor, "b c8 *coarse"]:
    """Move every 2x2(x2) block of voxels into the channels, stored channels last (twice as fast on CPUs)."""
    if x.ndim == 5:
        blocks = rearrange(x, "b c (x i) (y j) (z k) -> b (c i j k) x y z", i=2, j=2, k=2)
    else:
        blocks = rearrange(x, "b c (x i) (y j) -> b (c i j) x y", i=2, j=2)
    return blocks.contiguous(memory_format=channels_last(x.ndim))


def depth_to_space(x: Float[Tensor, "b c8 *coarse"]) -> Float[Tensor, "b c *fine"]:
    """Undo ``space_to_depth``."""
    if x.ndim == 5:
        fine = rearrange(x, "b (c i j k) x y z -> b c (x i) (y j) (z k)", i=2, j=2, k=2)
    else:
        fine = rearrange(x, "b (c i j) x y -> b c (x i) (y j)", i=2, j=2)
    return fine.contiguous(memory_format=channels_last(x.ndim))
