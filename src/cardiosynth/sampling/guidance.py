"""Classifier-free guidance (Ho and Salimans, 2022) on the template and on the mask, as a wrapper around a denoiser.

x0 = D(full) + w_template (D(full) - D(without template)) + w_mask (D(full) - D(without mask)). As D is
(x + sigma^2 score) / alpha, each difference is sigma^2 / alpha times the gradient of the log-likelihood that what was
left out has, given the rest: guidance goes where x shows it more clearly. Networks learn the variants by condition
dropout (``diffusion/dropout.py``), and see here what they saw there.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from cardiosynth.diffusion.control import Condition, ConditionSettings
from cardiosynth.diffusion.denoiser import Clamp, Denoiser, clamped
from cardiosynth.diffusion.dropout import without_mask, without_template


class Guidance(NamedTuple):
    """Weights of guidance; 0 is none.

    Attributes:
        template: w_template, how far to go towards the template's manner.
        mask: w_mask, how far to go towards the mask.
    """

    template: float = 0.0
    mask: float = 0.0


class Variants(NamedTuple):
    """What a guided denoiser is told in place of one condition, each embedded once per case.

    Attributes:
        full: the whole condition.
        without_template: needed where the template has a weight.
        without_mask: needed where the mask has a weight.
    """

    full: Tensor
    without_template: Tensor | None = None
    without_mask: Tensor | None = None


def embedded_variants(
    embed: Callable[[Condition], Tensor], condition: Condition, settings: ConditionSettings, guidance: Guidance
) -> Variants:
    """Return the embeddings that ``guidance`` needs, made one after the other.

    Args:
        embed: the network's stem.
        condition: the whole one.
        settings: what the network is told, and how.
        guidance: the weights; a part of weight 0 needs no variant.
    """
    return Variants(
        embed(condition),
        embed(without_template(condition, settings)) if guidance.template else None,
        embed(without_mask(condition)) if guidance.mask else None,
    )


class GuidedDenoiser:
    """A denoiser whose x0 is led towards its condition; its condition is a :class:`Variants`.

    Args:
        denoiser: D, told an embedding.
        guidance: the weights; where all are 0 this is D, called once.
        stacked: call D once with all variants in one batch, which is faster where one alone does not fill the device
            and takes as many times its memory; or once for each.
        clamp: of the guided x0, as D's own.
    """

    def __init__(self, denoiser: Denoiser, guidance: Guidance, *, stacked: bool = False, clamp: Clamp = None):
        self._denoiser, self._guidance, self._stacked, self._clamp = denoiser, guidance, stacked, clamp

    def __call__(self, x: Float[Tensor, "b *rest"], t: Float[Tensor, ""], variants: Variants) -> Tensor:
        """Return the guided x0."""
        led = [(weight, other) for weight, other in zip(self._guidance, variants[1:], strict=True) if weight]
        if not led:
            return self._denoiser(x, t, variants.full)
        told = [variants.full, *(_needed(other) for _, other in led)]
        full, *others = each_told(self._denoiser, x, t, told, self._stacked)
        x0 = full
        for (weight, _), other in zip(led, others, strict=True):
            x0 = x0 + weight * (full - other)
        return clamped(x0, self._clamp)


def each_told(denoiser: Denoiser, x: Tensor, t: Tensor, told: list[Tensor], stacked: bool) -> list[Tensor]:
    """Return D for every one of these embeddings, called once for each or, ``stacked``, once for all."""
    if not stacked:
        return [denoiser(x, t, embedding) for embedding in told]
    return list(denoiser(torch.cat([x] * len(told)), t, torch.cat(told)).chunk(len(told)))


def _needed(variant: Tensor | None) -> Tensor:
    assert variant is not None, "guidance needs the variant that it leads away from"
    return variant
