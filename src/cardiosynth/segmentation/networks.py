"""The segmentation network (MONAI's U-Net with residual units), and which class stands for which structure."""

import math
from typing import Literal

import numpy as np
import pydantic
import torch
from jaxtyping import UInt8
from monai.networks.nets.unet import UNet
from torch import nn

from cardiosynth.core.config import Settings
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.random import named_weights


class SegmenterSettings(Settings):
    """Size of the U-Net.

    Attributes:
        spatial_dims: 3 for volumes, 2 for slices.
        channels: features per level, finest first.
        strides: downsampling from each level to the next.
        num_res_units: convolutions per residual unit; 0 makes plain convolutions.
        dropout: share of features dropped in training.
    """

    spatial_dims: Literal[2, 3] = 3
    channels: tuple[int, ...] = (16, 32, 64, 96)
    strides: tuple[int, ...] = (2, 2, 2)
    num_res_units: int = pydantic.Field(default=1, ge=0)
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "SegmenterSettings":
        if len(self.channels) < 2 or len(self.strides) != len(self.channels) - 1:
            raise ValueError(f"{len(self.channels)} channels need {len(self.channels) - 1} strides, and at least one")
        return self

    @property
    def multiple(self) -> int:
        """Voxels per axis that the network takes are multiples of this."""
        return math.prod(self.strides)


class Classes(Settings):
    """Which output channel of a network means which label code.

    Attributes:
        codes: label code of every class; class 0 is the background, code 0.
    """

    codes: tuple[int, ...] = pydantic.Field(min_length=2)

    def __len__(self) -> int:
        return len(self.codes)

    def from_codes(self, mask: UInt8[np.ndarray, "1 *grid"]) -> UInt8[np.ndarray, "1 *grid"]:
        """Return the class of every voxel of a mask of label codes; codes without a class are background."""
        table = np.zeros(256, np.uint8)
        table[list(self.codes)] = np.arange(len(self.codes))
        return table[mask]

    def to_codes(self, classes: UInt8[np.ndarray, "1 *grid"]) -> UInt8[np.ndarray, "1 *grid"]:
        """Return the label code of every voxel's class."""
        return np.array(self.codes, np.uint8)[classes]


def target_classes(labels: LabelTable) -> Classes:
    """Return the background and all target structures, by ascending code; surroundings are background."""
    return Classes(codes=(0, *labels.target_codes))


def build_segmenter(settings: SegmenterSettings, classes: Classes, seed: int = 0) -> nn.Module:
    """Return a U-Net (b 1 *grid) -> (b classes *grid) of logits, instance-normalized, its weights drawn from ``seed``.

    Every axis of its input must be a multiple of ``settings.multiple``.
    """
    with named_weights(seed, "segmenter"):
        network = UNet(
            spatial_dims=settings.spatial_dims,
            in_channels=1,
            out_channels=len(classes),
            channels=settings.channels,
            strides=settings.strides,
            num_res_units=settings.num_res_units,
            norm="instance",
            dropout=settings.dropout,
        )
    return network.to(memory_format=fast_memory_format(settings.spatial_dims))  # pyright: ignore[reportCallIssue]


def fast_memory_format(spatial_dims: int) -> torch.memory_format:
    """Return channels-last, in which convolutions take a fifth less time on CPUs in float32."""
    return torch.channels_last_3d if spatial_dims == 3 else torch.channels_last
