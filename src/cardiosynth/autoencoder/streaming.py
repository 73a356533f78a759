"""Encoding and decoding within a memory budget, with the result of the whole volume.

``planning.py`` says which passes over slabs are made; here they are made.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cardiosynth.autoencoder.chain import Branch, Chain, Merge, trace
from cardiosynth.autoencoder.layers import Normalize, Rows, Slab, channels_last
from cardiosynth.autoencoder.moments import Moments, measure_moments
from cardiosynth.autoencoder.networks import Autoencoder
from cardiosynth.autoencoder.planning import (
    LARGEST_TENSOR,
    Pass,
    Plan,
    make_plan,
)


def plan_decode(
    autoencoder: Autoencoder,
    latent_shape: tuple[int, ...],
    budget_gb: float | None,
    dtype: torch.dtype = torch.float32,
    *,
    host: bool = False,
    largest: int = LARGEST_TENSOR,
) -> Plan:
    """Return how ``decode`` would work; the network may be on the ``meta`` device.

    Args:
        autoencoder: the network.
        latent_shape: (*latent) of one volume, or (b, d, *latent) with what is told of a mask.
        budget_gb: memory for tensors, latent and image included, weights not, in 1e9 bytes; None for
            the whole volume at once, in slabs only where a tensor had more values than ``largest``.
        dtype: in which convolutions are computed.
        host: tensors may wait in host memory, which is not counted. For CUDA.
        largest: most values of any one tensor but latent and image.

    Raises:
        InputError: the budget cannot be met; the smallest that can is named.
    """
    shape = _with_channels(latent_shape, autoencoder.decoder_channels, autoencoder.spatial_dims)
    return make_plan(autoencoder.decoding(), shape, budget_gb, dtype.itemsize, host, largest)


def plan_encode(
    autoencoder: Autoencoder,
    shape: tuple[int, ...],
    budget_gb: float | None,
    dtype: torch.dtype = torch.float32,
    *,
    host: bool = False,
    largest: int = LARGEST_TENSOR,
) -> Plan:
    """Return how ``encode`` would work on an image grid; see ``plan_decode``."""
    shape = _with_channels(shape, 1, autoencoder.spatial_dims)
    return make_plan(autoencoder.encoding(), shape, budget_gb, dtype.itemsize, host, largest)


def decode(
    autoencoder: Autoencoder,
    z: Float[Tensor, "b c *latent"],
    budget_gb: float | None = None,
    *,
    mask: UInt8[Tensor, "b 1 *grid"] | None = None,
    largest: int = LARGEST_TENSOR,
) -> Float[Tensor, "b 1 *grid"]:
    """Return what ``autoencoder.decode`` returns, to float32 accuracy, within a memory budget. No gradients.

    Args:
        autoencoder: the network.
        z: latents, on its device. Under autocast, convolutions run in the lower precision, statistics do not.
        budget_gb: memory for tensors, ``z`` and image included, weights not, in 1e9 bytes; None for
            the whole volume at once, in slabs only where a tensor had more values than ``largest``.
        mask: what the decoder is told beside the latents; see ``Autoencoder.told``. Its features count as latents, the
            mask itself, a byte per voxel, does not count.
        largest: most values of any one tensor but latent and image.

    Raises:
        InputError: the budget cannot be met; the smallest that can is named.
    """
    with torch.no_grad():
        x = autoencoder.told(z, mask)
    on_gpu = x.device.type == "cuda"
    plan = plan_decode(autoencoder, tuple(x.shape), budget_gb, _precision(x), host=on_gpu, largest=largest)
    return run(autoencoder.decoding(), plan, x)


def encode(
    autoencoder: Autoencoder,
    x: Float[Tensor, "b 1 *grid"],
    budget_gb: float | None = None,
    *,
    largest: int = LARGEST_TENSOR,
) -> tuple[Float[Tensor, "b c *latent"], Float[Tensor, "b c *latent"]]:
    """Return what ``autoencoder.encode`` returns, to float32 accuracy, within a memory budget; see ``decode``."""
    on_gpu = x.device.type == "cuda"
    plan = plan_encode(autoencoder, tuple(x.shape), budget_gb, _precision(x), host=on_gpu, largest=largest)
    return autoencoder.gaussian(run(autoencoder.encoding(), plan, x))


@torch.no_grad()
def run(chain: Chain, plan: Plan, x: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b d *other"]:
    """Return the chain's value for ``x``, computed as planned for its shape, float32."""
    if not plan.passes:
        return chain.forward(x).float()
    shapes = chain.shapes(tuple(x.shape[1:]))
    stream = _Stream(chain, plan.axis, [shape[1 + plan.axis] for shape in shapes], x)
    for step in plan.passes[:-1]:
        if step.place == "nowhere":
            stream.each_slab(step, lambda rows, slab, skip: None)
        else:
            stream.keep(step)
    output = x.new_empty((len(x), *shapes[-1]), dtype=torch.float32)
    stream.each_slab(plan.passes[-1], lambda rows, slab, skip: _rows_of(output, rows, plan.axis).copy_(slab))
    return output


class _Kept:
    """A tensor in pieces along the streamed axis: the caller's in one, ours in rows that are freed one by one."""

    def __init__(self, axis: int, device: torch.device, whole: Tensor | None = None):
        self.dim, self.device, self.whole = 2 + axis, device, whole
        self.rows: list[Tensor | None] = []

    def append(self, slab: Tensor) -> None:
        """Store a slab as rows of their own."""
        for row in slab.split(1, dim=self.dim):
            copy = torch.empty_like(row, device=self.device, memory_format=channels_last(slab.ndim))
            self.rows.append(copy.copy_(row))

    def read(self, rows: Rows, device: torch.device) -> Tensor:
        """Return rows as one tensor on ``device``: a view of the caller's, a copy of ours."""
        if self.whole is not None:
            return _rows_of(self.whole, rows, self.dim - 2)
        found = [row for row in self.rows[int(rows.start) : int(rows.stop)] if row is not None]
        assert len(found) == rows.number, "rows that were freed"
        shape = list(found[0].shape)
        shape[self.dim] = len(found)
        slab = torch.empty(shape, dtype=found[0].dtype, device=device, memory_format=channels_last(len(shape)))
        for index, row in enumerate(found):
            slab.narrow(self.dim, index, 1).copy_(row)
        return slab

    def free_before(self, row: int) -> None:
        """Forget rows that nobody will read."""
        self.rows[:row] = [None] * min(row, len(self.rows))


class _Stream:
    """Runs a chain over slabs and remembers the statistics of its norms and the tensor that was kept last."""

    def __init__(self, chain: Chain, axis: int, lengths: list[int], x: Tensor):
        self.chain, self.axis, self.lengths, self.device = chain, axis, lengths, x.device
        self.moments: dict[int, Moments] = {}
        self.kept = _Kept(axis, x.device, x)
        self.skip: _Kept | None = None

    def keep(self, step: Pass) -> None:
        """Run a pass and keep the tensor at its end, with the skip of the block that it lies in."""
        device = torch.device("cpu") if step.place == "host" else self.device
        kept, skip = _Kept(self.axis, device), None
        if self.chain.opens_skip(step.source, step.target):
            skip = _Kept(self.axis, device)
        elif self.chain.shares_skip(step.source, step.target):
            skip = self.kept if self.chain.opened[step.target] == step.source else self.skip

        def store(rows: Rows, slab: Tensor, beside: Tensor | None) -> None:
            kept.append(slab)
            if beside is not None:
                assert skip is not None
                skip.append(beside)

        self.each_slab(step, store, stays=skip)
        self.kept, self.skip = kept, skip

    def each_slab(
        self, step: Pass, use: Callable[[Rows, Tensor, Tensor | None], object], stays: _Kept | None = None
    ) -> None:
        """Compute a pass slab by slab; statistics of a norm at its end are gathered on the way.

        Args:
            step: the pass. If it leaves a tensor anywhere, it is the last to read its source, whose rows are freed.
            use: receives rows, tensor and new skip of each slab and must not hold on to them.
            stays: what must not be freed.
        """
        with_skip = step.place != "nowhere" and self.chain.opens_skip(step.source, step.target)
        length = self.lengths[step.target]
        for start in range(0, length, step.thickness):
            want = Rows(start, min(start + step.thickness, length))
            needs = trace(self.chain, self.lengths, step.source, step.target, want, with_skip)
            for kept in (self.kept, self.skip):
                if step.place != "nowhere" and kept is not None and kept is not stays:
                    kept.free_before(int(needs[0][0].start))
            use(want, *self._compute(step, needs))

    def _compute(self, step: Pass, needs: list[tuple[Rows, Rows | None]]) -> tuple[Tensor, Tensor | None]:
        x, beside = self.kept.read(needs[0][0], self.device), None
        if needs[0][1] is not None:
            assert self.skip is not None
            beside = self.skip.read(needs[0][1], self.device)
        for index, (have, _), (want, skip) in zip(range(step.source, step.target), needs, needs[1:], strict=False):
            layer = self.chain.layers[index]
            if isinstance(layer, Branch):
                beside = None if skip is None else _within(x, have, skip, self.axis)
                x = _within(x, have, want, self.axis)
            elif isinstance(layer, Merge):
                assert beside is not None
                x, beside = layer.merge(x, beside), None
            elif isinstance(layer, Normalize):
                x = layer.normalize(x, self.moments[index])
            else:
                x = layer.slab(x, Slab(have, want, self.lengths[index], self.axis))
        if step.target in self.chain.statistics:
            self._gather(self.chain.statistics[step.target], x)
        return x, beside

    def _gather(self, norm: int, x: Tensor) -> None:
        part = measure_moments(x)
        self.moments[norm] = self.moments[norm].joined(part) if norm in self.moments else part


def _rows_of(x: Tensor, rows: Rows, axis: int) -> Tensor:
    return x.narrow(2 + axis, int(rows.start), int(rows.number))


def _within(x: Tensor, have: Rows, want: Rows, axis: int) -> Tensor:
    return x.narrow(2 + axis, int(want.start - have.start), int(want.number))


def _precision(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32


def _with_channels(shape: tuple[int, ...], channels: int, dims: int) -> tuple[int, ...]:
    assert len(shape) in (dims, dims + 2), shape
    return (1, channels, *shape) if len(shape) == dims else shape
