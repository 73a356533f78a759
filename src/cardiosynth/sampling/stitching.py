"""Structures denoised each by itself and stitched by the mask at every step (DiffInfinite: Aversa et al. 2023).

Of what is predicted for a structure only its own region is kept, so that in a step no region sees another's
prediction. Solvers take x0 voxel by voxel, so that stitching x0 stitches the step. Guidance on the mask is part of it:
in a structure's region x0 = D(nothing) + (1 + w) (D(structure) - D(nothing)), and D(nothing) where no structure is.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from cardiosynth.diffusion.control import Condition, only_codes
from cardiosynth.diffusion.denoiser import Clamp, Denoiser, clamped
from cardiosynth.diffusion.dropout import without_mask
from cardiosynth.sampling.guidance import each_told


class Structures(NamedTuple):
    """What a stitching denoiser is told in place of one condition.

    Attributes:
        nothing: embedding of an empty mask.
        each: embeddings of the masks of one structure each.
        regions: theirs of the latents; no two overlap.
    """

    nothing: Tensor
    each: tuple[Tensor, ...]
    regions: tuple[Bool[Tensor, "b 1 *latent"], ...]


def embedded_structures(
    embed: Callable[[Condition], Tensor], condition: Condition, codes: Sequence[int], compression: int
) -> Structures:
    """Return the embeddings and regions of the structures ``codes`` that the mask holds.

    Args:
        embed: the network's stem.
        condition: the whole one.
        codes: of the structures that the network is told.
        compression: image voxels per latent voxel along each axis; a latent voxel belongs to the structure in its
            block's middle.
    """
    reference = condition.reference
    there = sorted(set(reference.unique().tolist()) & set(codes))
    masks = [only_codes(reference, [code]) for code in there]
    told = [embed(condition._replace(reference=mask)) for mask in masks]
    regions = [_region(mask, compression) for mask in masks]
    return Structures(embed(without_mask(condition)), tuple(told), tuple(regions))


class StitchedDenoiser:
    """A denoiser whose x0 is put together from those of single structures; its condition is :class:`Structures`.

    Args:
        denoiser: D, told an embedding.
        weight: w of the guidance on the mask, 0 for none.
        stacked: call D once with all structures in one batch.
        clamp: of the stitched x0, as D's own.
    """

    def __init__(self, denoiser: Denoiser, weight: float, *, stacked: bool = False, clamp: Clamp = None):
        self._denoiser, self._weight, self._stacked, self._clamp = denoiser, weight, stacked, clamp

    def __call__(self, x: Float[Tensor, "b *rest"], t: Float[Tensor, ""], told: Structures) -> Tensor:
        """Return the stitched x0."""
        nothing, *each = each_told(self._denoiser, x, t, [told.nothing, *told.each], self._stacked)
        x0 = nothing
        for region, own in zip(told.regions, each, strict=True):
            x0 = torch.where(region, nothing + (1 + self._weight) * (own - nothing), x0)
        return clamped(x0, self._clamp)


def _region(mask: UInt8[Tensor, "b 1 *grid"], compression: int) -> Bool[Tensor, "b 1 *latent"]:
    middle = slice(compression // 2, None, compression)
    return mask[(slice(None), slice(None), *[middle] * (mask.ndim - 2))] > 0
