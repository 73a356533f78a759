"""What the diffusion stages learn: to denoise latents, first of images alone, then of pairs (Eq. 3 and 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pydantic
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cardiosynth.core.config import Settings
from cardiosynth.core.labels import LabelTable, normalized_name
from cardiosynth.core.random import draw_int
from cardiosynth.data.loader import CaseCache
from cardiosynth.diffusion.control import Condition, palette, typical_intensities
from cardiosynth.diffusion.denoiser import Prediction, diffuse, target
from cardiosynth.diffusion.dropout import NO_DROPOUT, ConditionDropout, dropped
from cardiosynth.diffusion.latents import Latents
from cardiosynth.diffusion.process import Process
from cardiosynth.diffusion.unet import TemplateUNet
from cardiosynth.training.loop import Batch, Player


class TimeSettings(Settings):
    """How often each time is trained.

    Attributes:
        distribution: ``uniform`` (published), or ``logit_normal``: the logistic of N(location, scale^2) (Esser et
            al., 2024), which trains the middle of the way more often.
        location: of the normal; above 0 leans to noise.
        scale: of the normal.
        uniform_share: share of the draws that stay uniform, so that both ends are trained.
    """

    distribution: Literal["uniform", "logit_normal"] = "uniform"
    location: float = 0.5
    scale: float = pydantic.Field(default=1.2, gt=0)
    uniform_share: float = pydantic.Field(default=0.2, ge=0, le=1)


class ObjectiveSettings(Settings):
    """What of the latents is learned, and how much each place counts.

    Attributes:
        times: which noise levels.
        latents: ``sampled`` draws mean + std * noise afresh at every step; ``mean`` leaves the noise out.
        target_weight: added weight of latent voxels that touch a target structure. Published 0.
        thin: structures that a plain mean overlooks; names that the label table lacks are passed over.
        thin_weight: added weight of latent voxels that touch a thin structure. Published 0.
    """

    times: TimeSettings = TimeSettings()
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
    """What both stages share: process, prediction and the weights of places.

    Attributes:
        process: gives alpha and sigma.
        prediction: what the network predicts.
        settings: times and latents.
        weights: (1, *latent) by index of the case, of mean 1; where a case has none, every place counts alike.
    """

    process: Process
    prediction: Prediction
    settings: ObjectiveSettings
    weights: Mapping[int, Float[Tensor, "1 *latent"]] = field(default_factory=dict)

    def example(
        self, latent: tuple[Float[Tensor, "c *latent"], Float[Tensor, "c *latent"]], index: int, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Draw latent, noise and time of one case, all from ``rng``."""
        mean, std = latent
        draw = torch.randn(mean.shape, generator=rng)
        noise = torch.randn(mean.shape, generator=rng)
        x0 = mean + std * draw if self.settings.latents == "sampled" else mean
        weight = self.weights.get(index)
        return {
            "x0": x0, "noise": noise, "t": draw_time(self.settings.times, rng),
            "weight": torch.ones_like(mean[:1]) if weight is None else weight,
        }  # fmt: skip

    def loss(self, module: TemplateUNet, batch: Batch, embedding: Tensor | None) -> dict[str, Tensor]:
        """Return Eq. 3 in the space of the prediction: the weighted mean squared error.

        ``total`` is weighted, ``mse`` is not; ``mse_noisy`` and ``mse_clean`` are those of the later and earlier
        half of the times (weighted by how many examples fall there).
        """
        t = batch["t"]
        alpha, sigma = (f(t).view(-1, *[1] * (batch["x0"].ndim - 1)) for f in (self.process.alpha, self.process.sigma))
        x = diffuse(batch["x0"], batch["noise"], alpha, sigma)
        wanted = target(self.prediction, batch["x0"], batch["noise"], alpha, sigma)
        error = (module(x, t, embedding).float() - wanted).square()
        each, noisy = error.flatten(1).mean(1).detach(), (t > 0.5).float()
        return {
            "total": (batch["weight"] * error).mean(),
            "mse": each.mean(),
            "mse_noisy": (each * noisy).mean(),
            "mse_clean": (each * (1 - noisy)).mean(),
        }


class DiffusionTask:
    """The first stage: an unconditional U-Net on images, with or without masks.

    Args:
        module: the unconditional network.
        latents: normalized, of every case.
        objective: process, prediction, weights.
    """

    def __init__(self, module: TemplateUNet, latents: Latents, objective: Objective):
        assert module.condition is None, "the first stage has no condition"
        self._module, self._latents, self._objective = module, latents, objective

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self._module

    def players(self) -> list[Player]:
        """Return the one player."""
        return [Player("denoiser", list(self._module.parameters()), self.loss)]

    def batch(self, generators: Sequence[torch.Generator]) -> Batch:
        """Return one noisy latent per generator."""
        return stacked([self._example(rng) for rng in generators])

    def case_names(self, batch: Batch) -> list[str]:
        """Return the names of the cases of a batch."""
        return [self._latents.case_ids[index] for index in batch["index"].tolist()]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss without a condition."""
        return self._objective.loss(self._module, batch, None)

    def _example(self, rng: torch.Generator) -> dict[str, Tensor]:
        index = draw_int(len(self._latents), rng)
        return {"index": torch.tensor(index), **self._objective.example(self._latents[index], index, rng)}


class ControlTask:
    """The second stage: pairs (A, B) of cases, A != B, one the target and the other its template.

    Each example holds two directions, stacked in one forward. Bidirectional (Eq. 4) they are A@B and B@A of one
    pair; one-directional they are two pairs drawn independently, so that both are compared at equal batch. Eq. 4
    adds the two losses, we take their mean, which differs by a factor.

    Args:
        module: the conditional network.
        cases: images and masks, in the order of ``latents``.
        latents: normalized, of every case.
        objective: process, prediction, weights.
        bidirectional: whether the two directions belong to one pair.
        freeze_unet: whether only the stem and the ControlNet learn.
        dropout: how often a direction lacks its template or its mask.
    """

    def __init__(
        self,
        module: TemplateUNet,
        cases: CaseCache,
        latents: Latents,
        objective: Objective,
        *,
        bidirectional: bool = True,
        freeze_unet: bool = False,
        dropout: ConditionDropout = NO_DROPOUT,
    ):
        assert module.condition is not None, "the second stage needs a condition"
        assert cases.case_ids == latents.case_ids, "cases and latents are of different sets"
        self._module, self._cases, self._latents, self._objective = module, cases, latents, objective
        self._bidirectional, self._condition, self._dropout = bidirectional, module.condition, dropout
        self._mates = mates(cases, module.condition.template)
        labels = module.labels
        self._palettes = [palette(cases.image(i), cases.mask(i), labels) for i in range(len(cases))]
        for parameter in module.unet.parameters():
            parameter.requires_grad_(not freeze_unet)

    @property
    def module(self) -> nn.Module:
        """The network, the frozen part included."""
        return self._module

    def players(self) -> list[Player]:
        """Return the one player: everything that is not frozen."""
        return [Player("denoiser", [p for p in self._module.parameters() if p.requires_grad], self.loss)]

    def typical_intensities(self) -> dict[str, float]:
        """Return the mean intensity of every target structure over the cases, in model units, by name."""
        masks = (self._cases.mask(index) for index in range(len(self._cases)))
        return typical_intensities(self._palettes, masks, self._module.labels)

    def batch(self, generators: Sequence[torch.Generator]) -> Batch:
        """Return two directions per generator: noisy latents and the volumes that condition them."""
        return stacked([example for rng in generators for example in self._directions(rng)])

    def case_names(self, batch: Batch) -> list[str]:
        """Return the names of the targets and templates of a batch."""
        return [self._latents.case_ids[index] for index in batch["index"].flatten().tolist()]

    def pairs(self, rng: torch.Generator) -> list[tuple[int, int]]:
        """Draw (target, template) of the two directions of one example."""
        first, second = self._pair(rng)
        return [(first, second), (second, first) if self._bidirectional else self._pair(rng)]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of both directions; the embedding is computed once."""
        condition = Condition(*(batch[name] for name in Condition._fields))
        return self._objective.loss(self._module, batch, self._module.embed(condition))

    def _pair(self, rng: torch.Generator) -> tuple[int, int]:
        index = draw_int(len(self._latents), rng)
        return index, self._mates[index][draw_int(len(self._mates[index]), rng)]

    def _directions(self, rng: torch.Generator) -> list[dict[str, Tensor]]:
        """Return both examples; what they lack is drawn last, so that dropout changes nothing else."""
        examples = [self._example(*pair, rng) for pair in self.pairs(rng)]
        conditions = [Condition(*(example[name] for name in Condition._fields)) for example in examples]
        conditions = [dropped(condition, self._condition, self._dropout, rng) for condition in conditions]
        return [example | given._asdict() for example, given in zip(examples, conditions, strict=True)]

    def _example(self, index: int, template: int, rng: torch.Generator) -> dict[str, Tensor]:
        return {
            "index": torch.tensor((index, template)), **self._objective.example(self._latents[index], index, rng),
            "reference": self._cases.mask(index), "template_mask": self._cases.mask(template),
            "template_image": self._cases.image(template), "palette": self._palettes[template],
        }  # fmt: skip


def stacked(examples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return a batch of examples that hold the same names."""
    return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}


def draw_time(settings: TimeSettings, rng: torch.Generator) -> Float[Tensor, ""]:
    """Draw one time in (0, 1]. The number of draws does not depend on the settings."""
    share, even, normal = (torch.rand((), generator=rng), torch.rand((), generator=rng), torch.randn((), generator=rng))
    if settings.distribution == "uniform" or share < settings.uniform_share:
        return 1 - even
    return torch.sigmoid(settings.location + settings.scale * normal)


def mates(cases: CaseCache, choice: Literal["random", "same_acquisition"]) -> list[list[int]]:
    """Return for every case which others may be its template.

    ``same_acquisition`` compares ``provenance["acquisition"]``; a case without it, or the only one of its kind, takes
    any other case.
    """
    kinds = [case.provenance.get("acquisition") for case in cases.cases]
    found = []
    for index, kind in enumerate(kinds):
        others = [other for other in range(len(kinds)) if other != index]
        alike = [other for other in others if kind is not None and kinds[other] == kind]
        found.append(alike if choice == "same_acquisition" and alike else others)
    return found


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
