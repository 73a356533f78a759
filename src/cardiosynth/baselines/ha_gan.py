"""HA-GAN: volumes at low resolution and random slabs at full resolution, of the same features (Sun et al. 2022).

Memory for training is that of a slab; afterwards the whole is made at once, or slab by slab: both are the same, since
what follows the shared features normalizes each voxel by itself and sees the voxels beyond the slab that it reaches.
"""

from collections.abc import Sequence
from itertools import pairwise

import pydantic
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from cardiosynth.autoencoder.losses import Perceptual
from cardiosynth.baselines.adversarial import PUBLISHED, AdversarialGenerator, AdversarialStage
from cardiosynth.baselines.games import Game, GameSettings, NoiseGame, check_multiple, with_spectral_norm
from cardiosynth.baselines.method import Method

LOW = 4
"""Voxels of the image per voxel of the low-resolution image and of the shared features, along each axis."""
HALO = 1
"""Shared features beyond a slab that its voxels depend on: both convolutions together reach 3 voxels of the image."""


class HaGanSettings(GameSettings):
    """Sizes.

    Attributes:
        noise: values that a volume is made of. Published 1024.
        channels: of the shared features (G^A), coarsest first; each level has twice the resolution of the one before,
            the last a quarter of the image's. Published five levels for 256 cubed.
        high: channels at half the image's resolution (G^H).
        low: channels of the way to the low-resolution image (G^L).
        groups: of the normalizations before the image's two last layers. Published 8, of all.
        slabs: the slab that is judged is one of so many, along the first axis. Published 8.
        judges: channels of each discriminator, whose layers halve the grid.
    """

    noise: int = pydantic.Field(default=1024, ge=1)
    channels: tuple[pydantic.PositiveInt, ...] = (512, 512, 256, 128, 64)
    high: int = pydantic.Field(default=32, ge=1)
    low: int = pydantic.Field(default=32, ge=1)
    groups: int = pydantic.Field(default=8, ge=1)
    slabs: int = pydantic.Field(default=8, ge=1)
    judges: tuple[pydantic.PositiveInt, ...] = (32, 64, 128, 256, 512)

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "HaGanSettings":
        if any(width % self.groups for width in (*self.channels, self.low)):
            raise ValueError(f"channels {self.channels} and low={self.low} must be multiples of groups={self.groups}")
        return self

    def build(self, codes: Sequence[int], shape: Sequence[int], perceptual: Perceptual | None = None) -> Game:
        """Return the game with new networks."""
        check_multiple(shape, LOW * 2 ** (len(self.channels) - 1), "ha-gan")
        check_multiple(shape[:1], LOW * self.slabs, "ha-gan")
        generator = HaGanGenerator(self, tuple(shape))
        return NoiseGame(generator, HaGanDiscriminator(self, generator.slab, tuple(n // LOW for n in shape)))


class HaGanGenerator(nn.Module):
    """Noise to shared features (G^A), and from them the low-resolution image (G^L) and the image (G^H).

    Args:
        settings: sizes.
        shape: voxels per axis of the image.
    """

    def __init__(self, settings: HaGanSettings, shape: tuple[int, ...]):
        super().__init__()
        levels, groups = settings.channels, settings.groups
        self.noise, self.shape = settings.noise, shape
        self.thickness = shape[0] // LOW // settings.slabs
        self.places = shape[0] // LOW - self.thickness + 1
        self.coarsest = tuple(n // LOW // 2 ** (len(levels) - 1) for n in shape)
        self.enter = nn.Linear(settings.noise, levels[0] * self.coarsest[0] * self.coarsest[1] * self.coarsest[2])
        self.shared = nn.ModuleList(
            _layer(inputs, outputs, groups) for inputs, outputs in pairwise((levels[0], *levels))
        )
        self.to_low = nn.Sequential(
            _layer(levels[-1], settings.low, groups), nn.Conv3d(settings.low, 1, 3, padding=1), nn.Tanh()
        )
        self.to_half = nn.Sequential(
            nn.Conv3d(levels[-1], settings.high, 3, padding=1), VoxelNorm(settings.high), nn.ReLU()
        )
        self.to_image = nn.Sequential(nn.Conv3d(settings.high, 1, 3, padding=1), nn.Tanh())

    @property
    def slab(self) -> tuple[int, ...]:
        """Voxels per axis of a slab."""
        return (LOW * self.thickness, *self.shape[1:])

    def forward(self, noise: Float[Tensor, "b z"]) -> Float[Tensor, "b 1 x y z2"]:
        """Return images in [-1, 1]."""
        return self._full(self.features(noise))

    def features(self, noise: Float[Tensor, "b z"]) -> Float[Tensor, "b c x y z2"]:
        """Return the shared features at a quarter of the image's resolution."""
        h = self.enter(noise).unflatten(1, (-1, *self.coarsest))
        for index, layer in enumerate(self.shared):
            h = layer(_doubled(h) if index else h)
        return h

    def slab_of(self, features: Float[Tensor, "b c x y z"], start: int) -> Float[Tensor, "b 1 x2 y2 z2"]:
        """Return the slab of the image that begins at feature ``start``, as it is in the whole."""
        first, stop = max(start - HALO, 0), min(start + self.thickness + HALO, features.shape[2])
        image = self._full(features[:, :, first:stop])
        return image[:, :, LOW * (start - first) :][:, :, : LOW * self.thickness]

    def make(self, noise: Float[Tensor, "b z"], place: Int[Tensor, "b"]) -> tuple[Tensor, ...]:
        """Return the slabs at ``place``, the low-resolution images, and where the slabs lie, in [0, 1]."""
        features = self.features(noise)
        slabs = [self.slab_of(each[None], start) for each, start in zip(features, place.tolist(), strict=True)]
        return torch.cat(slabs), self.to_low(features), self._where(place)

    def view(self, image: Float[Tensor, "b 1 x y z"], place: Int[Tensor, "b"]) -> tuple[Tensor, ...]:
        """Return the same of real images; low resolution is the mean of 4 x 4 x 4 voxels."""
        slabs = [
            each[:, LOW * start : LOW * (start + self.thickness)]
            for each, start in zip(image, place.tolist(), strict=True)
        ]
        return torch.stack(slabs), F.avg_pool3d(image, LOW), self._where(place)

    def _full(self, features: Tensor) -> Tensor:
        return self.to_image(_doubled(self.to_half(_doubled(features))))

    def _where(self, place: Tensor) -> Float[Tensor, "b 1"]:
        return place[:, None].float() / max(1, self.places - 1)


class VoxelNorm(nn.LayerNorm):
    """Normalization of each voxel by itself, over its channels."""

    def forward(self, input: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b c x y z"]:
        """Return channels with mean 0 and variance 1 in each voxel, then scaled and shifted."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class HaGanDiscriminator(nn.Module):
    """One answer from the slab, told where it lies (D^H), and one from the low-resolution image (D^L): their mean.

    Args:
        settings: channels.
        slab: voxels per axis of a slab.
        low: voxels per axis of the low-resolution image.
    """

    def __init__(self, settings: HaGanSettings, slab: tuple[int, ...], low: tuple[int, ...]):
        super().__init__()
        self.high, features = _judge(settings.judges, slab)
        self.low, low_features = _judge(settings.judges, low)
        self.high_answer = with_spectral_norm(nn.Sequential(nn.Linear(features + 1, 1)))
        self.low_answer = with_spectral_norm(nn.Sequential(nn.Linear(low_features, 1)))

    def forward(
        self, slab: Float[Tensor, "b 1 *slab"], low: Float[Tensor, "b 1 *low"], where: Float[Tensor, "b 1"]
    ) -> list[Tensor]:
        """Return the answers (b, 1), alone in a list."""
        high = self.high_answer(torch.cat((self.high(slab), where), 1))
        return [(high + self.low_answer(self.low(low))) / 2]


def _layer(inputs: int, outputs: int, groups: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(inputs, outputs, 3, padding=1), nn.GroupNorm(groups, outputs), nn.ReLU())


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _judge(channels: Sequence[int], shape: Sequence[int]) -> tuple[nn.Module, int]:
    """Return layers that halve each axis as long as it has two voxels, and how many features they end in."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((1, *channels)):
        halved = [n >= 2 for n in shape]
        x, y, z = (int(h) for h in halved)
        kernel, stride = (3 + x, 3 + y, 3 + z), (1 + x, 1 + y, 1 + z)
        layers += [nn.Conv3d(inputs, outputs, kernel, stride, padding=1), nn.LeakyReLU(0.2)]
        shape = [n // 2 if h else n for n, h in zip(shape, halved, strict=True)]
    count = channels[-1] * shape[0] * shape[1] * shape[2]
    return with_spectral_norm(nn.Sequential(*layers, nn.Flatten())), count


_TRAINING = PUBLISHED.model_copy(update={"learning_rate": 1e-4, "betas": (0.0, 0.999)})


def _stage(game: HaGanSettings, **training) -> AdversarialStage:
    """Return a stage with the published rates: discriminators learn four times as fast."""
    return AdversarialStage(method="ha-gan", game=game, pace=4.0, training=_TRAINING.model_copy(update=training))


TINY = _stage(
    HaGanSettings(noise=16, channels=(16, 8), high=8, low=8, groups=4, judges=(8, 16)),
    steps=20, batch_size=2, learning_rate=1e-3, ema_decay=0.95,
).model_copy(update={"pace": 0.5})  # fmt: skip
"""With the published rates two hundred steps swing from one intensity to another; slower discriminators and averaged
weights calm them."""
DEMO = _stage(
    HaGanSettings(noise=128, channels=(64, 64, 32), high=16, low=16, judges=(16, 32, 64)),
    steps=2000, batch_size=4,
)  # fmt: skip
PAPER = _stage(HaGanSettings(), steps=80_000, batch_size=4)

METHOD = Method(
    name="ha-gan",
    title="HA-GAN",
    citation="Sun, Chen, Xu, Gong, Yu and Batmanghelich, IEEE J. Biomed. Health Inform. 2022; code batmanlab/HA-GAN "
    "(no licence, not used)",
    spatial_dims=3,
    conditional=False,
    footnote="no encoders, which are trained with fixed generators and change no image; after the shared features each "
    "voxel is normalized by itself and slabs have a margin, so that slabs equal the whole (published: group "
    "normalization of the slab); published for 3000 images and more",
    sizes={
        "tiny": AdversarialGenerator.sized(TINY),
        "demo": AdversarialGenerator.sized(DEMO),
        "paper": AdversarialGenerator.sized(PAPER),
    },
)
