"""Confidence-aware Adaptive Learning: the segmentation loss, every voxel weighted by its confidence (FCaS Eq. 9).

Eq. 9 writes ``CM * L``, which has a meaning voxel by voxel only. Cross-entropy is such a loss. Soft Dice is a ratio of
sums, so the confidence goes into its sums: a voxel of confidence 0 is as if it were not there.
"""

import pydantic
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Integer
from torch import Tensor

from cardiosynth.core.config import Settings

SMOOTH = 1.0
"""One voxel, added to numerator and denominator of soft Dice: a structure that is neither there nor predicted costs
nothing, and an example without any confidence has the finite loss 0 and no gradient."""


class ConfidenceWeights(Settings):
    """How a confidence map becomes the weights of a case's voxels: max(CM, floor), or that over its mean.

    Attributes:
        floor: smallest weight before the division; 0 (published) lets a voxel without confidence go unlearned.
        relative: divide by the mean over the case, so that a map that is low everywhere does not slow learning down as
            a smaller learning rate would. Published: not.
    """

    floor: float = pydantic.Field(default=0.0, ge=0, le=1)
    relative: bool = False

    def floored(self, confidence: Float[Tensor, "*grid"]) -> Float[Tensor, "*grid"]:
        """Return the confidence of a whole case, in [floor, 1]."""
        return confidence.clamp_min(self.floor)

    def factor(self, mean: float) -> float:
        """Return what floored confidences are multiplied by, given their mean over the case; 1 where that is 0."""
        return 1 / mean if self.relative and mean > 0 else 1.0


def cal_loss(
    logits: Float[Tensor, "b c *grid"],
    target: Integer[Tensor, "b 1 *grid"],
    confidence: Float[Tensor, "b 1 *grid"] | None = None,
) -> Float[Tensor, ""]:
    """Return cross-entropy plus soft Dice loss, weighted by confidence (FCaS Eq. 9).

    With confidence 1 everywhere it is the plain loss; where confidence is 0, no gradient passes.

    Args:
        logits: of class 0 (background) and at least one structure, in two or three dimensions.
        target: class index per voxel, below ``c``.
        confidence: weight of each voxel, 0 or more (see :class:`ConfidenceWeights`), or None where every voxel counts
            alike.

    Returns:
        A non-negative float32 scalar, mean over examples.
    """
    parts = cal_parts(logits, target, confidence)
    return parts["cross_entropy"] + parts["dice"]


def cal_parts(
    logits: Float[Tensor, "b c *grid"],
    target: Integer[Tensor, "b 1 *grid"],
    confidence: Float[Tensor, "b 1 *grid"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Return the two parts of ``cal_loss``, in float32 whatever the precision of ``logits``."""
    logits, target = logits.float(), target.long()
    weight = torch.ones_like(logits[:, :1]) if confidence is None else confidence.float()
    cross_entropy = F.cross_entropy(logits, target[:, 0], reduction="none")
    return {
        "cross_entropy": (weight[:, 0] * cross_entropy).mean(),
        "dice": 1 - soft_dice(logits.softmax(1), target, weight).mean(),
    }


def soft_dice(
    probabilities: Float[Tensor, "b c *grid"], target: Integer[Tensor, "b 1 *grid"], weight: Float[Tensor, "b 1 *grid"]
) -> Float[Tensor, "b structures"]:
    """Return weighted soft Dice of every structure (all classes but the background) in every example.

    ``(2 sum(w p g) + 1) / (sum(w p) + sum(w g) + 1)``, the sums over the example's voxels; in (0, 1].
    """
    truth = torch.zeros_like(probabilities).scatter_(1, target, 1.0)
    p, g, w = (rearrange(x, "b c ... -> b c (...)") for x in (probabilities[:, 1:], truth[:, 1:], weight))
    intersection = (w * p * g).sum(-1)
    total = (w * p).sum(-1) + (w * g).sum(-1)
    return (2 * intersection + SMOOTH) / (total + SMOOTH)
