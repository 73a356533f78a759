"""Autoencoders as chains of local layers: one description that is computed whole, slab by slab, or only planned.

A chain is linear but for residual blocks, whose skip is opened by ``Branch`` and closed by ``Merge``. Between group
norms, whose statistics span the volume, every layer is local.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cardiosynth.autoencoder.layers import Convolve, Count, Layer, Normalize, Rows, Shape, Sizes


@dataclass(frozen=True, eq=False)
class Branch(Layer):
    """Begins a residual block: what comes in is also its skip."""


@dataclass(frozen=True, eq=False)
class Merge(Layer):
    """Ends a residual block: the skip, through a 1x1 convolution where the channels change, is added."""

    shortcut: Convolve | None = None

    def merge(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return x + shortcut(skip)."""
        skip = skip if self.shortcut is None else self.shortcut.pointwise(skip)
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
class Chain:
    """Layers one after the other, and what a planner needs of them.

    Attributes:
        layers: position i lies before layer i; the last position is the output.
        opened: per position, the position whose tensor is the skip of the block it lies in, or None.
        statistics: position -> the norm whose statistics are gathered there; before the branch that precedes it.
    """

    layers: tuple[Layer, ...]
    opened: tuple[int | None, ...] = field(init=False)
    statistics: dict[int, int] = field(init=False)

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
        after_branch = [i > 0 and isinstance(self.layers[i - 1], Branch) for i in range(len(self.layers))]
        norms = {i - after_branch[i]: i for i, layer in enumerate(self.layers) if isinstance(layer, Normalize)}
        object.__setattr__(self, "statistics", norms)

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

    def opens_skip(self, source: int, target: int) -> bool:
        """Say whether ``target`` lies in a block that begins after ``source``."""
        opened = self.opened[target]
        return opened is not None and opened > source

    def shares_skip(self, source: int, target: int) -> bool:
        """Say whether ``target`` lies in a block whose skip is ``source``, or the skip of ``source``."""
        opened = self.opened[target]
        return opened is not None and opened <= source

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


def trace(
    chain: Chain, lengths: list[int], source: int, target: int, want: Rows, with_skip: bool
) -> list[tuple[Rows, Rows | None]]:
    """Return the rows that are needed at each position, of the tensor and of its skip.

    Args:
        chain: the layers.
        lengths: rows at every position of the chain.
        source: first position of the result.
        target: last position of the result.
        want: rows at ``target``.
        with_skip: the skip is wanted there, too.
    """
    rows, skip = want, want if with_skip else None
    found = [(rows, skip)]
    for index in reversed(range(source, target)):
        layer = chain.layers[index]
        if isinstance(layer, Branch):
            if skip is not None:
                rows = Rows(np.minimum(rows.start, skip.start), np.maximum(rows.stop, skip.stop))
            skip = None
        elif isinstance(layer, Merge):
            skip = rows
        else:
            rows = layer.needs(rows, lengths[index])
        found.append((rows, skip))
    return found[::-1]
