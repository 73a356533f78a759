"""nnU-Net's cross-entropy and Dice, every voxel weighted by its confidence (FCaS Eq. 9)."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn


class ConfidenceLoss(nn.Module):
    """nnU-Net's loss with a weight per voxel; with weight 1 everywhere it is that loss to float error.

    The weighted cross-entropy is averaged over all the voxels that nnU-Net averages over (Eq. 9): little confidence
    means a small loss. nnU-Net's Dice takes the weights as the mask that it knows already, in all three of its sums.

    Args:
        stock: nnU-Net's ``DC_and_CE_loss``; its Dice (maybe compiled), weights and ignored label are used.
    """

    def __init__(self, stock: Any):
        super().__init__()
        self.stock: Any = stock

    def forward(
        self,
        logits: Float[Tensor, "b c *grid"],
        target: Shaped[Tensor, "b 1 *grid"],
        weight: Float[Tensor, "b 1 *grid"],
    ) -> Float[Tensor, ""]:
        """Return the weighted loss.

        Args:
            logits: of class 0 (background) and at least one structure.
            target: class per voxel, or the ignored label.
            weight: of each voxel, 0 or more.
        """
        counted: Any = weight.numel()
        if self.stock.ignore_label is not None:
            kept = torch.ne(target, self.stock.ignore_label)
            target, weight, counted = torch.where(kept, target, 0), weight * kept, kept.sum().clamp_min(1)
        cross_entropy = F.cross_entropy(logits, target[:, 0].long(), reduction="none")
        total = (weight[:, 0] * cross_entropy).sum() / counted
        return self.stock.weight_ce * total + self.stock.weight_dice * self.stock.dc(logits, target, loss_mask=weight)


def at_scale_of(weight: Float[Tensor, "b 1 *grid"], target: Shaped[Tensor, "b 1 *coarse"]) -> Float[Tensor, "b 1 *_"]:
    """Return the weights of a coarser target's voxels under deep supervision.

    Taken from the very voxels that nnU-Net takes the labels from: a mean over the voxels between would give a label
    that nobody trusts the weight of its neighbors.
    """
    if weight.shape == target.shape:
        return weight
    return F.interpolate(weight, target.shape[2:], mode="nearest-exact")
