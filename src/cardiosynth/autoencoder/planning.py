"""What to keep and what to compute again, so that a chain fits a memory budget with the fewest operations.

A group norm needs the statistics of its whole input before any of its output can be computed. So a chain is run in
passes over slabs: each starts at the last kept tensor and ends at a norm's input, of which it gathers the statistics,
or at the next tensor that is kept, or at the output. Whatever lies between is computed again in every pass. Keeping a
tensor costs memory, not keeping it costs operations; a shortest path over the candidates finds the cheapest choice.
Rows of a kept tensor are freed as the pass that writes the next one leaves them behind.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor, inf, log10
from typing import Literal, TypeAlias

import numpy as np

from cardiosynth.autoencoder.chain import Chain, Merge
from cardiosynth.autoencoder.layers import Rows
from cardiosynth.autoencoder.slabs import SlabCosts
from cardiosynth.core.errors import InputError

Place: TypeAlias = Literal["nowhere", "device", "host", "output"]
"""Where a pass leaves the tensor that it ends at; ``nowhere``: only its statistics are gathered."""

LARGEST_TENSOR = 2**31 - 1
"""Values per tensor; beyond it, convolutions of 64-bit sizes are slow, wrong or refused on some devices."""

HOST_FLOPS_PER_BYTE = 10_000
"""What a byte moved between host and device is worth: 300 TFLOP/s against 25 GB/s, so that the device comes first."""


@dataclass(frozen=True)
class Pass:
    """One sweep over slabs.

    Attributes:
        source: position of the kept tensor that it starts from; 0 is the input.
        target: position that it ends at.
        place: where it leaves the target.
        thickness: rows of the target per slab.
        slabs: how many.
        flops: operations of its convolutions.
        peak_bytes: the most memory in use while it runs.
    """

    source: int
    target: int
    place: Place
    thickness: int
    slabs: int
    flops: int
    peak_bytes: int


@dataclass(frozen=True)
class Plan:
    """How a chain is computed within a budget. Memory counts tensors, input and output included, weights not.

    Attributes:
        passes: in order; none where the whole volume is computed at once.
        axis: streamed axis, 0 for the first spatial one.
        peak_gb: 1e9 bytes.
        flops: operations of convolutions.
        untiled_peak_gb: memory of the whole volume at once.
        untiled_flops: operations of the whole volume at once.
        kept: layers whose outputs are kept, with the place.
        recomputed: layers that run more than once, with how often.
    """

    passes: tuple[Pass, ...]
    axis: int
    peak_gb: float
    flops: int
    untiled_peak_gb: float
    untiled_flops: int
    kept: Mapping[str, Place]
    recomputed: Mapping[str, int]

    @property
    def num_slabs(self) -> int:
        """Slabs of the pass that has the most."""
        return max((p.slabs for p in self.passes), default=1)

    def in_words(self) -> str:
        """Return the plan as a person reads it."""
        if not self.passes:
            return f"the whole volume at once, {self.peak_gb:.2f} GB, {self.flops / 1e12:.2f} TFLOP"
        host = [name for name, place in self.kept.items() if place == "host"]
        kept = ", ".join(name for name, place in self.kept.items() if place == "device") or "nothing"
        lines = [
            f"up to {self.num_slabs} slabs along axis {self.axis} in {len(self.passes)} passes, "
            f"{self.peak_gb:.2f} GB (untiled {self.untiled_peak_gb:.2f} GB)",
            f"{self.flops / 1e12:.2f} TFLOP, {self.flops / self.untiled_flops:.2f} times the untiled",
            f"kept: {kept}",
        ]
        if host:
            lines.append(f"kept in host memory: {', '.join(host)}")
        if self.recomputed:
            times = (f"{name} ({count}x)" for name, count in self.recomputed.items())
            lines.append(f"computed again: {', '.join(times)}")
        return "\n".join(lines)


def make_plan(
    chain: Chain,
    shape: tuple[int, ...],
    budget_gb: float | None,
    itemsize: int = 4,
    host: bool = False,
    largest: int = LARGEST_TENSOR,
) -> Plan:
    """Return the cheapest plan within a budget.

    Args:
        chain: what is computed.
        shape: of the input, (b, c, *grid).
        budget_gb: memory for tensors, input and output included, weights not, in 1e9 bytes; None for
            the whole volume at once, in slabs only where a tensor had more values than ``largest``.
        itemsize: bytes per value in which convolutions are computed; the input has four.
        host: tensors may be kept in host memory, which is not counted.
        largest: most values of any one tensor but the input and the output.

    Raises:
        InputError: the budget cannot be met; the smallest that can is named. Or a grid that the chain refuses.
    """
    planner = _Planner(chain, shape, itemsize, host, largest)
    budget = inf if budget_gb is None else budget_gb * 1e9
    if planner.slabs.untiled_bytes <= budget and planner.slabs.whole.values[0] <= largest:
        passes = []
    elif budget_gb is None:
        passes = planner.cheapest(planner.slabs.untiled_bytes) or planner.cheapest(inf)
        assert passes is not None, "a single row has too many values"
    else:
        passes = planner.cheapest(budget)
    if passes is None:
        # Rounded up, to three digits.
        smallest = planner.smallest() / 1e9
        step = 10.0 ** (floor(log10(smallest)) - 2)
        raise InputError(
            f"a budget of {budget_gb:g} GB is too small for an input of {' x '.join(map(str, shape[2:]))}; "
            f"the smallest possible is {ceil(smallest / step) * step:.3g} GB."
        )
    return planner.described(passes)


class _Planner:
    """Costs of passes over one volume, and the cheapest sequence of them."""

    def __init__(self, chain: Chain, shape: tuple[int, ...], itemsize: int, host: bool, largest: int):
        self.chain, self.largest = chain, largest
        self.places: tuple[Place, ...] = ("device", "host") if host else ("device",)
        self.slabs = SlabCosts(chain, shape, itemsize)
        self.end = len(chain.layers)
        self._passes: dict[tuple, Pass | None] = {}

    @cached_property
    def candidates(self) -> list[int]:
        """Positions that may be kept: after convolutions and residual blocks, where no block is about to close."""
        layers = self.chain.layers
        return [
            i + 1
            for i, layer in enumerate(layers[:-1])
            if (layer.flops() or isinstance(layer, Merge)) and not isinstance(layers[i + 1], Merge)
        ]

    def cheapest(self, budget: float) -> list[Pass] | None:
        """Return the passes of fewest operations within ``budget`` bytes, or None."""
        best: dict[tuple[int, Place], tuple[float, list[Pass]]] = {(0, "device"): (0.0, [])}
        for target, place in self._nodes():
            for (source, origin), (cost, passes) in list(best.items()):
                found = self._segment(source, origin, target, place, budget)
                if found is None:
                    continue
                total = cost + sum(p.flops for p in found) + self._transfers(found, origin)
                if total < best.get((target, place), (inf, []))[0]:
                    best[target, place] = (total, passes + found)
        return best[self.end, "output"][1] if (self.end, "output") in best else None

    def smallest(self) -> float:
        """Return the least budget in bytes that any plan meets."""
        best: dict[tuple[int, Place], float] = {(0, "device"): 0.0}
        for target, place in self._nodes():
            for (source, origin), peak in list(best.items()):
                found = self._segment(source, origin, target, place, None)
                if found is not None:
                    peak = max([peak, *(p.peak_bytes for p in found)])
                    best[target, place] = min(peak, best.get((target, place), inf))
        assert (self.end, "output") in best, "a single row has too many values"
        return best[self.end, "output"]

    def described(self, passes: list[Pass]) -> Plan:
        """Return the passes with what a person wants to know of them."""
        runs = {
            layer.name: sum(p.source <= i < p.target for p in passes)
            for i, layer in enumerate(self.chain.layers)
            if layer.flops() and not isinstance(layer, Merge)
        }
        kept = [p for p in passes if p.place in ("device", "host")]
        return Plan(
            passes=tuple(passes),
            axis=self.slabs.axis,
            peak_gb=max((p.peak_bytes for p in passes), default=self.slabs.untiled_bytes) / 1e9,
            flops=sum(p.flops for p in passes) if passes else self.slabs.whole.flops[0],
            untiled_peak_gb=self.slabs.untiled_bytes / 1e9,
            untiled_flops=self.slabs.whole.flops[0],
            kept={self.chain.layers[p.target - 1].name: p.place for p in kept},
            recomputed={name: count for name, count in runs.items() if count > 1},
        )

    def _nodes(self) -> Iterator[tuple[int, Place]]:
        for position in self.candidates:
            for place in self.places:
                yield position, place
        yield self.end, "output"

    def _segment(
        self, source: int, origin: Place, target: int, place: Place, budget: float | None
    ) -> list[Pass] | None:
        """Return the passes from one kept tensor to the next, or None where they do not fit.

        Args:
            source: the kept tensor.
            origin: where it is.
            target: the next.
            place: where it goes.
            budget: bytes; None for slabs of one row, whatever they need.
        """
        if source >= target or (self.chain.shares_skip(source, target) and place != origin):
            return None
        between = sorted(n for n in self.chain.statistics if source < n < target or n == source == 0)
        ends: list[tuple[int, Place]] = [(n, "nowhere") for n in between]
        passes = []
        for position, where in [*ends, (target, place)]:
            key = (source, origin, position, where, budget)
            if key not in self._passes:
                self._passes[key] = self._thickest(source, origin, position, where, budget)
            if self._passes[key] is None:
                return None
            passes.append(self._passes[key])
        return passes

    def _thickest(self, source: int, origin: Place, target: int, place: Place, budget: float | None) -> Pass | None:
        ladder = [1] if budget is None else _ladder(self.slabs.lengths[target])
        low, high, best = 0, len(ladder) - 1, None
        while low <= high:
            middle = (low + high) // 2
            found, values = self._pass(source, origin, target, place, ladder[middle])
            if values <= self.largest and (budget is None or found.peak_bytes <= budget):
                best, low = found, middle + 1
            else:
                high = middle - 1
        return best

    def _pass(self, source: int, origin: Place, target: int, place: Place, thickness: int) -> tuple[Pass, int]:
        """Return a pass and the values of its largest tensor."""
        new_skip = place in ("device", "host") and self.chain.opens_skip(source, target)
        sweep = self.slabs.sweep(target, thickness, new_skip)
        want = sweep.rows[target][0]
        before = self.slabs.bytes_of(0) + self._held(source, origin, target, place, sweep.rows[source])
        after = before
        if place == "output":
            before, after = before + self.slabs.bytes_of(self.end), after + self.slabs.bytes_of(self.end)
        if place == "device":
            unit = self.slabs.bytes_of(target) / self.slabs.lengths[target]
            if new_skip:
                unit += self.slabs.skip_bytes_of(target) / self.slabs.lengths[target]
            before, after = before + unit * want.start, after + unit * want.stop
        peak = np.maximum(sweep.live[source] + before, sweep.final + after).max()
        slabs = len(np.atleast_1d(want.start))
        return Pass(source, target, place, thickness, slabs, sweep.flops[source], int(peak)), sweep.values[source]

    def _held(
        self, source: int, origin: Place, target: int, place: Place, rows: tuple[Rows, Rows | None]
    ) -> np.ndarray | float:
        """Return the bytes of the kept tensor while each slab is computed: all, or what is ahead of a last pass."""
        if source == 0 or origin == "host":
            return 0.0
        if place == "nowhere":
            return self.slabs.bytes_of(source) + self.slabs.skip_bytes_of(source)
        ahead = 1.0 - rows[0].start / self.slabs.lengths[source]
        stays = self.chain.shares_skip(source, target)
        if self.chain.opened[source] is None:
            return self.slabs.bytes_of(source) * (1.0 if stays else ahead)
        return self.slabs.bytes_of(source) * ahead + self.slabs.skip_bytes_of(source) * (1.0 if stays else ahead)

    def _transfers(self, passes: list[Pass], origin: Place) -> float:
        moved = sum(self.slabs.bytes_of(p.source) for p in passes if origin == "host")
        moved += sum(self.slabs.bytes_of(p.target) for p in passes if p.place == "host")
        return moved * HOST_FLOPS_PER_BYTE


def _ladder(length: int) -> list[int]:
    """Return slab thicknesses to choose from, growing by a third."""
    steps = [1]
    while steps[-1] < length:
        steps.append(min(length, max(steps[-1] + 1, steps[-1] * 4 // 3)))
    return steps
