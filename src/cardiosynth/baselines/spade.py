"""SPADE: a label map scales and shifts what is normalized, place by place (Park et al. 2019)."""

from collections.abc import Sequence
from typing import Literal

import pydantic
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cardiosynth.autoencoder.losses import Perceptual
from cardiosynth.baselines.adversarial import PUBLISHED, AdversarialGenerator, AdversarialStage
from cardiosynth.baselines.games import (
    Game,
    GameSettings,
    PatchSettings,
    TranslationGame,
    TranslationLosses,
    check_multiple,
    with_spectral_norm,
)
from cardiosynth.baselines.method import Method
from cardiosynth.diffusion.spade import Modulation

Norm = Literal["batch", "instance"]


class SpadeSettings(GameSettings):
    """Sizes and weights.

    Attributes:
        channels: of the blocks of every level, coarsest first; each level has twice the resolution of the one before.
            Published seven blocks from 1/32 on.
        hidden: channels between label map and modulation. Published 128.
        norm: without weights of its own. Published batch, over all processes; it knows the examples of one process
            here, so ``instance`` for small batches.
        discriminators: published 2 scales, 64 channels, 3 normalized layers, instance, spectral.
        losses: published hinge, 10 of features, 10 of VGG's perceptual distance.
    """

    channels: tuple[tuple[pydantic.PositiveInt, ...], ...]
    hidden: int = pydantic.Field(default=128, ge=1)
    norm: Norm = "instance"
    discriminators: PatchSettings = PatchSettings(scales=2, spectral=True)
    losses: TranslationLosses = TranslationLosses(judgement="hinge", features=10.0)

    def build(self, codes: Sequence[int], shape: Sequence[int], perceptual: Perceptual | None = None) -> Game:
        """Return the game with new networks."""
        check_multiple(shape, 2 ** (len(self.channels) - 1), "spade", least=2)
        labels = 1 + len(codes)
        discriminators = self.discriminators.build(labels + 1, shape, "spade")
        return TranslationGame(SpadeGenerator(self, labels), discriminators, self.losses, codes, perceptual)


class SpadeGenerator(nn.Module):
    """From the label map at the coarsest level to the image, told of the map again by every normalization.

    Args:
        settings: channels and norm.
        labels: channels of the label map.
    """

    def __init__(self, settings: SpadeSettings, labels: int):
        super().__init__()
        levels = settings.channels
        self.enter = nn.Conv2d(labels, levels[0][0], 3, padding=1)
        self.levels, width = nn.ModuleList(), levels[0][0]
        for channels in levels:
            blocks = nn.ModuleList()
            for outputs in channels:
                blocks.append(SpadeBlock(width, outputs, labels, settings))
                width = outputs
            self.levels.append(blocks)
        self.leave = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, labels: Float[Tensor, "b k x y"]) -> Float[Tensor, "b 1 x y"]:
        """Return images in [-1, 1]; the map of a level holds what the voxel at its block's corner holds."""
        steps = [2 ** (len(self.levels) - 1 - index) for index in range(len(self.levels))]
        h = self.enter(labels[:, :, :: steps[0], :: steps[0]])
        for index, (blocks, step) in enumerate(zip(self.levels, steps, strict=True)):
            assert isinstance(blocks, nn.ModuleList)
            h = F.interpolate(h, scale_factor=2.0, mode="nearest") if index else h
            for block in blocks:
                h = block(h, labels[:, :, ::step, ::step])
        return torch.tanh(self.leave(F.leaky_relu(h, 0.2)))


class SpadeNorm(nn.Module):
    """A normalization without weights, then gamma and beta of the label map, which are not normalized themselves."""

    def __init__(self, channels: int, labels: int, settings: SpadeSettings):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False) if settings.norm == "batch" else nn.InstanceNorm2d(channels)
        self.modulation = Modulation(2, labels, settings.hidden, channels)

    def forward(self, x: Float[Tensor, "b c x y"], labels: Float[Tensor, "b k x y"]) -> Float[Tensor, "b c x y"]:
        """Return normalized x * (1 + gamma) + beta."""
        return self.modulation(self.norm(x), labels)


class SpadeBlock(nn.Module):
    """A residual block (Fig. 4 of the paper): norm, LeakyReLU and convolution twice, and a learned way past them."""

    def __init__(self, inputs: int, outputs: int, labels: int, settings: SpadeSettings):
        super().__init__()
        middle = min(inputs, outputs)
        self.norms = nn.ModuleList(SpadeNorm(width, labels, settings) for width in (inputs, middle))
        self.convolutions = with_spectral_norm(
            nn.ModuleList([nn.Conv2d(inputs, middle, 3, padding=1), nn.Conv2d(middle, outputs, 3, padding=1)])
        )
        self.past = self.past_norm = None
        if inputs != outputs:
            self.past_norm = SpadeNorm(inputs, labels, settings)
            self.past = with_spectral_norm(nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False)))

    def forward(self, x: Float[Tensor, "b c x y"], labels: Float[Tensor, "b k x y"]) -> Float[Tensor, "b d x y"]:
        """Return the sum of both ways."""
        h = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):  # pyright: ignore[reportArgumentType]
            h = convolution(F.leaky_relu(norm(h, labels), 0.2))
        if self.past is None or self.past_norm is None:
            return x + h
        return self.past(self.past_norm(x, labels)) + h


_TRAINING = PUBLISHED.model_copy(update={"learning_rate": 1e-4, "betas": (0.0, 0.9)})


def _stage(game: SpadeSettings, **training) -> AdversarialStage:
    """Return a stage with the published rates: discriminators learn four times as fast."""
    return AdversarialStage(method="spade", game=game, pace=4.0, training=_TRAINING.model_copy(update=training))


_SMALL = PatchSettings(scales=2, channels=8, layers=2, spectral=True)
TINY = _stage(
    SpadeSettings(channels=((16,), (8,)), hidden=8, discriminators=_SMALL),
    steps=20, batch_size=2,
)  # fmt: skip
DEMO = _stage(
    SpadeSettings(
        channels=((64,), (64,), (32,), (16,)), hidden=32, discriminators=_SMALL.model_copy(update={"channels": 16})
    ),
    steps=2000, batch_size=4,
)  # fmt: skip
PAPER = _stage(
    SpadeSettings(channels=((1024,), (1024, 1024), (512,), (256,), (128,), (64,)), norm="batch"),
    # 50 epochs of some 32 000 slices (200 cases of ImageCAS).
    steps=50_000, batch_size=32,
)  # fmt: skip

METHOD = Method(
    name="spade",
    title="SPADE",
    citation="Park, Liu, Wang and Zhu, CVPR 2019; code NVlabs/SPADE (CC BY-NC-SA 4.0, not used)",
    spatial_dims=2,
    conditional=True,
    footnote="no perceptual term unless a distance is handed in (published VGG-19, weight 10); gamma and beta begin at "
    "0, other weights as PyTorch draws them; batch normalization is not shared by processes; constant rates; the "
    "label map has a channel for the background",
    sizes={
        "tiny": AdversarialGenerator.sized(TINY),
        "demo": AdversarialGenerator.sized(DEMO),
        "paper": AdversarialGenerator.sized(PAPER),
    },
)
