"""The segmentation networks, each by its name, and which class stands for which structure."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pydantic
import torch
from jaxtyping import UInt8
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.swin_unetr import SwinUNETR
from monai.networks.nets.unet import UNet
from torch import nn

from cardiosynth.core.config import Settings
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.random import named_weights
from cardiosynth.segmentation.swin_unet import SwinUNet, SwinUNetSettings

GROUPS = 8
"""Groups of SegResNet's normalization."""
SWIN_UNETR_MULTIPLE = 32
"""Patches of two voxels, merged four times."""


class SegResNetSettings(Settings):
    """Size of a SegResNet (Myronenko 2018). The defaults are MONAI's, with twice the features.

    Attributes:
        features: at the finest level, a multiple of 8; doubled from level to level.
        blocks_down: residual blocks per level on the way down.
        blocks_up: residual blocks per level on the way up, one level fewer.
    """

    features: int = pydantic.Field(default=16, ge=GROUPS, multiple_of=GROUPS)
    blocks_down: tuple[pydantic.PositiveInt, ...] = (1, 2, 2, 4)
    blocks_up: tuple[pydantic.PositiveInt, ...] = (1, 1, 1)

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "SegResNetSettings":
        if len(self.blocks_up) != len(self.blocks_down) - 1 or not self.blocks_up:
            raise ValueError(
                f"{len(self.blocks_down)} blocks_down need {len(self.blocks_down) - 1} blocks_up, at least 1"
            )
        return self


class SwinUNETRSettings(Settings):
    """Size of a SwinUNETR (Hatamizadeh et al. 2022), a Swin encoder with a convolutional decoder. Defaults are MONAI's.

    Attributes:
        features: at the finest level, a multiple of 12. Published: 48.
        depths: attention blocks of each of the four levels.
        heads: attention heads of each.
        window: patches along a side of an attention window.
        drop_path: share of blocks that are left out in training, at the deepest block.
    """

    features: int = pydantic.Field(default=24, ge=12, multiple_of=12)
    depths: tuple[pydantic.PositiveInt, pydantic.PositiveInt, pydantic.PositiveInt, pydantic.PositiveInt] = (2, 2, 2, 2)
    heads: tuple[pydantic.PositiveInt, pydantic.PositiveInt, pydantic.PositiveInt, pydantic.PositiveInt] = (
        3,
        6,
        12,
        24,
    )
    window: int = pydantic.Field(default=7, ge=2)
    drop_path: float = pydantic.Field(default=0.0, ge=0, lt=1)

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "SwinUNETRSettings":
        for level, heads in enumerate(self.heads):
            if self.features * 2**level % heads:
                raise ValueError(f"{self.features * 2**level} features cannot be shared by {heads} heads")
        return self


class SegmenterSettings(Settings):
    """Which network, and its size.

    Attributes:
        kind: ``unet`` (MONAI's, with residual units), ``swin_unet`` (slices only), ``segresnet`` or ``swin_unetr``.
        spatial_dims: 3 for volumes, 2 for slices.
        channels: features per level of the U-Net, finest first.
        strides: of the U-Net, downsampling from each level to the next.
        num_res_units: convolutions per residual unit of the U-Net; 0 makes plain convolutions.
        dropout: share of features dropped in training, in every kind.
        swin_unet: size of that kind.
        segresnet: size of that kind.
        swin_unetr: size of that kind.
    """

    kind: Literal["unet", "swin_unet", "segresnet", "swin_unetr"] = "unet"
    spatial_dims: Literal[2, 3] = 3
    channels: tuple[int, ...] = (16, 32, 64, 96)
    strides: tuple[int, ...] = (2, 2, 2)
    num_res_units: int = pydantic.Field(default=1, ge=0)
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    swin_unet: SwinUNetSettings = SwinUNetSettings()
    segresnet: SegResNetSettings = SegResNetSettings()
    swin_unetr: SwinUNETRSettings = SwinUNETRSettings()

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "SegmenterSettings":
        if len(self.channels) < 2 or len(self.strides) != len(self.channels) - 1:
            raise ValueError(f"{len(self.channels)} channels need {len(self.channels) - 1} strides, and at least one")
        if self.kind == "swin_unet" and self.spatial_dims != 2:
            raise ValueError("kind swin_unet segments slices; set spatial_dims to 2, or kind to swin_unetr for volumes")
        return self

    @property
    def multiple(self) -> int:
        """Voxels per axis that the network takes are multiples of this."""
        match self.kind:
            case "unet":
                return math.prod(self.strides)
            case "swin_unet":
                return self.swin_unet.multiple
            case "segresnet":
                return 2 ** len(self.segresnet.blocks_up)
            case "swin_unetr":
                return SWIN_UNETR_MULTIPLE

    @property
    def normalizes_instances(self) -> bool:
        """Whether each channel is normalized over the voxels of an example alone, of which it then needs two."""
        return self.kind in ("unet", "swin_unetr")


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
    """Return a network (b 1 *grid) -> (b classes *grid) of logits, its weights drawn from ``seed``.

    Every axis of its input must be a multiple of ``settings.multiple``.
    """
    return build_network(settings, len(classes), seed)


def build_network(settings: SegmenterSettings, channels: int, seed: int = 0) -> nn.Module:
    """Return a network (b 1 *grid) -> (b channels *grid); see :func:`build_segmenter`."""
    with named_weights(seed, "segmenter"):
        network = BUILDERS[settings.kind](settings, channels)
    return network.to(memory_format=fast_memory_format(settings.spatial_dims))  # pyright: ignore[reportCallIssue]


def _unet(settings: SegmenterSettings, num_classes: int) -> nn.Module:
    return UNet(
        spatial_dims=settings.spatial_dims,
        in_channels=1,
        out_channels=num_classes,
        channels=settings.channels,
        strides=settings.strides,
        num_res_units=settings.num_res_units,
        norm="instance",
        dropout=settings.dropout,
    )


def _swin_unet(settings: SegmenterSettings, num_classes: int) -> nn.Module:
    return SwinUNet(num_classes, settings.swin_unet, settings.dropout)


def _segresnet(settings: SegmenterSettings, num_classes: int) -> nn.Module:
    size = settings.segresnet
    return SegResNet(
        spatial_dims=settings.spatial_dims,
        init_filters=size.features,
        out_channels=num_classes,
        dropout_prob=settings.dropout or None,
        num_groups=GROUPS,
        blocks_down=size.blocks_down,
        blocks_up=size.blocks_up,
    )


def _swin_unetr(settings: SegmenterSettings, num_classes: int) -> nn.Module:
    size = settings.swin_unetr
    # MONAI reads its drop rates from a tensor, which has no values where networks are built to be counted alone.
    with torch.device("cpu"):
        return SwinUNETR(
            in_channels=1,
            out_channels=num_classes,
            depths=size.depths,
            num_heads=size.heads,
            window_size=size.window,
            feature_size=size.features,
            drop_rate=settings.dropout,
            dropout_path_rate=size.drop_path,
            spatial_dims=settings.spatial_dims,
        )


BUILDERS: dict[str, Callable[[SegmenterSettings, int], nn.Module]] = {
    "unet": _unet, "swin_unet": _swin_unet, "segresnet": _segresnet, "swin_unetr": _swin_unetr,
}  # fmt: skip


HEADS = {"unet": "model.2.", "swin_unet": "head.", "segresnet": "conv_final.", "swin_unetr": "out."}
"""Kind -> how the names of those weights begin whose shapes depend on the number of output channels."""


def check_crop(settings: SegmenterSettings, crop: Sequence[int]) -> None:
    """See that a network takes examples of this size.

    Raises:
        ValueError: it does not.
    """
    dims, multiple = settings.spatial_dims, settings.multiple
    if len(crop) != dims or any(n < 1 or n % multiple for n in crop):
        raise ValueError(
            f"crop {tuple(crop)} must be {dims} multiples of {multiple}, which network.kind {settings.kind} takes"
        )
    if settings.normalizes_instances and all(n == multiple for n in crop):
        raise ValueError(
            f"crop {tuple(crop)} leaves network.kind {settings.kind} a single voxel at its deepest level, which "
            f"cannot be normalized; make an axis {2 * multiple} or more"
        )


def fast_memory_format(spatial_dims: int) -> torch.memory_format:
    """Return channels-last, in which convolutions take a fifth less time on CPUs in float32."""
    return torch.channels_last_3d if spatial_dims == 3 else torch.channels_last
