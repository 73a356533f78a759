"""Where training examples are cut out: on the latent grid and around the heart, so that a pair corresponds.

A template helps where its heart lies where the reference's does. Prepared cases are centered alike but not to the
voxel, so each case of a pair is cut around the center of its own heart, moved by one random offset for both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.random import draw_int
from cardiosynth.data.loader import Where


@dataclass(frozen=True)
class Cropping:
    """How crops are drawn, in latent voxels.

    Attributes:
        shape: of a crop.
        grid: of every case.
        centers: where the heart of every case lies.
        compression: image voxels per latent voxel along each axis.
    """

    shape: tuple[int, ...]
    grid: tuple[int, ...]
    centers: tuple[tuple[int, ...], ...]
    compression: int

    def draw(self, indices: Sequence[int], rng: torch.Generator) -> list[Where]:
        """Draw one crop of each of these cases, all moved from their hearts by the same offset.

        The offset is uniform over those that keep every heart's center in its crop and every crop in its volume. Where
        there is none, as with hearts at opposite ends of the volumes, crops are moved inside one by one.
        """
        axes = [
            self._starts([self.centers[index][axis] for index in indices], axis, rng) for axis in range(len(self.grid))
        ]
        return [
            tuple(slice(start, start + n) for start, n in zip(starts, self.shape, strict=True))
            for starts in zip(*axes, strict=True)
        ]

    def voxels(self, where: Where) -> Where:
        """Return the voxels of an image that belong to latent voxels."""
        return tuple(slice(part.start * self.compression, part.stop * self.compression) for part in where)

    def _starts(self, centers: Sequence[int], axis: int, rng: torch.Generator) -> list[int]:
        size, room = self.shape[axis], self.grid[axis] - self.shape[axis]
        starts = [center - size // 2 for center in centers]
        low = max(size // 2 - size + 1, *(-start for start in starts))
        high = min(size // 2, *(room - start for start in starts))
        offset = low + draw_int(high - low + 1, rng) if low <= high else (low + high) // 2
        return [min(max(start + offset, 0), room) for start in starts]


def heart_center(case: Case) -> tuple[int, ...]:
    """Return the voxel at the center of mass of the target structures; the volume's center where there are none.

    In whole numbers: a case that is moved by some voxels has a center that is moved by as many, exactly.
    """
    inside = np.zeros(case.grid.shape, bool)
    if case.mask is not None:
        inside = np.isin(case.mask[0], case.labels.target_codes)
    if not inside.any():
        return tuple(n // 2 for n in case.grid.shape)
    return tuple(int(where.sum()) // len(where) for where in np.nonzero(inside))


def check_crop(crop: Sequence[int], grid: Sequence[int], multiple: int) -> None:
    """See that crops suit the networks and the volumes.

    Args:
        crop: voxels per axis.
        grid: voxels per axis of every case.
        multiple: compression of the autoencoder times that of the U-Net.

    Raises:
        InputError: they do not.
    """
    if len(crop) != len(grid) or any(n < multiple or n % multiple for n in crop):
        raise InputError(
            f"crop {tuple(crop)} must be {len(grid)} multiples of {multiple} voxels; change it or set null."
        )
    if any(n > most for n, most in zip(crop, grid, strict=True)):
        raise InputError(f"crop {tuple(crop)} is larger than the grid {tuple(grid)}; make it smaller or set null.")
