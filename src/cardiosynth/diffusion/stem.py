"""Stems: from the volumes of a condition to features at latent resolution.

They do not see the time, so they run once per case and their result is fed to the networks at every step.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from monai.networks.nets.controlnet import ControlNetConditioningEmbedding
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cardiosynth.autoencoder.folds import space_to_depth
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable
from cardiosynth.diffusion.control import Condition, ConditionSettings, num_channels, raw_condition

SLAB_VOXELS = 2**23
"""Image voxels whose channels exist at once: 0.6 GB for 17 in float32. Thinner slabs would compute more twice: at
512 x 512 x 128 the published stem computes a seventh more."""


def build_stem(
    settings: ConditionSettings, labels: LabelTable, compression: int, dims: int, heads: tuple[int, int]
) -> nn.Module:
    """Return the stem that ``settings`` describe, untrained.

    Args:
        settings: its kind and widths, and what the condition holds.
        labels: the label table of the masks.
        compression: image voxels per latent voxel along each axis.
        dims: 2 or 3.
        heads: number of features to concatenate or for the adapter (0 or ``settings.features``), and for the
            ControlNet.

    Raises:
        InputError: a ``maisi`` stem that does not suit the injection or the compression.
    """
    if settings.resized:
        return LabelStem(settings, labels, compression)
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
        self.slab_voxels = SLAB_VOXELS
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
        """Return features to concatenate, or for an adapter, ++ features for the ControlNet."""
        entered = in_slabs(self._slab, condition, self.compression, self.slab_voxels)
        features = self.layers[1:](entered)
        parts = [features] if self.concatenate else []
        if self.to_control is not None:
            parts.append(self.to_control(nn.functional.silu(features)))
        return torch.cat(parts, 1)

    def _slab(self, condition: Condition, start: int, stop: int) -> Float[Tensor, "b _ ..."]:
        """Return the first layer, which sees one latent voxel at a time, of the latents ``start`` to ``stop``."""
        part = _cut(condition, start * self.compression, stop * self.compression)
        reference, template_mask, template_image = (space_to_depth(volume, self.compression) for volume in part[:3])
        folded = Condition(reference, template_mask, template_image, condition.palette)
        return self.layers[0](raw_condition(folded, self.settings, self.labels, _dtype(condition.template_image)))


class LabelStem(nn.Module):
    """The channels of a condition resized to the latents, without weights: the U-Net's convolutions come later."""

    def __init__(self, settings: ConditionSettings, labels: LabelTable, compression: int):
        super().__init__()
        self.settings, self.labels, self.compression = settings, labels, compression
        self.slab_voxels = SLAB_VOXELS

    def forward(self, condition: Condition) -> Float[Tensor, "b e *latent"]:
        """Return the share of every block of voxels that a structure fills, or what the voxel in its middle holds."""
        return in_slabs(self._slab, condition, self.compression, self.slab_voxels)

    def _slab(self, condition: Condition, start: int, stop: int) -> Float[Tensor, "b _ ..."]:
        part = _cut(condition, start * self.compression, stop * self.compression)
        channels = raw_condition(part, self.settings, self.labels, _dtype(condition.template_image))
        if self.settings.stem == "nearest":
            middle = slice(self.compression // 2, None, self.compression)
            return channels[(slice(None), slice(None), *[middle] * (channels.ndim - 2))]
        pool = F.avg_pool3d if channels.ndim == 5 else F.avg_pool2d
        return pool(channels, self.compression)


class MaisiStem(nn.Module):
    """MONAI's strided convolutions from image to latent resolution, as published; the last is zero at first.

    Computed slab by slab: there is no normalization, so that a slab with the voxels which its convolutions reach beyond
    it gives what the whole volume gives.
    """

    def __init__(self, settings: ConditionSettings, labels: LabelTable, dims: int, outputs: int):
        super().__init__()
        self.settings, self.labels = settings, labels
        self.compression = 2 ** (len(settings.stem_channels) - 1)
        self.slab_voxels = SLAB_VOXELS
        self.embedding = ControlNetConditioningEmbedding(
            spatial_dims=dims, in_channels=num_channels(settings, labels), out_channels=outputs,
            channels=settings.stem_channels,
        )  # fmt: skip

    def forward(self, condition: Condition) -> Float[Tensor, "b e *latent"]:
        """Return features for the ControlNet."""
        return in_slabs(self._slab, condition, self.compression, self.slab_voxels)

    def _slab(self, condition: Condition, start: int, stop: int) -> Float[Tensor, "b _ ..."]:
        convolutions = self._convolutions()
        reaches = _reaches([each.stride[0] for each in convolutions], condition.reference.shape[2], start, stop)
        part = _cut(condition, reaches[0].start, reaches[0].stop)
        h = raw_condition(part, self.settings, self.labels, _dtype(condition.template_image))
        for index, (convolution, reach) in enumerate(zip(convolutions, reaches, strict=True)):
            h = _convolved(convolution, h if index == 0 else F.silu(h), reach)
        return h

    def _convolutions(self) -> list[nn.Conv2d | nn.Conv3d]:
        """Return the convolutions of MONAI's stem in order; a SiLU follows each but the last."""
        embedding = self.embedding
        found = [block.get_submodule("conv") for block in (embedding.conv_in, *embedding.blocks, embedding.conv_out)]
        return [convolution for convolution in found if isinstance(convolution, nn.Conv2d | nn.Conv3d)]


# ---------------------------------------------------------------------------------------------------------------
# Slabs along x.


def in_slabs(
    compute: Callable[[Condition, int, int], Tensor], condition: Condition, compression: int, slab_voxels: int
) -> Float[Tensor, "b _ ..."]:
    """Return what ``compute`` gives for all latents, a slab of at most ``slab_voxels`` at a time.

    Channels of a whole volume (17 floats for two bytes and a float) never exist at once; in training several slabs are
    each computed again in the backward pass.

    Args:
        compute: from the condition and a range of latents along x to the features of that range.
        condition: the whole.
        compression: image voxels per latent voxel along x.
        slab_voxels: of the image and the batch together; at least one layer of latents is taken.
    """
    volume = condition.reference
    length = volume.shape[2] // compression
    thickness = max(1, slab_voxels // (compression * max(1, volume.numel() // volume.shape[2])))
    ranges = [(start, min(start + thickness, length)) for start in range(0, length, thickness)]
    if len(ranges) == 1:
        return compute(condition, *ranges[0])
    if torch.is_grad_enabled():
        again = partial(checkpoint, compute, use_reentrant=False, preserve_rng_state=False)
        return torch.cat([again(condition, *limits) for limits in ranges], 2)
    return torch.cat([compute(condition, *limits) for limits in ranges], 2)


class _Reach(NamedTuple):
    """What a convolution of 3 voxels reads along x: ``start`` to ``stop``, and zeros beyond the volume's ends."""

    start: int
    stop: int
    zeros: tuple[int, int]


def _reaches(strides: Sequence[int], length: int, start: int, stop: int) -> list[_Reach]:
    """Return what each convolution of a chain reads for the last one to give ``start`` to ``stop``."""
    lengths = [length]
    for stride in strides[:-1]:
        lengths.append((lengths[-1] - 1) // stride + 1)
    found = []
    for stride, size in zip(reversed(strides), reversed(lengths), strict=True):
        first, last = stride * start - 1, stride * (stop - 1) + 2
        start, stop = max(first, 0), min(last, size)
        found.append(_Reach(start, stop, (start - first, last - stop)))
    return found[::-1]


def _convolved(convolution: nn.Conv2d | nn.Conv3d, h: Tensor, reach: _Reach) -> Tensor:
    """Return the convolution with zeros at the volume's ends along x alone, and as ever along the other axes."""
    stride, length, zeros = convolution.stride[0], h.shape[2], reach.zeros
    # Zeros that the convolution itself adds at both ends need no copy; stride 2 may pass over those at the far end.
    both = zeros[0] == 1 and (length + 2 - 3) // stride == (length + sum(zeros) - 3) // stride
    padded = h if both or not any(zeros) else F.pad(h, [0, 0] * (h.ndim - 3) + list(zeros))
    apply: Callable[..., Tensor] = F.conv3d if h.ndim == 5 else F.conv2d
    padding = (int(both), *(size // 2 for size in convolution.kernel_size[1:]))
    return apply(padded, convolution.weight, convolution.bias, convolution.stride, padding)


def _cut(condition: Condition, start: int, stop: int) -> Condition:
    reference, template_mask, template_image = (volume[:, :, start:stop] for volume in condition[:3])
    return Condition(reference, template_mask, template_image, condition.palette)


def channels_last(spatial_dims: int) -> torch.memory_format:
    """Return the memory format in which convolutions are fastest."""
    return torch.channels_last_3d if spatial_dims == 3 else torch.channels_last


def _dtype(x: Tensor) -> torch.dtype:
    """Return what convolutions will compute in, so that the condition is built in it at once."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
