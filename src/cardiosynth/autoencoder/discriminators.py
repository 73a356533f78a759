"""The autoencoder's opponent: tells reconstructions from images patch by patch (MAISI, after Isola et al. 2017).

FQCDM's dual-branch discriminator (DBD, Eq. 11 to 17) is also shown the edges of the real image.
"""

from typing import Literal

import numpy as np
import pydantic
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from monai.losses.adversarial_loss import PatchAdversarialLoss
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import Tensor, nn

from cardiosynth.core.config import Settings
from cardiosynth.core.random import named_weights

Judgement = Literal["least_squares", "hinge", "cross_entropy", "squares"]


class AdversarialSettings(Settings):
    """The adversarial term and the network behind it.

    Attributes:
        kind: ``patch``, or ``dual``: the same with a branch that sees the edges of the real image, for slices.
            Published (MAISI) patch, (FQCDM) dual.
        judgement: ``squares`` (Mao et al. 2017) draws answers towards 1 for images and 0 for reconstructions;
            ``least_squares`` is MONAI's form of it, in which answers below 0 count a twentieth; ``hinge`` (Lim & Ye
            2017) draws beyond 1 and below -1; ``cross_entropy`` (Goodfellow et al. 2014) takes answers for log odds.
            Published (MAISI) least squares, (VQGAN) hinge; not stated by FQCDM.
        weight: of the autoencoder's adversarial loss. Published (MAISI) 0.1, (VQGAN) 0.8 of the adaptive weight.
        adaptive: multiply ``weight`` by what makes both gradients at the decoder's end alike. Published (FQCDM) yes.
        warmup_steps: finished steps before either player knows of the other. MAISI publishes none; (VQGAN) 10000.
        channels: features of the first layer, doubled by every further one. Published (MAISI) 32, (VQGAN) 64.
        layers: normalized layers, all but the last of which halve the grid. Published (MAISI, VQGAN) 3.
        norm: of these layers. ``instance`` knows neither other examples nor other processes; ``batch`` knows the
            examples of a process, and of a batch of one is the same but for its learned scale. Published (MAISI)
            instance, (FQCDM) batch.
        edge_blocks: blocks of the edge branch. Not stated.
        edge_sigma: standard deviation in pixels of the smoothing before edges are found. Not stated.
    """

    kind: Literal["patch", "dual"] = "patch"
    judgement: Judgement = "least_squares"
    weight: float = pydantic.Field(default=0.1, gt=0)
    adaptive: bool = False
    warmup_steps: int = pydantic.Field(default=500, ge=0)
    channels: int = pydantic.Field(default=32, ge=1)
    layers: int = pydantic.Field(default=3, ge=1)
    norm: Literal["instance", "batch"] = "instance"
    edge_blocks: int = pydantic.Field(default=3, ge=1)
    edge_sigma: float = pydantic.Field(default=1.0, gt=0)

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "AdversarialSettings":
        if self.kind == "dual" and self.channels < 2:
            raise ValueError("the edge branch shares its channels between two convolutions; give at least 2")
        return self

    @property
    def smallest_crop(self) -> int:
        """Voxels per axis below which no patch is left to judge."""
        return 3 * 2**self.layers


NORMS = {
    "instance": "INSTANCE",
    # It is never used but in training, so that it needs no statistics of earlier batches: a step changes no state.
    "batch": ("BATCH", {"track_running_stats": False}),
}


def build_discriminator(settings: AdversarialSettings, spatial_dims: int, seed: int = 0) -> nn.Module:
    """Return a new discriminator -> list of features, the last of them one answer per patch.

    It takes images (b 1 *grid); a dual one images and edges as two channels (b 2 x y). The initial weights are drawn
    from ``seed``.
    """
    with named_weights(seed, "discriminator"):
        patch = PatchDiscriminator(
            spatial_dims=spatial_dims,
            channels=settings.channels,
            in_channels=1,
            num_layers_d=settings.layers,
            norm=NORMS[settings.norm],
        )
        return patch if settings.kind == "patch" else DualBranchDiscriminator(patch, settings)


class DualBranchDiscriminator(nn.Module):
    """PatchGAN whose last convolution also sees features of image and edges (FQCDM, Eq. 11 to 17).

    Args:
        patch: all but its last layer are the trunk (Eq. 15, 16).
        settings: features and blocks of the edge branch, as many features as the trunk's first layer.
    """

    def __init__(self, patch: PatchDiscriminator, settings: AdversarialSettings):
        super().__init__()
        *trunk, _ = patch.children()
        wide = settings.channels
        self.trunk = nn.Sequential(*trunk)
        self.edges = nn.Sequential(
            *(EdgeBlock(wide if block else 2, wide) for block in range(settings.edge_blocks)),
            nn.Conv2d(wide, wide, 3, padding=1),
        )
        self.last = nn.Conv2d(wide * 2**settings.layers + wide, 1, 4, padding=1)

    def forward(self, x: Float[Tensor, "b 2 x y"]) -> list[Tensor]:
        """Return the answers G (b 1 x' y') of Eq. 17, alone in a list.

        Args:
            x: I_fuse of Eq. 12: the image that is judged, and the edges of the real one.
        """
        features = self.trunk(x[:, :1])
        # "Reshape" (Eq. 14) is not explained: each of the trunk's patches sees the mean of its edge features.
        edges = F.adaptive_avg_pool2d(self.edges(x), features.shape[2:])
        return [self.last(torch.cat((features, edges), dim=1))]


class EdgeBlock(nn.Module):
    """Convolutions of 3x3 and 1x1 beside each other, then ReLU (FQCDM, Eq. 13)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.three = nn.Conv2d(inputs, outputs - outputs // 2, 3, padding=1)
        self.one = nn.Conv2d(inputs, outputs // 2, 1)

    def forward(self, x: Float[Tensor, "b c x y"]) -> Float[Tensor, "b d x y"]:
        """Return the features of both, one after the other."""
        return F.relu(torch.cat((self.three(x), self.one(x)), dim=1))


def canny_edges(image: Float[np.ndarray, "1 x y"], sigma: float) -> UInt8[np.ndarray, "1 x y"]:
    """Return where a slice in model units has edges, 1 there and 0 elsewhere (Canny 1986, Eq. 12).

    The thresholds, not stated, are scikit-image's: 0.1 and 0.2 of the intensity range.

    Args:
        image: in model units [0, 1].
        sigma: standard deviation of the smoothing in pixels.
    """
    from skimage.feature import canny

    return canny(image[0], sigma).astype(np.uint8)[None]


LEAST_SQUARES = PatchAdversarialLoss(criterion="least_squares")


def fooling_loss(
    discriminator: nn.Module,
    reconstruction: Float[Tensor, "b 1 *grid"],
    edges: Float[Tensor, "b 1 *grid"] | None = None,
    judgement: Judgement = "least_squares",
) -> Float[Tensor, ""]:
    """Return what the autoencoder pays for reconstructions that are told from images.

    The discriminator's weights are seen as constants: no gradient reaches them.

    Args:
        discriminator: from ``build_discriminator``.
        reconstruction: in model units.
        edges: of the real images, for a dual one.
        judgement: as in `AdversarialSettings`.
    """
    return fooling_cost(judged(discriminator, _with_edges(reconstruction, edges), constant=True)[-1], judgement)


def telling_loss(
    discriminator: nn.Module,
    reconstruction: Float[Tensor, "b 1 *grid"],
    image: Float[Tensor, "b 1 *grid"],
    edges: Float[Tensor, "b 1 *grid"] | None = None,
    judgement: Judgement = "least_squares",
) -> Float[Tensor, ""]:
    """Return what the discriminator pays: half for images not known, half for reconstructions not found out.

    No gradient reaches what made the reconstruction. A dual one sees the edges of the real image beside both.
    """
    made, real = (judged(discriminator, _with_edges(x, edges))[-1] for x in (reconstruction.detach(), image))
    return telling_cost(made, real, judgement)


def judged(discriminator: nn.Module, *seen: Tensor, constant: bool = False) -> list[Tensor]:
    """Return a discriminator's features and, last, its answers; computed in float32 under any autocast.

    Args:
        discriminator: whatever it sees -> list of features, answers last.
        seen: what it judges, and what it is shown beside.
        constant: see its weights as constants, so that no gradient reaches them.
    """
    # torch 2.13's 3D convolutions in bfloat16 on the CPU leave parts of their gradients unwritten where the kernel of 4
    # meets a grid of a few voxels: now and then the weights received what the memory had held before.
    with torch.autocast(seen[0].device.type, enabled=False):
        inputs = tuple(x.float() for x in seen)
        if not constant:
            return discriminator(*inputs)
        weights = {name: value.detach() for name, value in discriminator.state_dict().items()}
        return torch.func.functional_call(discriminator, weights, inputs)


def fooling_cost(answers: Float[Tensor, "..."], judgement: Judgement) -> Float[Tensor, ""]:
    """Return what a generator pays for the answers to what it made, a mean over them."""
    match judgement:
        case "hinge":
            return -answers.mean()
        case "cross_entropy":
            return F.softplus(-answers).mean()
        case "squares":
            return (answers - 1).square().mean()
        case "least_squares":
            return LEAST_SQUARES(answers, target_is_real=True, for_discriminator=False)


def telling_cost(made: Float[Tensor, "..."], real: Float[Tensor, "..."], judgement: Judgement) -> Float[Tensor, ""]:
    """Return what a discriminator pays for its answers, half for what was made and half for what is real."""
    match judgement:
        case "hinge":
            costs = F.relu(1 + made).mean() + F.relu(1 - real).mean()
        case "cross_entropy":
            costs = F.softplus(made).mean() + F.softplus(-real).mean()
        case "squares":
            costs = made.square().mean() + (real - 1).square().mean()
        case "least_squares":
            found_out = LEAST_SQUARES(made, target_is_real=False, for_discriminator=True)
            costs = found_out + LEAST_SQUARES(real, target_is_real=True, for_discriminator=True)
    return 0.5 * costs


def _with_edges(image: Tensor, edges: Tensor | None) -> Tensor:
    return image if edges is None else torch.cat((image.float(), edges), dim=1)
