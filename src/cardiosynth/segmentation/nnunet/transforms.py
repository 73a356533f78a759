"""Confidence through nnU-Net's augmentation: moved with the image, untouched by what changes intensities."""

from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform  # pyright: ignore[reportMissingImports]
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform  # pyright: ignore[reportMissingImports]
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms  # pyright: ignore[reportMissingImports]
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform  # pyright: ignore[reportMissingImports]


class Carrying(BasicTransform):
    """Applies nnU-Net's transforms, and takes along the channel that cases with a map have beyond those of the image.

    It is interpolated together with the image, at half the price of a second interpolation. From then on it is
    nnU-Net's regression target, which is mirrored with the image and which no change of intensities touches (its
    authors' advice, batchgeneratorsv2 pull request 10). Cases without the channel get one of zeros in the end, so that
    nothing is done to them that nnU-Net would not do.

    Args:
        stock: nnU-Net's transforms.
        channels: of the image.
    """

    def __init__(self, stock: ComposeTransforms, channels: int):
        super().__init__()
        spatial = (SpatialTransform, Convert2DTo3DTransform)  # the latter ends what is done to slices
        last = max((i for i, each in enumerate(stock.transforms) if isinstance(each, spatial)), default=-1)
        self.channels = channels
        self.moving = ComposeTransforms(stock.transforms[: last + 1])
        self.others = ComposeTransforms(stock.transforms[last + 1 :])

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Return the transformed sample, with the channel as its last."""
        moved = self.moving(**data_dict)
        channels = moved["image"]
        mapped = len(channels) > self.channels
        if mapped:
            moved |= {"image": channels[:-1], "regression_target": channels[-1:]}
        moved = self.others(**moved)
        image = moved["image"]
        last = moved.pop("regression_target") if mapped else image.new_zeros((1, *image.shape[1:]))
        return {**moved, "image": torch.cat((image, last))}
