"""Confidence through nnU-Net's augmentation: moved with the image, untouched by what changes intensities."""

from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform  # pyright: ignore[reportMissingImports]


class Carrying(BasicTransform):
    """Applies nnU-Net's transforms to all channels but the last, which travels as its regression target.

    A regression target is sampled on the image's grid and mirrored with it, and no change of intensities touches it
    (its authors' advice, batchgeneratorsv2 pull request 10). A last channel of zeros is not carried: it stays zeros, so
    that cases without a map cost nothing and nnU-Net draws the same random numbers.

    Args:
        stock: nnU-Net's transforms.
    """

    def __init__(self, stock: BasicTransform):
        super().__init__()
        self.stock = stock

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Return the transformed sample, its last channel in its place again."""
        channels = data_dict["image"]
        moved = {**data_dict, "image": channels[:-1]}
        if channels[-1].any():
            moved["regression_target"] = channels[-1:]
        moved = self.stock(**moved)
        image = moved["image"]
        carried = moved.pop("regression_target", None)
        last = image.new_zeros((1, *image.shape[1:])) if carried is None else carried
        return {**moved, "image": torch.cat((image, last))}
