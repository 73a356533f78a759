"""DCGAN: slices from noise by strided transposed convolutions (Radford et al. 2016)."""

from collections.abc import Sequence
from itertools import pairwise

import pydantic
from jaxtyping import Float
from monai.networks.utils import normal_init
from torch import Tensor, nn

from cardiosynth.autoencoder.losses import Perceptual
from cardiosynth.baselines.adversarial import PUBLISHED, AdversarialGenerator, AdversarialStage
from cardiosynth.baselines.games import Game, GameSettings, NoiseGame, check_multiple
from cardiosynth.baselines.method import Method


class DcganSettings(GameSettings):
    """Sizes.

    Attributes:
        noise: values that an image is made of. Published 100.
        channels: of the generator, coarsest first; each level has twice the resolution of the one before. The
            discriminator has them in reverse order. Published 1024, 512, 256, 128 for 64 x 64.
    """

    noise: int = pydantic.Field(default=100, ge=1)
    channels: tuple[pydantic.PositiveInt, ...] = (1024, 512, 256, 128)

    def build(self, codes: Sequence[int], shape: Sequence[int], perceptual: Perceptual | None = None) -> Game:
        """Return the game with new networks."""
        halvings = 2 ** len(self.channels)
        check_multiple(shape, halvings, "dcgan", least=2)
        width, height = shape
        coarsest = (width // halvings, height // halvings)
        return NoiseGame(DcganGenerator(self, coarsest), DcganDiscriminator(self, coarsest))


class DcganGenerator(nn.Module):
    """Noise to a coarsest grid, then twice the resolution level by level; batch normalization and ReLU between.

    Args:
        settings: noise and channels.
        coarsest: pixels per axis of the first level. Published 4 x 4.
    """

    places = 1

    def __init__(self, settings: DcganSettings, coarsest: tuple[int, int]):
        super().__init__()
        self.noise = settings.noise
        first, *_, last = settings.channels
        layers: list[nn.Module] = [nn.ConvTranspose2d(settings.noise, first, coarsest, bias=False)]
        for inputs, outputs in pairwise(settings.channels):
            layers += [nn.BatchNorm2d(inputs), nn.ReLU(), nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(last), nn.ReLU(), nn.ConvTranspose2d(last, 1, 4, 2, 1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(normal_init)

    def forward(self, noise: Float[Tensor, "b z"]) -> Float[Tensor, "b 1 x y"]:
        """Return images in [-1, 1]."""
        return self.layers(noise[..., None, None])

    def make(self, noise: Float[Tensor, "b z"], place: Tensor) -> tuple[Tensor, ...]:
        """Return the images: they are judged as they are."""
        return (self(noise),)

    def view(self, image: Float[Tensor, "b 1 x y"], place: Tensor) -> tuple[Tensor, ...]:
        """Return the images."""
        return (image,)


class DcganDiscriminator(nn.Module):
    """Half the resolution level by level, then one answer per image; the mirror of the generator."""

    def __init__(self, settings: DcganSettings, coarsest: tuple[int, int]):
        super().__init__()
        widths = settings.channels[::-1]
        layers: list[nn.Module] = [nn.Conv2d(1, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for inputs, outputs in pairwise(widths):
            layers += [
                nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False),
                # Never used but in training, on images alone or on what was made alone.
                nn.BatchNorm2d(outputs, track_running_stats=False),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, coarsest))
        self.apply(normal_init)

    def forward(self, image: Float[Tensor, "b 1 x y"]) -> list[Tensor]:
        """Return the answers (b, 1, 1, 1), alone in a list."""
        return [self.layers(image)]


def _stage(game: DcganSettings, **training) -> AdversarialStage:
    return AdversarialStage(method="dcgan", game=game, training=PUBLISHED.model_copy(update=training))


TINY = _stage(DcganSettings(noise=8, channels=(16, 8)), steps=20, batch_size=4)
DEMO = _stage(DcganSettings(channels=(128, 64, 32, 16)), steps=3000, batch_size=16)
# The paper gives no number of steps for images like these.
PAPER = _stage(DcganSettings(), steps=40_000, batch_size=128)

METHOD = Method(
    name="dcgan",
    title="DCGAN",
    citation="Radford, Metz and Chintala, ICLR 2016; code Newmu/dcgan_code (not used)",
    spatial_dims=2,
    conditional=False,
    footnote="grids above 64 x 64 begin at a larger coarsest grid (published 4 x 4) instead of with more levels",
    sizes={
        "tiny": AdversarialGenerator.sized(TINY),
        "demo": AdversarialGenerator.sized(DEMO),
        "paper": AdversarialGenerator.sized(PAPER),
    },
)
