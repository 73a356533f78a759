"""Template guidance: what conditions the denoiser, from masks and a template image to channels (Eq. 1).

c_raw = M'_A ++ M'_B ++ I_B at image resolution: the reference mask A (targets only, section 3.1.1), the template's
mask B (all labels) and the template's image. *Painted* (beyond the paper) adds one channel that makes the
template's contrast explicit: the reference mask filled with the template's mean intensity per structure.

Everything here acts voxel by voxel, so it may be applied to volumes that are already folded by space-to-depth.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import pydantic
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable

SHELL_VOXELS = 2
"""Half-width of the shell around the targets whose mean stands for the tissue between them."""


class ConditionSettings(Settings):
    """What the denoiser is told, how, and where it enters.

    Attributes:
        kind: ``mask`` gives the reference mask alone, ``template`` (published) adds the template's mask and image,
            ``painted`` adds the reference mask filled with the template's means.
        encoding: ``bits`` (published) 8 bit-planes per mask; ``one_hot`` a channel per structure; ``scalar`` one
            channel, code / largest code (Table 4's "Norm").
        codes: in which codes the template's mask is told: the ``own`` of the label table, or ``maisi``, which released
            weights know; see ``diffusion.codes``. For ``template`` and ``bits``.
        inject: ``control`` (published, FCaS) through a ControlNet, ``concatenate`` to the U-Net's input, ``both``,
            ``spade`` (published, FQCDM) in the U-Net's decoder, see ``diffusion/spade.py``, or ``adapter`` (published,
            T2I-Adapter) into its encoder, see ``diffusion/adapter.py``.
        template: which other case is the template in training: ``random`` (published), or one of the
            ``same_acquisition`` where there is one.
        structures: of the reference mask that are told: null for the targets (published, FCaS), ``all`` with the
            surroundings.
        classes: null for all structures at once; ``one`` (published, DiffInfinite) tells one structure at a time: in
            training one of each mask's, drawn at random, in sampling each for its own region. For ``mask`` and
            ``one_hot``.
        features: channels of the embedding that is concatenated or that an adapter begins with, or between label and
            modulation for ``spade`` (SPADE's published 128).
        intensity_center: intensity in model units that becomes 0 in the template's channels. Published 0.
        intensity_gain: factor on the rest. Published 1. Contrast phases differ by a few hundredths of a wide window;
            without a gain the network is slow to notice.
        stem: ``compact`` space-to-depth and three convolutions; ``maisi`` (published, FCaS) MONAI's convolution stack,
            for ``control`` only. For ``spade``, whose label is resized to the latents, and to concatenate the channels
            themselves (published, Med-DDPM): ``area`` the share of each block of voxels that a structure fills, which
            keeps thin walls; ``nearest`` the voxel in a block's middle.
        stem_channels: widths inside the stem. Published (maisi) (8, 32, 64).
    """

    kind: Literal["mask", "template", "painted"] = "painted"
    encoding: Literal["bits", "one_hot", "scalar"] = "bits"
    codes: Literal["own", "maisi"] = "own"
    inject: Literal["concatenate", "control", "both", "spade", "adapter"] = "concatenate"
    template: Literal["random", "same_acquisition"] = "random"
    structures: Literal["all"] | None = None
    classes: Literal["one"] | None = None
    features: int = 32
    intensity_center: float = 0.0
    intensity_gain: float = 1.0
    stem: Literal["compact", "maisi", "area", "nearest"] = "compact"
    stem_channels: tuple[int, ...] = (96, 64)

    @pydantic.model_validator(mode="after")
    def _told_in_one_way(self) -> "ConditionSettings":
        if self.codes == "maisi" and (self.kind, self.encoding) != ("template", "bits"):
            raise ValueError("codes 'maisi' are bit-planes of a template's mask; set kind=template and encoding=bits")
        if self.resized != (self.inject == "spade") and not (self.resized and self.inject == "concatenate"):
            raise ValueError(
                "inject 'spade' and the stems 'area' and 'nearest' need each other; set both, or inject=concatenate"
            )
        if self.resized and self.encoding != "one_hot":
            raise ValueError(f"stem '{self.stem}' resizes one channel per structure; set encoding=one_hot")
        if self.inject == "adapter" and self.stem != "compact":
            raise ValueError("inject 'adapter' begins with space-to-depth; set stem=compact")
        if self.classes is not None and (self.kind, self.encoding) != ("mask", "one_hot"):
            raise ValueError("classes 'one' tells one channel of a mask at a time; set kind=mask and encoding=one_hot")
        return self

    @property
    def resized(self) -> bool:
        """Whether the channels themselves, resized to the latents, are what the networks are given."""
        return self.stem in ("area", "nearest")

    def told_codes(self, labels: LabelTable) -> tuple[int, ...]:
        """Return the codes of the reference mask that are told."""
        return labels.codes if self.structures == "all" else labels.target_codes


class Condition(NamedTuple):
    """The volumes that condition a batch; folded or not, all on one grid.

    Attributes:
        reference: mask A, label codes.
        template_mask: mask B, label codes, or MAISI's where the settings say so.
        template_image: image B in model units.
        palette: intensity of every code in the template, model units; see :func:`palette`.
    """

    reference: UInt8[Tensor, "b m *grid"]
    template_mask: UInt8[Tensor, "b m *grid"]
    template_image: Float[Tensor, "b m *grid"]
    palette: Float[Tensor, "b 256"]


def mask_alone(reference: UInt8[Tensor, "b m *grid"]) -> Condition:
    """Return the condition of networks that are told a reference mask and nothing else (``kind`` "mask")."""
    nothing, shades = torch.zeros_like(reference), torch.zeros((len(reference), 256), device=reference.device)
    return Condition(reference, nothing, nothing.float(), shades)


def num_channels(settings: ConditionSettings, labels: LabelTable) -> int:
    """Return the number of channels of :func:`raw_condition`: 17 as published, 18 painted."""
    reference, template = {
        "bits": (8, 8),
        "one_hot": (len(settings.told_codes(labels)), len(labels)),
        "scalar": (1, 1),
    }[settings.encoding]
    return reference + {"mask": 0, "template": template + 1, "painted": template + 2}[settings.kind]


def raw_condition(
    condition: Condition, settings: ConditionSettings, labels: LabelTable, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "b c *grid"]:
    """Return c_raw of Eq. 1: encoded reference mask ++ encoded template mask ++ template image (++ painted mask).

    Args:
        condition: volumes with m channels each (1, or more where they are folded).
        settings: kind and encoding.
        labels: names the targets; everything else is removed from the reference mask, where ``settings`` say so.
        dtype: of the channels.

    Returns:
        (b, num_channels * m, *grid), channel by channel, the m folded ones inside.

    Raises:
        InputError: a mask is not uint8, i.e. may hold codes above 255.
    """
    codes = settings.told_codes(labels)
    reference = only_codes(condition.reference, codes)
    parts = encode_mask(reference, settings, labels, codes, dtype)
    if settings.kind != "mask":
        parts += encode_mask(condition.template_mask, settings, labels, labels.codes, dtype)
        parts.append(_spread(condition.template_image, settings).to(dtype))
    if settings.kind == "painted":
        painted = paint(condition._replace(reference=reference), labels)
        parts.append(_spread(painted, settings).to(dtype))
    return torch.cat(parts, 1)


def encode_mask(
    mask: UInt8[Tensor, "b m *grid"],
    settings: ConditionSettings,
    labels: LabelTable,
    codes: tuple[int, ...],
    dtype: torch.dtype,
) -> list[Float[Tensor, "b m *grid"]]:
    """Return the channels of a mask: bit-planes (lowest bit first, as MAISI), one-hot over ``codes``, or a scalar."""
    match settings.encoding:
        case "bits":
            return [((mask >> bit) & 1).to(dtype) for bit in range(8)]
        case "one_hot":
            return [(mask == code).to(dtype) for code in codes]
        case "scalar":
            return [mask.to(dtype) / max(labels.codes)]


def only_codes(mask: UInt8[Tensor, "*grid"], codes: Sequence[int]) -> UInt8[Tensor, "*grid"]:
    """Return ``mask`` with everything but these codes set to 0.

    Raises:
        InputError: the mask is not uint8.
    """
    check_codes(mask)
    keep = torch.zeros(256, dtype=torch.uint8, device=mask.device)
    keep[list(codes)] = torch.tensor(codes, dtype=torch.uint8, device=mask.device)
    return keep[mask.long()]


def check_codes(mask: Tensor) -> None:
    """Refuse masks whose codes could exceed 8 bits, where bit-planes would silently alias (256 as 0).

    Raises:
        InputError: naming the largest code found.
    """
    if mask.dtype != torch.uint8:
        raise InputError(
            f"label codes must be uint8, 0 to 255; this mask is {mask.dtype} with codes up to {int(mask.max())}: "
            "give its structures codes up to 255."
        )


def paint(condition: Condition, labels: LabelTable) -> Float[Tensor, "b m *grid"]:
    """Return the reference mask painted with the template's palette, on what is left of the template.

    The template image stays where neither has a target structure; where only the template has one, its heart is
    taken out and the tissue between the structures (palette 0) put in.
    """
    target = torch.zeros(256, dtype=torch.bool, device=condition.reference.device)
    target[list(labels.target_codes)] = True
    around = _looked_up(condition.palette, torch.zeros_like(condition.template_mask))
    background = torch.where(target[condition.template_mask.long()], around, condition.template_image)
    painted = _looked_up(condition.palette, condition.reference)
    return torch.where(target[condition.reference.long()], painted, background)


def palette(
    image: Float[Tensor, "1 *grid"],
    mask: UInt8[Tensor, "1 *grid"],
    labels: LabelTable,
    typical: Mapping[str, float] | None = None,
) -> Float[Tensor, "256"]:
    """Return the mean intensity of every structure of one template, in the unit of ``image``.

    Entry 0 is the tissue between the targets: the mean of the shell of 2 voxels around them. A target that the
    template lacks gets its ``typical`` intensity, or the mean of the template's targets where none is given; a
    template without any target gives its overall mean.
    """
    values, codes = image.flatten().double(), mask.flatten().long()
    counts = torch.bincount(codes, minlength=256)
    sums = torch.bincount(codes, values, minlength=256)
    targets = list(labels.target_codes)
    inside = torch.isin(codes, torch.tensor(targets, device=codes.device))
    overall = values[inside].mean() if bool(inside.any()) else values.mean()
    means = torch.where(counts > 0, sums / counts.clamp(min=1), overall)
    shell = _widened(inside.view(mask.shape)).flatten() & ~inside
    means[0] = values[shell].mean() if bool(shell.any()) else overall
    for label in labels.targets:
        if counts[label.code] == 0 and typical and label.name in typical:
            means[label.code] = typical[label.name]
    return means.float()


def typical_intensities(
    palettes: Sequence[Float[Tensor, "256"]], masks: Iterable[UInt8[Tensor, "1 *grid"]], labels: LabelTable
) -> dict[str, float]:
    """Return the mean intensity of every target structure over the cases that have it, by name.

    Args:
        palettes: of the cases, see :func:`palette`.
        masks: of the cases, in the same order.
        labels: names the structures.
    """
    there = torch.stack([torch.bincount(mask.flatten().long(), minlength=256) > 0 for mask in masks])
    values = torch.stack(list(palettes))
    return {
        label.name: float(values[there[:, label.code], label.code].mean())
        for label in labels.targets
        if bool(there[:, label.code].any())
    }


def _spread(image: Tensor, settings: ConditionSettings) -> Tensor:
    """Return intensities as the network sees them in a condition."""
    return (image - settings.intensity_center) * settings.intensity_gain


def _looked_up(table: Tensor, codes: Tensor) -> Tensor:
    return torch.gather(table, 1, codes.flatten(1).long()).view(codes.shape)


def _widened(inside: Tensor) -> Tensor:
    """Dilate (1, *grid) booleans by a cube, one axis at a time."""
    x = inside[None].float()
    pool = F.max_pool3d if x.ndim == 5 else F.max_pool2d
    for axis in range(x.ndim - 2):
        kernel = [1] * (x.ndim - 2)
        kernel[axis] = 2 * SHELL_VOXELS + 1
        x = pool(x, kernel, stride=1, padding=[k // 2 for k in kernel])
    return x[0] > 0
