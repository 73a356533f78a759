"""What a reconstruction is worth: absolute and squared error, weighted per voxel, and perception."""

from collections.abc import Callable
from dataclasses import dataclass

import pydantic
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from cardiosynth.core.config import Settings
from cardiosynth.core.labels import LabelTable, normalized_name

SMALLEST_NORM, LARGEST_WEIGHT = 1e-4, 1e4
"""As VQGAN's authors keep the adaptive weight finite."""


@dataclass(frozen=True)
class Perceptual:
    """A distance of images as a network sees them.

    Attributes:
        distance: (reconstruction, image), both b 1 *grid in model units -> scalar.
        fingerprint: of the network's weights; kept in the record, so that it is not taken as an independent judge.
    """

    distance: Callable[[Tensor, Tensor], Tensor]
    fingerprint: str


class ReconstructionSettings(Settings):
    """Weights of the loss.

    Attributes:
        l1: of the absolute error. Published (MAISI, VQGAN) 1.
        l2: of the squared error, which makes large errors, such as a vanished vessel, count more. Published 0.
        kl: of the bottleneck's mean per latent value. Published (MAISI) 1e-7 of its sum.
        perceptual: of the perceptual distance, where an extractor is handed in. Published (MAISI) 0.3, (VQGAN) 1.
        heart: added weight of voxels in target structures, widened by one voxel. Published 0.
        thin: structures that a plain mean overlooks; names that the label table lacks are passed over.
        thin_weight: added weight of voxels in thin structures, widened by one voxel. Published 0.
    """

    l1: float = pydantic.Field(default=1.0, ge=0)
    l2: float = pydantic.Field(default=5.0, ge=0)
    kl: float = pydantic.Field(default=1e-4, ge=0)
    perceptual: float = pydantic.Field(default=0.0, ge=0)
    heart: float = pydantic.Field(default=3.0, ge=0)
    thin: tuple[str, ...] = ("coronary_artery",)
    thin_weight: float = pydantic.Field(default=15.0, ge=0)


def thin_codes(labels: LabelTable, settings: ReconstructionSettings) -> tuple[int, ...]:
    """Return the codes of the thin structures that the label table has."""
    names = {normalized_name(name) for name in settings.thin}
    return tuple(label.code for label in labels if label.name in names)


def weighted_regions(
    mask: UInt8[Tensor, "b 1 *grid"], labels: LabelTable, settings: ReconstructionSettings
) -> UInt8[Tensor, "b 1 *grid"]:
    """Return where voxels count more: bit 0 in and next to target structures, bit 1 in and next to thin ones."""
    heart = _widened(_any_of(mask, labels.target_codes))
    thin = _widened(_any_of(mask, thin_codes(labels, settings)))
    return (heart + 2 * thin).to(torch.uint8)


def voxel_weight(regions: UInt8[Tensor, "*shape"], settings: ReconstructionSettings) -> Float[Tensor, "*shape"]:
    """Return how much every voxel counts: 1, plus ``heart`` and ``thin_weight`` in those regions."""
    return 1 + settings.heart * (regions & 1).float() + settings.thin_weight * (regions >> 1).float()


def reconstruction_loss(
    reconstruction: Float[Tensor, "b 1 *grid"],
    image: Float[Tensor, "b 1 *grid"],
    weight: Float[Tensor, "b 1 *grid"],
    settings: ReconstructionSettings,
    perceptual: Perceptual | None = None,
) -> dict[str, Tensor]:
    """Return the parts of the loss, its bottleneck left out, and their ``total``, each a mean over the batch.

    Args:
        reconstruction: decoded images in model units.
        image: what they should be.
        weight: per voxel, 1 or more. The weighted errors are not divided by the mean weight, so that a voxel counts
            the same in every crop.
        settings: weights of the parts.
        perceptual: distance of two images, where ``settings.perceptual`` is above 0.
    """
    error = reconstruction - image
    parts = {"l1": (weight * error.abs()).mean()}
    if settings.l2:
        parts["l2"] = (weight * error**2).mean()
    if perceptual is not None and settings.perceptual:
        parts["perceptual"] = perceptual.distance(reconstruction, image)
    parts["total"] = sum((getattr(settings, name) * part for name, part in parts.items()), error.new_zeros(()))
    return parts


def adaptive_weight(
    reconstruction: Float[Tensor, ""], adversarial: Float[Tensor, ""], last_weight: Tensor
) -> Float[Tensor, ""]:
    """Return the weight that gives both losses a gradient of equal norm at the decoder's last kernel, a constant.

    VQGAN (Esser et al. 2021), Eq. 7, at most 1e4. Each process has its own.

    Args:
        reconstruction: the loss without the adversary.
        adversarial: what the adversary costs, before any weight.
        last_weight: the kernel, a parameter.
    """
    norms = [torch.autograd.grad(x, last_weight, retain_graph=True)[0].norm() for x in (reconstruction, adversarial)]
    return (norms[0] / (norms[1] + SMALLEST_NORM)).clamp_max(LARGEST_WEIGHT).detach()


def _any_of(mask: Tensor, codes: tuple[int, ...]) -> Tensor:
    inside = mask.new_zeros(256)
    inside[list(codes)] = 1
    return inside[mask.long()].float()


def _widened(inside: Tensor) -> Tensor:
    pool = F.max_pool3d if inside.ndim == 5 else F.max_pool2d
    return pool(inside, 3, stride=1, padding=1)
