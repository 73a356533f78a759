"""Games of generators against discriminators: what the adversarial peers share, and what a game is to the loop.

Images are in [-1, 1] here, as in the papers, whose weights of losses count for this range.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import pydantic
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from cardiosynth.autoencoder.discriminators import NORMS, Judgement, fooling_cost, judged, telling_cost
from cardiosynth.autoencoder.losses import Perceptual
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.training.loop import Batch
from cardiosynth.training.processes import Processes

Image = Float[Tensor, "b 1 *grid"]
LabelMap = Float[Tensor, "b k *grid"]


@runtime_checkable
class Game(Protocol):
    """Networks, their losses, and what an example draws for them beside its image."""

    masks: Literal["own", "any", "none"]
    """What goes with an image in training: its mask, the mask of any case (unpaired), or nothing."""
    used: nn.Module
    """The network that makes images; what one keeps."""
    opponent: nn.Module
    """All other networks."""

    @abstractmethod
    def sides(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the parameters of all generators and of all discriminators."""

    @abstractmethod
    def draw(self, rng: torch.Generator) -> dict[str, Tensor]:
        """Return what else an example is drawn with."""

    @abstractmethod
    def generators_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the parts of what the generators pay, and their ``total``."""

    @abstractmethod
    def discriminators_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return what the discriminators pay for what the generators have just made of the same batch."""

    @abstractmethod
    def follow(self, batch: Batch, processes: Processes) -> None:
        """Change what follows no gradient, after the generators moved and before the discriminators do."""

    @abstractmethod
    def made(self, mask: UInt8[Tensor, "1 1 *grid"] | None, rng: torch.Generator) -> Float[Tensor, "1 1 *grid"]:
        """Return one image; networks are in eval mode and ``mask`` is there where images have one in training."""


class GameSettings(Settings):
    """Sizes and weights of a game: each method's is a value of its own class."""

    @abstractmethod
    def build(self, codes: Sequence[int], shape: Sequence[int], perceptual: Perceptual | None = None) -> Game:
        """Return the game with new networks.

        Args:
            codes: of all labels.
            shape: voxels per axis of the images.
            perceptual: distance of two images in [0, 1], for games that weigh one.

        Raises:
            InputError: the networks do not take this shape.
        """


# ---------------------------------------------------------------------------------------------------------------
# Pieces.


def label_map(mask: UInt8[Tensor, "b 1 *grid"], codes: Sequence[int]) -> LabelMap:
    """Return one channel for the background and one per code, 1 where the mask holds it and 0 elsewhere."""
    return torch.cat([(mask == code).float() for code in (0, *codes)], 1)


def feature_matching(made: Sequence[Tensor], real: Sequence[Tensor]) -> Float[Tensor, ""]:
    """Return the sum over a discriminator's layers of the mean absolute difference of features (Wang et al. 2018).

    The features of real images are seen as constants.
    """
    differences = [F.l1_loss(ours, theirs.detach()) for ours, theirs in zip(made, real, strict=True)]
    return torch.stack(differences).sum()


def pyramid(x: Float[Tensor, "b c *grid"], scales: int) -> list[Tensor]:
    """Return ``x`` at full, half, quarter, ... resolution, each the average of 3 voxels per axis of the one before."""
    pool = F.avg_pool3d if x.ndim == 5 else F.avg_pool2d
    levels = [x]
    for _ in range(scales - 1):
        levels.append(pool(levels[-1], 3, stride=2, padding=1, count_include_pad=False))
    return levels


def with_spectral_norm(module: nn.Module) -> nn.Module:
    """Return ``module`` with the weight of each of its convolutions and linear layers divided by its largest gain.

    Miyato et al. (2018). The vectors of the power iteration are buffers: they move with every pass in training.
    """
    for layer in list(module.modules()):
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear):
            spectral_norm(layer)
    return module


def check_multiple(shape: Sequence[int], multiple: int, method: str, least: int = 1) -> None:
    """Refuse grids that are no multiples of what a network halves, or smaller than ``least`` of them."""
    if any(n % multiple or n < least * multiple for n in shape):
        raise InputError(
            f"{method} at this size takes grids of multiples of {multiple} voxels, at least {least * multiple} per "
            f"axis, not {tuple(shape)}; run cardiosynth prepare with another --shape, or take another size."
        )


class PatchSettings(Settings):
    """Discriminators that judge patch by patch (Isola et al. 2017), one per scale of the image.

    Attributes:
        scales: discriminators, each of which sees half of the resolution of the one before.
        channels: features of the first layer, doubled by every further one.
        layers: normalized layers, all but the last of which halve the grid; 3 see patches of 70 voxels.
        norm: of these layers.
        spectral: divide all weights by their largest gain.
    """

    scales: int = pydantic.Field(default=1, ge=1)
    channels: int = pydantic.Field(default=64, ge=1)
    layers: int = pydantic.Field(default=3, ge=1)
    norm: Literal["instance", "batch"] = "instance"
    spectral: bool = False

    def build(self, inputs: int, shape: Sequence[int], method: str) -> nn.ModuleList:
        """Return new discriminators of images of ``inputs`` channels.

        Raises:
            InputError: the smallest scale has no patch to judge.
        """
        smallest = 3 * 2 ** (self.layers + self.scales - 1)
        if min(shape) < smallest:
            raise InputError(
                f"{method} at this size judges grids of at least {smallest} voxels per axis, not {tuple(shape)}; run "
                "cardiosynth prepare with a larger --shape, or take another size."
            )
        networks = [
            PatchDiscriminator(len(shape), self.channels, inputs, num_layers_d=self.layers, norm=NORMS[self.norm])
            for _ in range(self.scales)
        ]
        return nn.ModuleList(with_spectral_norm(network) if self.spectral else network for network in networks)


# ---------------------------------------------------------------------------------------------------------------
# From a label map to an image.


class TranslationLosses(Settings):
    """What a translation pays beside fooling the discriminators.

    Attributes:
        judgement: how answers are turned into costs.
        l1: weight of the mean absolute error.
        features: weight of the difference of the discriminators' features.
        perceptual: weight of a perceptual distance, which must then be handed in.
    """

    judgement: Judgement = "hinge"
    l1: float = pydantic.Field(default=0.0, ge=0)
    features: float = pydantic.Field(default=0.0, ge=0)
    perceptual: float = pydantic.Field(default=0.0, ge=0)


class TranslationGame:
    """A generator of images from label maps; discriminators see map and image together (SPADE, pix2pix).

    Args:
        generator: label map -> image.
        discriminators: one per scale, of label map ++ image.
        losses: their weights.
        codes: of the labels.
        perceptual: needed where ``losses.perceptual`` is above 0.
    """

    masks: Literal["own", "any", "none"] = "own"

    def __init__(
        self,
        generator: nn.Module,
        discriminators: nn.ModuleList,
        losses: TranslationLosses,
        codes: Sequence[int],
        perceptual: Perceptual | None = None,
    ):
        if (perceptual is None) != (losses.perceptual == 0):
            raise InputError("a perceptual weight needs a distance and a distance a weight; give both or neither.")
        self.used: nn.Module = generator
        self.opponent: nn.Module = discriminators
        self.losses, self.codes, self.perceptual = losses, tuple(codes), perceptual
        self._made = Made()

    def sides(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the parameters of the generator and of the discriminators."""
        return list(self.used.parameters()), list(self.opponent.parameters())

    def draw(self, rng: torch.Generator) -> dict[str, Tensor]:
        """Return nothing: the image is a function of the mask."""
        return {}

    def generators_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``adversarial``, each part that has a weight, and ``total``."""
        labels, image = label_map(batch["mask"], self.codes), batch["image"]
        made = self.used(labels)
        self._made.keep(batch, made)
        seen = self._judged(labels, made, constant=True)
        answers = [fooling_cost(scale[-1], self.losses.judgement) for scale in seen]
        parts = {"adversarial": torch.stack(answers).mean()}
        weights = {"adversarial": 1.0, **self.losses.model_dump(exclude={"judgement"})}
        if self.losses.l1:
            parts["l1"] = F.l1_loss(made, image)
        if self.losses.features:
            with torch.no_grad():
                real = self._judged(labels, image, constant=True)
            matched = [feature_matching(ours[:-1], theirs[:-1]) for ours, theirs in zip(seen, real, strict=True)]
            parts["features"] = torch.stack(matched).mean()
        if self.perceptual is not None:
            parts["perceptual"] = self.perceptual.distance((made + 1) / 2, (image + 1) / 2)
        return parts | {"total": torch.stack([weights[name] * part for name, part in parts.items()]).sum()}

    def discriminators_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``total``, the mean over the scales."""
        labels = label_map(batch["mask"], self.codes)
        made, real = (self._judged(labels, x) for x in (self._made.of(batch)[0], batch["image"]))
        pairs = zip(made, real, strict=True)
        costs = [telling_cost(ours[-1], theirs[-1], self.losses.judgement) for ours, theirs in pairs]
        return {"total": torch.stack(costs).mean()}

    def follow(self, batch: Batch, processes: Processes) -> None:
        """Change nothing."""

    def made(self, mask: UInt8[Tensor, "1 1 *grid"] | None, rng: torch.Generator) -> Float[Tensor, "1 1 *grid"]:
        """Return the image of a mask."""
        assert mask is not None, "a translation is told of masks"
        return self.used(label_map(mask, self.codes))

    def _judged(self, labels: LabelMap, image: Image, *, constant: bool = False) -> list[list[Tensor]]:
        """Return features and answers of every scale."""
        assert isinstance(self.opponent, nn.ModuleList)
        levels = pyramid(torch.cat((labels, image.float()), 1), len(self.opponent))
        return [judged(each, x, constant=constant) for each, x in zip(self.opponent, levels, strict=True)]


# ---------------------------------------------------------------------------------------------------------------
# From noise to an image.


@runtime_checkable
class NoiseGenerator(Protocol):
    """A network that makes images of noise, of which a discriminator may be shown another view than the whole."""

    noise: int
    """Values that an image is made of."""
    places: int
    """Places at which a view can lie, 1 where it is the whole."""

    @abstractmethod
    def __call__(self, noise: Float[Tensor, "b z"]) -> Image:
        """Return whole images."""

    @abstractmethod
    def make(self, noise: Float[Tensor, "b z"], place: Tensor) -> tuple[Tensor, ...]:
        """Return what a discriminator is to see of the images of ``noise``, at ``place`` (b,)."""

    @abstractmethod
    def view(self, image: Image, place: Tensor) -> tuple[Tensor, ...]:
        """Return the same of real images."""


class NoiseGame:
    """A generator of images from noise, told of nothing (DCGAN, HA-GAN).

    Args:
        generator: a `NoiseGenerator`.
        discriminator: what ``generator.view`` returns -> list of features, answers last.
        judgement: how answers are turned into costs.
    """

    masks: Literal["own", "any", "none"] = "none"

    def __init__(self, generator: nn.Module, discriminator: nn.Module, judgement: Judgement = "cross_entropy"):
        self.used, self.opponent = generator, discriminator
        self.judgement: Judgement = judgement
        self._made = Made()

    def sides(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the parameters of the generator and of the discriminator."""
        return list(self.used.parameters()), list(self.opponent.parameters())

    def draw(self, rng: torch.Generator) -> dict[str, Tensor]:
        """Return ``noise`` (z,) and ``place`` ()."""
        place = torch.randint(self._generator.places, (), generator=rng)
        return {"noise": torch.randn(self._generator.noise, generator=rng), "place": place}

    def generators_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``total``, and the mean and spread of what was made, by which a collapse is seen."""
        made = self._generator.make(batch["noise"], batch["place"])
        self._made.keep(batch, *made)
        cost = fooling_cost(judged(self.opponent, *made, constant=True)[-1], self.judgement)
        image = made[0].detach().float()
        return {"total": cost, "made_mean": image.mean(), "made_std": image.std()}

    def discriminators_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``total``."""
        real = judged(self.opponent, *self._generator.view(batch["image"], batch["place"]))[-1]
        made = judged(self.opponent, *self._made.of(batch))[-1]
        return {"total": telling_cost(made, real, self.judgement)}

    def follow(self, batch: Batch, processes: Processes) -> None:
        """Change nothing."""

    def made(self, mask: UInt8[Tensor, "1 1 *grid"] | None, rng: torch.Generator) -> Float[Tensor, "1 1 *grid"]:
        """Return an image of new noise."""
        noise = torch.randn((1, self._generator.noise), generator=rng)
        return self._generator(noise.to(next(self.used.parameters()).device))

    @property
    def _generator(self) -> NoiseGenerator:
        return self.used  # pyright: ignore[reportReturnType]


@dataclass
class Made:
    """What the generators have made of a batch, kept for the discriminators, which judge it in the same step."""

    batch: Batch | None = None
    tensors: tuple[Tensor, ...] = ()

    def keep(self, batch: Batch, *tensors: Tensor) -> None:
        """Keep what was made, without its gradients."""
        self.batch, self.tensors = batch, tuple(x.detach() for x in tensors)

    def of(self, batch: Batch) -> tuple[Tensor, ...]:
        """Return what was made of ``batch``."""
        assert self.batch is batch, "the generators move first"
        return self.tensors
