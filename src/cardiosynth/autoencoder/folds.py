"""Blocks of voxels as channels, and back: functions, and layers of a chain."""

from dataclasses import dataclass

from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor

from cardiosynth.autoencoder.layers import Count, Layer, Rows, Shape, Sizes, Slab, channels_last
from cardiosynth.core.errors import InputError


def space_to_depth(x: Shaped[Tensor, "b c *fine"], factor: int = 2) -> Shaped[Tensor, "b cn *coarse"]:
    """Move every block of ``factor`` voxels per axis into the channels, stored channels last (fastest on CPUs)."""
    if x.ndim == 5:
        blocks = rearrange(x, "b c (x i) (y j) (z k) -> b (c i j k) x y z", i=factor, j=factor, k=factor)
    else:
        blocks = rearrange(x, "b c (x i) (y j) -> b (c i j) x y", i=factor, j=factor)
    return blocks.contiguous(memory_format=channels_last(x.ndim))


def depth_to_space(x: Float[Tensor, "b c8 *coarse"]) -> Float[Tensor, "b c *fine"]:
    """Undo ``space_to_depth`` of two voxels per axis."""
    if x.ndim == 5:
        fine = rearrange(x, "b (c i j k) x y z -> b c (x i) (y j) (z k)", i=2, j=2, k=2)
    else:
        fine = rearrange(x, "b (c i j) x y -> b c (x i) (y j)", i=2, j=2)
    return fine.contiguous(memory_format=channels_last(x.ndim))


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
