"""Stems: from the volumes of a condition to features at latent resolution.

They do not see the time, so they run once per case and their result is fed to the networks at every step.
"""

from itertools import pairwise

import torch
from einops import rearrange
from jaxtyping import Float
from monai.networks.nets.controlnet import ControlNetConditioningEmbedding
from torch import Tensor, nn

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable
from cardiosynth.diffusion.control import Condition, ConditionSettings, num_channels, raw_condition


def build_stem(
    settings: ConditionSettings, labels: LabelTable, compression: int, dims: int, heads: tuple[int, int]
) -> nn.Module:
    """Return the stem that ``settings`` describe, untrained.

    Args:
        settings: its kind and widths, and what the condition holds.
        labels: the label table of the masks.
        compression: image voxels per latent voxel along each axis.
        dims: 2 or 3.
        heads: number of features to concatenate (0 or ``settings.features``), and for the ControlNet.

    Raises:
        InputError: a ``maisi`` stem that does not suit the injection or the compression.
    """
    if settings.stem == "compact":
        return CompactStem(settings, labels, compression, dims, heads)
    if settings.inject != "control":
        raise InputError("condition.stem 'maisi' feeds a ControlNet alone; set condition.inject=control.")
    if 2 ** (len(settings.stem_channels) - 1) != compression:
        raise InputError(
            f"condition.stem_channels {settings.stem_channels} halve the grid {len(settings.stem_channels) - 1} times "
            f"and the autoencoder compresses by {compression}; give one width more than halvings."
        )
    return MaisiStem(settings, labels, dims, heads[1])


class CompactStem(nn.Module):
    """Space-to-depth by the compression, then 1x1, 3x3 and 3x3 convolutions: nothing runs at image resolution."""

    def __init__(
        self, settings: ConditionSettings, labels: LabelTable, compression: int, dims: int, heads: tuple[int, int]
    ):
        super().__init__()
        self.settings, self.labels, self.compression = settings, labels, compression
        conv = nn.Conv3d if dims == 3 else nn.Conv2d
        widths = (num_channels(settings, labels) * compression**dims, *settings.stem_channels, settings.features)
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise(widths)):
            layers += [nn.SiLU()] * (index > 0) + [conv(inputs, outputs, 3 if index else 1, padding=int(index > 0))]
        self.layers = nn.Sequential(*layers)
        self.concatenate = heads[0] > 0
        self.to_control = conv(settings.features, heads[1], 3, padding=1) if heads[1] else None
        for parameter in self.to_control.parameters() if self.to_control is not None else ():
            nn.init.zeros_(parameter)

    def forward(self, condition: Condition) -> Float[Tensor, "b e *latent"]:
        """Return features to concatenate ++ features for the ControlNet."""
        reference, template_mask, template_image = (fold(volume, self.compression) for volume in condition[:3])
        folded = Condition(reference, template_mask, template_image, condition.palette)
        features = self.layers(raw_condition(folded, self.settings, self.labels, _dtype(condition.template_image)))
        parts = [features] if self.concatenate else []
        if self.to_control is not None:
            parts.append(self.to_control(nn.functional.silu(features)))
        return torch.cat(parts, 1)


class MaisiStem(nn.Module):
    """MONAI's strided convolutions from image to latent resolution, as published; the last is zero at first."""

    def __init__(self, settings: ConditionSettings, labels: LabelTable, dims: int, outputs: int):
        super().__init__()
        self.settings, self.labels = settings, labels
        self.embedding = ControlNetConditioningEmbedding(
            spatial_dims=dims, in_channels=num_channels(settings, labels), out_channels=outputs,
            channels=settings.stem_channels,
        )  # fmt: skip

    def forward(self, condition: Condition) -> Float[Tensor, "b e *latent"]:
        """Return features for the ControlNet."""
        return self.embedding(raw_condition(condition, self.settings, self.labels, _dtype(condition.template_image)))


def fold(x: Tensor, factor: int) -> Tensor:
    """Move every block of ``factor`` voxels per axis into the channels, stored channels last."""
    if x.ndim == 5:
        pattern = "b c (x i) (y j) (z k) -> b (c i j k) x y z"
        return rearrange(x, pattern, i=factor, j=factor, k=factor).contiguous(memory_format=torch.channels_last_3d)
    blocks = rearrange(x, "b c (x i) (y j) -> b (c i j) x y", i=factor, j=factor)
    return blocks.contiguous(memory_format=torch.channels_last)


def channels_last(spatial_dims: int) -> torch.memory_format:
    """Return the memory format in which convolutions are fastest."""
    return torch.channels_last_3d if spatial_dims == 3 else torch.channels_last


def _dtype(x: Tensor) -> torch.dtype:
    """Return what convolutions will compute in, so that the condition is built in it at once."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
