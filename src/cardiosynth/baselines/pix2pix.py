"""pix2pix in three dimensions: a U-Net from label map to image against patches (Isola et al. 2017, lifted to 3D)."""

from collections.abc import Sequence

import pydantic
import torch
from jaxtyping import Float
from monai.networks.nets.unet import UNet
from monai.networks.utils import normal_init
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
)
from cardiosynth.baselines.method import Method


class Pix2PixSettings(GameSettings):
    """Sizes and weights.

    Attributes:
        channels: of the U-Net's levels, finest first; each has half the resolution of the one before. Levels that
            would be narrower than two voxels are left out. Published (256 x 256) 64 to 512.
        dropout: in training. Published 0.5, of the decoder's three coarsest levels; here of all.
        discriminators: published one of patches of 70 voxels, 64 channels.
        losses: published cross entropy and 100 of L1.
    """

    channels: tuple[pydantic.PositiveInt, ...]
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    discriminators: PatchSettings = PatchSettings()
    losses: TranslationLosses = TranslationLosses(judgement="cross_entropy", l1=100.0)

    def build(self, codes: Sequence[int], shape: Sequence[int], perceptual: Perceptual | None = None) -> Game:
        """Return the game with new networks."""
        levels = [level for level in range(len(self.channels)) if min(shape) >= 2 ** (level + 1)]
        check_multiple(shape, 2 ** max(levels, default=1), "pix2pix-3d", least=2)
        labels = 1 + len(codes)
        network = Pix2PixGenerator(len(shape), labels, self.channels[: len(levels)], self.dropout)
        discriminators = self.discriminators.build(labels + 1, shape, "pix2pix-3d")
        return TranslationGame(network, discriminators, self.losses, codes, perceptual)


class Pix2PixGenerator(nn.Module):
    """A U-Net whose skips are concatenated, and tanh.

    Instance normalization is what batch normalization does to the published batch of one.
    """

    def __init__(self, dims: int, labels: int, channels: tuple[int, ...], dropout: float):
        super().__init__()
        self.unet = UNet(
            dims, labels, 1, channels, (2,) * (len(channels) - 1), kernel_size=3, up_kernel_size=3,
            act=("LeakyReLU", {"negative_slope": 0.2}), norm="INSTANCE", dropout=dropout,
        )  # fmt: skip
        self.unet.apply(normal_init)

    def forward(self, labels: Float[Tensor, "b k *grid"]) -> Float[Tensor, "b 1 *grid"]:
        """Return images in [-1, 1]."""
        return torch.tanh(self.unet(labels))


def _stage(game: Pix2PixSettings, **training) -> AdversarialStage:
    return AdversarialStage(method="pix2pix-3d", game=game, training=PUBLISHED.model_copy(update=training))


TINY = _stage(
    Pix2PixSettings(channels=(8, 16), discriminators=PatchSettings(channels=4, layers=2)),
    steps=20, batch_size=2,
)  # fmt: skip
DEMO = _stage(
    Pix2PixSettings(channels=(16, 32, 64, 64), discriminators=PatchSettings(channels=16, layers=2)),
    steps=1500, batch_size=2,
)  # fmt: skip
PAPER = _stage(
    Pix2PixSettings(channels=(64, 128, 256, 512, 512, 512, 512, 512), dropout=0.5),
    # 200 epochs of 200 cases.
    steps=40_000, batch_size=1,
)  # fmt: skip

METHOD = Method(
    name="pix2pix-3d",
    title="pix2pix-3D",
    citation="Isola, Zhu, Zhou and Efros, CVPR 2017, here in 3D; code junyanz/pytorch-CycleGAN-and-pix2pix (not used)",
    spatial_dims=3,
    conditional=True,
    footnote="MONAI's U-Net with kernels of 3 and dropout in all levels, in training only; a constant rate; the label "
    "map has a channel for the background",
    sizes={
        "tiny": AdversarialGenerator.sized(TINY),
        "demo": AdversarialGenerator.sized(DEMO),
        "paper": AdversarialGenerator.sized(PAPER),
    },
)
