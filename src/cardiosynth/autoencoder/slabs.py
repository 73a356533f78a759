"""What it costs to compute slabs of a chain: memory, operations, and the size of the largest tensor.

Memory is counted as ``streaming.py`` allocates it: the tensors alive while each layer runs, and what the layer takes
for itself. What the device's convolution library takes is not known and not counted.
"""

from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np

from cardiosynth.autoencoder.chain import Branch, Chain, trace
from cardiosynth.autoencoder.layers import Count, Rows, Sizes, Slab
from cardiosynth.autoencoder.moments import CHUNK


class Sweep(NamedTuple):
    """What slabs that end at one position cost, per position they may start from.

    Attributes:
        rows: as ``trace`` finds them from position 0.
        live: per start, bytes while layers run, per slab.
        final: bytes of the slab when it is done.
        flops: per start, over all slabs.
        values: per start, of the largest tensor.
    """

    rows: list[tuple[Rows, Rows | None]]
    live: list[np.ndarray]
    final: np.ndarray
    flops: list[int]
    values: list[int]


class SlabCosts:
    """Costs of slabs of one volume.

    Args:
        chain: what is computed.
        shape: of the input, (b, c, *grid); the longest axis is streamed.
        itemsize: bytes per value in which convolutions are computed; the input has four.
    """

    def __init__(self, chain: Chain, shape: tuple[int, ...], itemsize: int):
        self.chain, self.low = chain, itemsize
        self.batch, self.shapes = shape[0], chain.shapes(tuple(shape[1:]))
        self.axis = int(np.argmax(shape[2:]))
        self.lengths = [grid[1 + self.axis] for grid in self.shapes]
        # Values per row at every position, and bytes per value.
        self.width = [self.batch * prod(grid) // grid[1 + self.axis] for grid in self.shapes]
        self.items = [4]
        for layer in chain.layers:
            self.items.append(layer.itemsize(self.items[-1], itemsize))
        self._known: dict[tuple[int, int, bool], Sweep] = {}

    @cached_property
    def whole(self) -> Sweep:
        """The volume as one slab."""
        return self.sweep(len(self.chain.layers), self.lengths[-1], False)

    @property
    def untiled_bytes(self) -> float:
        """Memory of the whole volume at once, input and output included."""
        return self.bytes_of(0) + float(self.whole.live[0].max())

    def bytes_of(self, position: int) -> int:
        """Return the bytes of the whole tensor at a position."""
        return self.width[position] * self.lengths[position] * self.items[position]

    def skip_bytes_of(self, position: int) -> int:
        """Return the bytes of the whole skip that goes with the tensor at a position."""
        opened = self.chain.opened[position]
        return 0 if opened is None else self.bytes_of(opened)

    def sweep(self, target: int, thickness: int, with_skip: bool) -> Sweep:
        """Return what slabs of ``thickness`` rows cost, which end at ``target``, with its skip or without."""
        key = (target, thickness, with_skip)
        if key not in self._known:
            starts = np.arange(0, self.lengths[target], thickness)
            want = Rows(starts, np.minimum(starts + thickness, self.lengths[target]))
            self._known[key] = self._swept(target, want, with_skip)
        return self._known[key]

    def _swept(self, target: int, want: Rows, with_skip: bool) -> Sweep:
        rows = trace(self.chain, self.lengths, 0, target, want, with_skip)
        storage = self._storages(rows, target)
        zero = np.zeros(len(np.atleast_1d(want.start)))
        live, flops, values = [zero], [0], [0]
        for index in reversed(range(target)):
            bytes_, operations = self._layer(index, rows, storage)
            live.append(np.maximum(live[-1], bytes_))
            flops.append(flops[-1] + operations)
            values.append(max(values[-1], *(self._values(i, rows, storage) for i in (index, index + 1))))
        final = storage[target] + (self._skip_bytes(target, rows, storage) if target else 0)
        if target in self.chain.statistics:
            final = final + self._summing(target, want)
        return Sweep(rows, live[::-1], zero + final, flops[::-1], values[::-1])

    def _storages(self, rows: list[tuple[Rows, Rows | None]], target: int) -> list[Count]:
        """Return the bytes behind a slab's tensor at each position; the input is a view of what is there already."""
        storage: list[Count] = [0]
        for index in range(target):
            if isinstance(self.chain.layers[index], Branch):
                storage.append(storage[-1])
            else:
                computed = self.chain.layers[index].computed(self._slab(index, rows))
                storage.append(computed * self.width[index + 1] * self.items[index + 1])
        return storage

    def _layer(
        self, index: int, rows: list[tuple[Rows, Rows | None]], storage: list[Count]
    ) -> tuple[Count | float, int]:
        """Return the bytes in use while one layer runs, per slab, and its operations over all slabs."""
        layer = self.chain.layers[index]
        if isinstance(layer, Branch):
            return storage[index], 0
        slab = self._slab(index, rows)
        size = Sizes(
            slab.have.number * self.width[index],
            slab.want.number * self.width[index + 1],
            self.items[index],
            self.low,
        )
        used = storage[index] + storage[index + 1] + layer.scratch(size) + self._skip_bytes(index, rows, storage)
        voxels = np.sum(layer.computed(slab)) * self.width[index + 1] // self.shapes[index + 1][0]
        return used, int(voxels) * layer.flops()

    def _values(self, position: int, rows: list[tuple[Rows, Rows | None]], storage: list[Count]) -> int:
        """Return the values of the largest tensor at a position, the skip included."""
        skip, opened = rows[position][1], self.chain.opened[position]
        beside = 0 if skip is None or opened is None else np.max(skip.number) * self.width[opened]
        return int(max(np.max(storage[position] / self.items[position]), beside))

    def _summing(self, position: int, want: Rows) -> Count:
        """Return the bytes of the chunk whose statistics are summed: its float32 copy, and its deviations."""
        values = want.number * self.width[position]
        planes = want.number if self.axis == 0 else self.shapes[position][1]
        chunk = np.minimum(values, np.maximum(CHUNK["cpu"], values // planes))
        return chunk * (4 if self.items[position] == 4 and self.axis == 0 else 8)

    def _skip_bytes(self, position: int, rows: list[tuple[Rows, Rows | None]], storage: list[Count]) -> Count:
        """Return the bytes of the skip beside the tensor; right after the branch they are one."""
        opened = self.chain.opened[position]
        return 0 if rows[position][1] is None or opened is None or opened == position - 1 else storage[opened]

    def _slab(self, index: int, rows: list[tuple[Rows, Rows | None]]) -> Slab:
        return Slab(rows[index][0], rows[index + 1][0], self.lengths[index], self.axis)
