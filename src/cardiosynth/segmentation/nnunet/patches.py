"""The patch that nnU-Net is working on: where it was cut, so that its map is read only where it is asked for.

Most patches are neither rotated nor scaled. Of what was cut for these, nnU-Net keeps the middle, a quarter of the
voxels, and a map need not be read for the rest. Maps stay bytes until the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from cardiosynth.segmentation.losses import ConfidenceWeights
from cardiosynth.segmentation.nnunet.sidecar import LEVELS


class CaseMap:
    """One case's map: its file, and what its levels weigh.

    Args:
        levels: (1, x, y, z) bytes, 255 (1 - CM).
        weights: how confidence becomes a weight.
        counts: how many of its voxels have each level, where weights are relative to their mean.
    """

    def __init__(self, levels: np.ndarray, weights: ConfidenceWeights, counts: np.ndarray | None = None):
        self._levels, self._floor, self._factor = levels, weights.floor, 1.0
        if counts is not None:
            floored = weights.floored(torch.linspace(1, 0, LEVELS + 1)).numpy()
            self._factor = weights.factor(float(np.average(floored, weights=counts)))

    def __getitem__(self, window: tuple[slice, ...]) -> UInt8[Tensor, "1 x y z"]:
        """Return the levels of a window."""
        return torch.from_numpy(np.array(self._levels[(slice(None), *window)]))

    @property
    def grid(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return self._levels.shape[1:]

    @property
    def keeps_out(self) -> bool:
        """Whether voxels of the last level weigh nothing."""
        return self._floor == 0

    def fall_short(self, levels: UInt8[Tensor, "1 *grid"], out: Float[Tensor, "1 *grid"]) -> None:
        """Write 1 - factor * max(CM, floor) of every voxel."""
        out.copy_(levels).div_(LEVELS)
        if self._floor > 0:
            out.clamp_(max=1 - self._floor)
        if self._factor != 1:
            out.sub_(1).mul_(self._factor).add_(1)  # exactly 1 where it was


@dataclass
class Place:
    """Where the patch at work lies. nnU-Net loads, cuts and augments one patch before it begins with the next.

    Attributes:
        map: of the patch's case, None where it has none.
        window: what was cut out of the case.
        padding: voxels that were filled up before and behind, along each axis.
    """

    map: CaseMap | None = None
    window: tuple[slice, ...] = ()
    padding: Sequence[tuple[int, int]] = ()

    def patch(self, shape: Sequence[int]) -> "PatchMap":
        """Return the map of the patch, which became an image of this shape: of two axes where slices are cut."""
        assert self.map is not None, "the case has a map"
        found = PatchMap(self.map, self.window, self.padding, flat=len(shape) < len(self.window))
        assert found.shape[1:] == tuple(shape), "nnU-Net fills up patches in another way than it did"
        return found


class NotedImage:
    """Looks to nnU-Net's cropping like a case's image (c, x, y, z), and notes what is cut out.

    Args:
        image: the image.
        place: where that is noted.
    """

    def __init__(self, image: Any, place: Place):
        self._image, self._place = image, place
        self.shape, self.ndim, self.dtype = image.shape, image.ndim, image.dtype

    def __getitem__(self, window: tuple[slice, ...]) -> np.ndarray:
        """Return a part of the image, which notes how it is filled up."""
        self._place.window, self._place.padding = window[1:], [(0, 0)] * (len(window) - 1)
        patch = self._image[window].view(NotedPatch)
        patch.place = self._place
        return patch


class NotedPatch(np.ndarray):
    """What was cut out. nnU-Net fills it up by ``np.pad``, which is noted."""

    place: Place

    def __array_function__(self, func: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        """Let NumPy do its work."""
        if func is np.pad:
            self.place.padding = kwargs["pad_width"][1:]
        return super().__array_function__(func, types, args, kwargs)


class PatchMap:
    """Looks to nnU-Net's spatial transform like the map of a patch (1, x, y, z), and reads what is asked for.

    Args:
        source: the case's map.
        window: of the patch.
        padding: beyond the image's edge, where everything is trusted, as in nnU-Net.
        flat: leave out the first axis, which is one voxel long: nnU-Net cuts slices so.
    """

    def __init__(self, source: CaseMap, window: Sequence[slice], padding: Sequence[tuple[int, int]], flat: bool):
        self._source, self._window, self._padding, self._flat = source, window, padding, flat
        sizes = [part.stop - part.start + sum(more) for part, more in zip(window, padding, strict=True)]
        self.shape = (1, *sizes[flat:])
        self.ndim = len(self.shape)

    def __getitem__(self, asked: Sequence[slice]) -> UInt8[Tensor, "1 *part"]:
        """Return a part of the map."""
        windows, inside, sizes = [], [], []
        asked = (*(slice(None),) * self._flat, *asked[1:])
        for part, window, (before, after) in zip(asked, self._window, self._padding, strict=True):
            size = window.stop - window.start + before + after
            first, last, _ = part.indices(size)
            begin, end = max(first, before), max(min(last, size - after), before)
            windows.append(slice(window.start + begin - before, window.start + end - before))
            inside.append(slice(begin - first, end - first))
            sizes.append(last - first)
        found = self._filled(windows, inside, sizes)
        return found[:, 0] if self._flat else found

    def _filled(self, windows: list[slice], inside: list[slice], sizes: list[int]) -> UInt8[Tensor, "1 x y z"]:
        """Return what lies in the case, filled up with trust."""
        if [part.stop - part.start for part in windows] == sizes:
            return self._source[tuple(windows)]
        found = torch.zeros((1, *sizes), dtype=torch.uint8)
        if all(part.start < part.stop for part in windows):
            found[(slice(None), *inside)] = self._source[tuple(windows)]
        return found


def sampled(
    levels: UInt8[Tensor, "k *grid"], places: Float[Tensor, "*out d"], keeps_out: bool, bent: bool = False
) -> UInt8[Tensor, "k *out"]:
    """Return the levels nearest to some places, in a fifth of the time of ``grid_sample``.

    nnU-Net takes labels from all voxels around a place. So where ``keeps_out``, a level of 255 spreads to its neighbors
    first: where it was, no label went into any that still counts.

    Args:
        levels: of a patch.
        places: for each voxel wanted, as ``grid_sample`` counts: last axis first, from -1 at the patch's edge to 1.
        keeps_out: whether voxels of the last level weigh nothing.
        bent: whether places lie otherwise than evenly, as without elastic deformation they do.
    """
    sizes, axes = levels.shape[1:], places.shape[-1]
    assert len(sizes) == axes, "a patch has as many axes as its places"
    if keeps_out and levels.max() == LEVELS:
        levels = levels | _spread(torch.from_numpy(levels.numpy() == LEVELS)).view(torch.uint8) * LEVELS
    index = torch.zeros((), dtype=torch.int32)
    for axis, size in enumerate(sizes):
        place = places[..., axes - 1 - axis]
        voxel = place * (size / 2) + size / 2 if bent else _even(place, size / 2)
        index = torch.add(voxel.clamp_(0, size - 0.5).int(), index, alpha=size)
    return torch.from_numpy(np.take(levels.flatten(1).numpy(), index.numpy(), axis=1))


def _even(values: Float[Tensor, "*grid"], scale: float) -> Float[Tensor, "*grid"]:
    """Return (values + 1) scale of values that change evenly along every axis, from corners: reading all is slow."""
    corner = (0,) * values.ndim
    found = (values[corner] + 1) * scale
    for axis, size in enumerate(values.shape):
        step = scale / max(size - 1, 1) * (values[(*corner[:axis], size - 1, *corner[axis + 1 :])] - values[corner])
        found = found + (torch.arange(size) * step).view(-1, *(1,) * (values.ndim - 1 - axis))
    return found


def _spread(found: Bool[Tensor, "k *grid"]) -> Bool[Tensor, "k *grid"]:
    """Return where ``found`` is true in a voxel or in one that touches it."""
    for axis in range(1, found.ndim):
        grown = found.clone()
        near, far = (slice(None),) * axis + (slice(1, None),), (slice(None),) * axis + (slice(None, -1),)
        grown[near] |= found[far]
        grown[far] |= found[near]
        found = grown
    return found
