"""MedSAM's loss with confidence (CAL): soft Dice of squares plus binary cross-entropy, every pixel weighted."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SMOOTH = 1e-5
"""Added to numerator and denominator of soft Dice, as published (MONAI's default): nothing there, nothing weighed, and
the loss is 0."""


def medsam_parts(
    logits: Float[Tensor, "b n h w"], target: Float[Tensor, "b n h w"], confidence: Float[Tensor, "b n h w"]
) -> dict[str, Float[Tensor, ""]]:
    """Return the two parts of the loss (Ma et al. 2024, Methods), weighted as in FCaS Eq. 9, in float32.

    ``dice`` is 1 - (2 sum(w p g) + s) / (sum(w p^2) + sum(w g^2) + s) of each mask, the sums over its pixels, and
    ``cross_entropy`` the mean of w times binary cross-entropy. With confidence 1 they are MedSAM's own; where it is 0,
    no gradient passes.

    Args:
        logits: one mask per box.
        target: 0 or 1.
        confidence: weight of each pixel, 0 or more.
    """
    logits, w = logits.float(), confidence
    p = logits.sigmoid()
    intersection = (w * p * target).sum((2, 3))
    total = (w * p.square()).sum((2, 3)) + (w * target.square()).sum((2, 3))
    dice = 1 - (2 * intersection + SMOOTH) / (total + SMOOTH)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return {"cross_entropy": (w * cross_entropy).mean(), "dice": dice.mean()}
