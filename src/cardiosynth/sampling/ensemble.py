"""Several samples of one case: how much they differ is the expensive reference for every cheaper confidence map."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt8

from cardiosynth.core.case import Case
from cardiosynth.sampling.confidence import Dispersion

Generate = Callable[[Case, Case, int], Case]
"""(mask, template, seed) -> synthetic case: any generator's ``generate``."""


def ensemble_dispersion(
    generate: Generate, mask: Case, template: Case, seeds: Sequence[int], *, mask_shift: int = 0
) -> Dispersion:
    """Return mean and variance over the images that ``generate`` makes of one mask and one template.

    Args:
        generate: of any method, e.g. ``load_generator(run).generate``.
        mask: the reference mask.
        template: image and mask.
        seeds: one per sample.
        mask_shift: voxels by which the mask is moved, in another direction for every sample.
    """
    dispersion = Dispersion()
    for number, seed in enumerate(seeds):
        moved = mask.with_(mask=moved_mask(mask.required_mask(), mask_shift, number))
        dispersion.add(generate(moved, template, seed).required_image().astype(np.float32))
    return dispersion


def moved_mask(mask: UInt8[np.ndarray, "1 *grid"], shift: int, number: int) -> UInt8[np.ndarray, "1 *grid"]:
    """Return ``mask`` moved by ``shift`` voxels in direction ``number``; what leaves the grid at one border is lost.

    Directions: forth along one axis after the other, then back along each, then forth again. The border's voxels are
    repeated where the mask moved away from it.
    """
    dims = mask.ndim - 1
    axis, back = 1 + number % dims, number // dims % 2
    source = np.arange(mask.shape[axis]) + (shift if back else -shift)
    return np.take(mask, source.clip(0, mask.shape[axis] - 1), axis=axis)
