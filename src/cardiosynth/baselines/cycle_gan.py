"""CycleGAN between label maps and slices, without pairs (Zhu et al. 2017)."""

from collections.abc import Sequence
from typing import Literal

import pydantic
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from monai.networks.utils import normal_init
from torch import Tensor, nn

from cardiosynth.autoencoder.discriminators import Judgement, fooling_cost, judged, telling_cost
from cardiosynth.autoencoder.losses import Perceptual
from cardiosynth.baselines.adversarial import PUBLISHED, AdversarialGenerator, AdversarialStage
from cardiosynth.baselines.games import Game, GameSettings, Made, PatchSettings, check_multiple, label_map
from cardiosynth.baselines.method import Method
from cardiosynth.training.loop import Batch
from cardiosynth.training.processes import Processes

JUDGEMENT: Judgement = "squares"


class CycleGanSettings(GameSettings):
    """Sizes and weights.

    Attributes:
        channels: features of the generators' first layer. Published 64.
        blocks: residual blocks of each. Published 9 for 256 x 256.
        discriminators: two of these. Published patches of 70 pixels, 64 channels.
        cycle: weight of what both cycles lose. Published 10.
        pool: images made earlier that discriminators are shown. Published 50.
    """

    channels: int = pydantic.Field(default=64, ge=1)
    blocks: int = pydantic.Field(default=9, ge=1)
    discriminators: PatchSettings = PatchSettings()
    cycle: float = pydantic.Field(default=10.0, gt=0)
    pool: int = pydantic.Field(default=50, ge=1)

    def build(self, codes: Sequence[int], shape: Sequence[int], perceptual: Perceptual | None = None) -> Game:
        """Return the game with new networks."""
        check_multiple(shape, 4, "cyclegan", least=2)
        return CycleGame(self, codes, shape)


class ResidualGenerator(nn.Sequential):
    """Two halvings, residual blocks, two doublings; instance normalization and ReLU (Johnson et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, settings: CycleGanSettings):
        wide = settings.channels
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(inputs, wide, 7), *_normed(wide)]
        for width in (wide, 2 * wide):
            layers += [nn.Conv2d(width, 2 * width, 3, 2, 1), *_normed(2 * width)]
        layers += [ResidualBlock(4 * wide) for _ in range(settings.blocks)]
        for width in (4 * wide, 2 * wide):
            layers += [nn.ConvTranspose2d(width, width // 2, 3, 2, 1, output_padding=1), *_normed(width // 2)]
        super().__init__(*layers, nn.ReflectionPad2d(3), nn.Conv2d(wide, outputs, 7))
        self.apply(normal_init)


class ResidualBlock(nn.Module):
    """Two convolutions whose result is added."""

    def __init__(self, channels: int):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), *_normed(channels)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Float[Tensor, "b c x y"]) -> Float[Tensor, "b c x y"]:
        """Return x and what the layers make of it."""
        return x + self.layers(x)


class Pool(nn.Module):
    """Images made earlier, half of which take the place of new ones, so that discriminators do not forget (Sec. 4).

    All of it is in buffers, and so in the checkpoint, and its draws are those of the examples: a run that goes on shows
    what an unbroken one would show.

    Args:
        size: images that it holds.
        channels: of an image.
        shape: pixels per axis.
    """

    def __init__(self, size: int, channels: int, shape: Sequence[int]):
        super().__init__()
        self.images: Tensor
        self.count: Tensor
        self.register_buffer("images", torch.zeros(size, channels, *shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def exchange(self, made: Float[Tensor, "b c *grid"], draws: Float[Tensor, "b 2"]) -> Float[Tensor, "b c *grid"]:
        """Return what discriminators are shown in the place of ``made``.

        Args:
            made: new images; each is kept until the pool is full, and then with probability one half.
            draws: uniform in [0, 1): whether an image is exchanged, and for which.
        """
        shown = []
        for image, (whether, which) in zip(made, draws.tolist(), strict=True):
            if self.count < len(self.images):
                self.images[self.count] = image
                self.count += 1
                shown.append(image)
            elif whether < 0.5:
                place = int(which * len(self.images))
                shown.append(self.images[place].clone())
                self.images[place] = image
            else:
                shown.append(image)
        return torch.stack(shown)


class CycleGame:
    """Generators of images from label maps and back, each against a discriminator.

    Args:
        settings: sizes and weights.
        codes: of the labels.
        shape: pixels per axis.
    """

    masks: Literal["own", "any", "none"] = "any"

    def __init__(self, settings: CycleGanSettings, codes: Sequence[int], shape: Sequence[int]):
        labels = 1 + len(codes)
        self.codes, self.cycle = tuple(codes), settings.cycle
        self.used: nn.Module = ResidualGenerator(labels, 1, settings)
        self.back = ResidualGenerator(1, labels, settings)
        # Images first, then label maps.
        self.judges, self.pools = nn.ModuleList(), nn.ModuleList()
        for channels in (1, labels):
            self.judges.extend(settings.discriminators.build(channels, shape, "cyclegan"))
            self.pools.append(Pool(settings.pool, channels, shape))
        self.opponent: nn.Module = nn.ModuleDict({"back": self.back, "judges": self.judges, "pools": self.pools})
        self._made, self._shown = Made(), Made()

    def sides(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the parameters of both generators and of both discriminators."""
        return [*self.used.parameters(), *self.back.parameters()], list(self.judges.parameters())

    def draw(self, rng: torch.Generator) -> dict[str, Tensor]:
        """Return ``exchange`` (2, 2), the draws of both pools."""
        return {"exchange": torch.rand((2, 2), generator=rng)}

    def generators_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``adversarial``, the sum over both; ``cycle`` of labels and of images; and ``total``."""
        labels, image = label_map(batch["mask"], self.codes), batch["image"]
        made = (self._image(labels), self._labels(image))
        self._made.keep(batch, *made)
        answers = [judged(judge, x, constant=True)[-1] for judge, x in zip(self.judges, made, strict=True)]
        adversarial = torch.stack([fooling_cost(answer, JUDGEMENT) for answer in answers]).sum()
        # Summed over the labels: those that no pixel has would dilute a mean. Like an image's, the error is at most 2.
        cycle_labels = (self._labels(made[0]) - labels).abs().sum(1).mean()
        cycle_images = F.l1_loss(self._image(made[1]), image)
        total = adversarial + self.cycle * (cycle_labels + cycle_images)
        return {
            "adversarial": adversarial, "cycle_labels": cycle_labels, "cycle_images": cycle_images, "total": total,
        }  # fmt: skip

    def discriminators_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``total``, the sum over both."""
        real = (batch["image"], label_map(batch["mask"], self.codes))
        costs = [
            telling_cost(judged(judge, ours)[-1], judged(judge, theirs)[-1], JUDGEMENT)
            for judge, ours, theirs in zip(self.judges, self._shown.of(batch), real, strict=True)
        ]
        return {"total": torch.stack(costs).sum()}

    def made(self, mask: UInt8[Tensor, "1 1 *grid"] | None, rng: torch.Generator) -> Float[Tensor, "1 1 *grid"]:
        """Return the image of a mask."""
        assert mask is not None, "label maps become images"
        return self._image(label_map(mask, self.codes))

    def _image(self, labels: Tensor) -> Tensor:
        return torch.tanh(self.used(labels))

    def _labels(self, image: Tensor) -> Tensor:
        return self.back(image).softmax(1)

    def follow(self, batch: Batch, processes: Processes) -> None:
        """Show the discriminators what the pools give for what was made; every process keeps the same pools."""
        draws = processes.whole_batch(batch["exchange"])
        own = processes.own_examples(len(draws))
        shown = [
            pool.exchange(processes.whole_batch(made), draws[:, index])[own.start : own.stop]  # pyright: ignore[reportCallIssue]
            for index, (pool, made) in enumerate(zip(self.pools, self._made.of(batch), strict=True))
        ]
        self._shown.keep(batch, *shown)


def _normed(channels: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(channels), nn.ReLU()]


def _stage(game: CycleGanSettings, **training) -> AdversarialStage:
    return AdversarialStage(method="cyclegan", game=game, training=PUBLISHED.model_copy(update=training))


_SMALL = PatchSettings(channels=8, layers=2)
TINY = _stage(CycleGanSettings(channels=8, blocks=1, discriminators=_SMALL, pool=4), steps=20, batch_size=2)
DEMO = _stage(
    CycleGanSettings(channels=16, blocks=3, discriminators=PatchSettings(channels=16, layers=2)),
    steps=2000, batch_size=2,
)  # fmt: skip
# 200 epochs of the 1500 or so slices that ACDC's training patients have.
PAPER = _stage(CycleGanSettings(), steps=300_000, batch_size=1)

METHOD = Method(
    name="cyclegan",
    title="CycleGAN",
    citation="Zhu, Park, Isola and Efros, ICCV 2017; code junyanz/pytorch-CycleGAN-and-pix2pix (not used)",
    spatial_dims=2,
    conditional=True,
    footnote="between label maps and images, the only two domains there are (not stated by FQCDM); label maps are "
    "one-hot and those made are probabilities, whose cycle is summed over labels, and there is no identity loss; a "
    "constant rate",
    sizes={
        "tiny": AdversarialGenerator.sized(TINY),
        "demo": AdversarialGenerator.sized(DEMO),
        "paper": AdversarialGenerator.sized(PAPER),
    },
)
