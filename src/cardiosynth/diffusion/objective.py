"""What of the latents is learned, and how much each place counts (Eq. 3): the part that both stages share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pydantic
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from cardiosynth.core.config import Settings
from cardiosynth.core.labels import LabelTable, normalized_name
from cardiosynth.data.loader import Where
from cardiosynth.diffusion.crops import Cropping
from cardiosynth.diffusion.denoiser import Prediction, diffuse, target
from cardiosynth.diffusion.latents import Latents
from cardiosynth.diffusion.process import Process, TimeShift, shifted
from cardiosynth.diffusion.unet import TemplateUNet, chest_ct
from cardiosynth.training.loop import Batch


class TimeSettings(Settings):
    """How often each time is trained.

    Attributes:
        distribution: ``uniform`` (published), or ``logit_normal``: the logistic of N(location, scale^2) (Esser et
            al., 2024), which trains the middle of the way more often, or ``cubic``: 1 - u^3 for even u (published,
            T2I-Adapter, section 3.4), which trains noise more often, where structure is decided.
        location: of the normal; above 0 leans to noise.
        scale: of the normal.
        uniform_share: share of the draws that stay uniform, so that both ends are trained.
        shift: leans the times towards noise by the size of what is trained (a crop's, where there are crops).
    """

    distribution: Literal["uniform", "logit_normal", "cubic"] = "uniform"
    location: float = 0.5
    scale: float = pydantic.Field(default=1.2, gt=0)
    uniform_share: float = pydantic.Field(default=0.2, ge=0, le=1)
    shift: TimeShift = TimeShift()


class ObjectiveSettings(Settings):
    """What of the latents is learned, and how much each place counts.

    Attributes:
        times: which noise levels.
        error: null for squared errors (published, DDPM and FCaS), or ``absolute`` (published, Med-DDPM and Medical
            Diffusion).
        latents: ``sampled`` draws mean + std * noise afresh at every step; ``mean`` leaves the noise out.
        target_weight: added weight of latent voxels that touch a target structure. Published 0.
        thin: structures that a plain mean overlooks; names that the label table lacks are passed over.
        thin_weight: added weight of latent voxels that touch a thin structure. Published 0.
    """

    times: TimeSettings = TimeSettings()
    error: Literal["absolute"] | None = None
    latents: Literal["sampled", "mean"] = "sampled"
    target_weight: float = pydantic.Field(default=0.0, ge=0)
    thin: tuple[str, ...] = ("coronary_artery",)
    thin_weight: float = pydantic.Field(default=0.0, ge=0)

    @property
    def is_weighted(self) -> bool:
        """Whether masks change how much a place counts."""
        return self.target_weight > 0 or self.thin_weight > 0


@dataclass(frozen=True, eq=False)
class Objective:
    """What both stages share: process, prediction, the weights of places, and what else is known of the cases.

    Attributes:
        process: gives alpha and sigma.
        prediction: what the network predicts.
        settings: times and latents.
        weights: (1, *latent) by index of the case, of mean 1; where a case has none, every place counts alike. Crops
            keep their part of it as it is, so that a place counts the same in every crop.
        spacings_mm: voxel sizes by index of the case, for networks that are told of them.
        cropping: how crops are drawn, None for whole volumes.
    """

    process: Process
    prediction: Prediction
    settings: ObjectiveSettings
    weights: Mapping[int, Float[Tensor, "1 *latent"]] = field(default_factory=dict)
    spacings_mm: Mapping[int, Float[Tensor, "3"]] = field(default_factory=dict)
    cropping: Cropping | None = None

    def places(self, indices: Sequence[int], rng: torch.Generator) -> list[Where]:
        """Draw where these cases are cut, in latent voxels, so that their hearts correspond."""
        return [()] * len(indices) if self.cropping is None else self.cropping.draw(indices, rng)

    def voxels(self, where: Where) -> Where:
        """Return the image's voxels of a place."""
        return () if self.cropping is None else self.cropping.voxels(where)

    def example(self, latents: Latents, index: int, where: Where, rng: torch.Generator) -> dict[str, Tensor]:
        """Draw latent, noise and time of one case, all from ``rng``."""
        mean, std = latents.block(index, where)
        draw = torch.randn(mean.shape, generator=rng)
        noise = torch.randn(mean.shape, generator=rng)
        x0 = mean + std * draw if self.settings.latents == "sampled" else mean
        weight = self.weights.get(index)
        told = {"spacing_mm": self.spacings_mm[index]} if self.spacings_mm else {}
        return told | {
            "x0": x0, "noise": noise, "t": draw_time(self.settings.times, mean.shape[1:], rng),
            "weight": torch.ones_like(mean[:1]) if weight is None else weight[(slice(None), *where)],
        }  # fmt: skip

    def loss(self, module: TemplateUNet, batch: Batch, embedding: Tensor | None) -> dict[str, Tensor]:
        """Return Eq. 3 in the space of the prediction: the weighted mean squared, or absolute, error.

        ``total`` is weighted, ``mse``, squared in any case, is not; ``mse_noisy`` and ``mse_clean`` are those of the
        later and earlier half of the times (weighted by how many examples fall there).
        """
        t = batch["t"]
        alpha, sigma = (f(t).view(-1, *[1] * (batch["x0"].ndim - 1)) for f in (self.process.alpha, self.process.sigma))
        x = diffuse(batch["x0"], batch["noise"], alpha, sigma)
        wanted = target(self.prediction, batch["x0"], batch["noise"], alpha, sigma)
        acquisition = chest_ct(batch["spacing_mm"]) if module.needs_acquisition else None
        difference = module(x, t, embedding, acquisition).float() - wanted
        error = difference.abs() if self.settings.error == "absolute" else difference.square()
        each, noisy = difference.square().flatten(1).mean(1).detach(), (t > 0.5).float()
        return {
            "total": (batch["weight"] * error).mean(),
            "mse": each.mean(),
            "mse_noisy": (each * noisy).mean(),
            "mse_clean": (each * (1 - noisy)).mean(),
        }


def draw_time(settings: TimeSettings, latent_shape: Sequence[int], rng: torch.Generator) -> Float[Tensor, ""]:
    """Draw one time in (0, 1]. The number of draws does not depend on the settings."""
    return shifted(_unshifted_time(settings, rng), settings.shift.ratio(latent_shape))


def _unshifted_time(settings: TimeSettings, rng: torch.Generator) -> Float[Tensor, ""]:
    share, even, normal = (torch.rand((), generator=rng), torch.rand((), generator=rng), torch.randn((), generator=rng))
    if settings.distribution == "uniform" or share < settings.uniform_share:
        return 1 - even
    if settings.distribution == "cubic":
        return 1 - even**3
    return torch.sigmoid(settings.location + settings.scale * normal)


def place_weight(
    mask: UInt8[Tensor, "1 *grid"], labels: LabelTable, settings: ObjectiveSettings, compression: int
) -> Float[Tensor, "1 *latent"]:
    """Return how much every latent voxel counts, of mean 1.

    A latent voxel counts ``target_weight`` more where its block of voxels touches a target structure (a max-pool by
    the compression), and ``thin_weight`` more where it touches a thin one.
    """
    names = {normalized_name(name) for name in settings.thin}
    thin = tuple(label.code for label in labels if label.name in names)
    weight = 1 + settings.target_weight * _touched(mask, labels.target_codes, compression)
    weight = weight + settings.thin_weight * _touched(mask, thin, compression)
    return weight / weight.mean()


def _touched(mask: Tensor, codes: tuple[int, ...], compression: int) -> Tensor:
    inside = torch.isin(mask, torch.tensor(codes, dtype=torch.uint8)).float()[None]
    pool = F.max_pool3d if inside.ndim == 5 else F.max_pool2d
    return pool(inside, compression)[0]
