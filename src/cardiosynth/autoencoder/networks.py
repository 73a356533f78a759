"""Autoencoders behind one contract: model units [0, 1] in and out, Gaussian latents between.

``compact`` learns fast on two CPU cores; ``maisi`` is the published layout, into which released weights load.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pydantic
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from cardiosynth.core.config import Settings
from cardiosynth.core.random import named_weights
from cardiosynth.training.state import load_strictly


class AutoencoderSettings(Settings):
    """Which autoencoder.

    Attributes:
        kind: ``compact`` (ours: no normalization layers, space-to-depth stem and head) or ``maisi`` (MONAI's
            AutoencoderKlMaisi, three-dimensional).
        spatial_dims: 3 for volumes, 2 for slices.
        latent_channels: values per latent voxel. Published (FCaS after MAISI) 4.
        compression: image voxels per latent voxel along each axis. Published 4.
        channels: features per level, finest first. One level per halving for ``compact``; one more, at full
            resolution, for ``maisi``, published (64, 128, 256).
        num_res_blocks: residual blocks per level. Published (MAISI) (2, 2, 2).
        norm_groups: groups of MAISI's group normalization, published 32; ``compact`` has none.
    """

    kind: Literal["compact", "maisi"] = "compact"
    spatial_dims: Literal[2, 3] = 3
    latent_channels: int = pydantic.Field(default=4, ge=1)
    compression: Literal[2, 4] = 4
    channels: tuple[int, ...] = (24, 64)
    num_res_blocks: tuple[int, ...] = (1, 2)
    norm_groups: int = pydantic.Field(default=32, ge=1)

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "AutoencoderSettings":
        levels = {2: 1, 4: 2}[self.compression] + (self.kind == "maisi")
        if len(self.channels) != levels or len(self.num_res_blocks) != levels:
            raise ValueError(
                f"a {self.kind} autoencoder of compression {self.compression} has {levels} levels; give as many "
                "channels and num_res_blocks"
            )
        if self.kind == "maisi" and self.spatial_dims != 3:
            raise ValueError("a maisi autoencoder is three-dimensional; use compact for slices")
        if self.kind == "maisi" and any(n % self.norm_groups for n in self.channels):
            raise ValueError(f"channels {self.channels} must be multiples of norm_groups {self.norm_groups}")
        return self


class Autoencoder(nn.Module, ABC):
    """What every stage knows of an autoencoder.

    Attributes:
        compression: image voxels per latent voxel along each axis.
        latent_channels: values per latent voxel.
        spatial_dims: 2 or 3.
    """

    def __init__(self, settings: AutoencoderSettings):
        super().__init__()
        self.compression: int = settings.compression
        self.latent_channels = settings.latent_channels
        self.spatial_dims: int = settings.spatial_dims

    @abstractmethod
    def encode(
        self, x: Float[Tensor, "b 1 *grid"]
    ) -> tuple[Float[Tensor, "b c *latent"], Float[Tensor, "b c *latent"]]:
        """Return mean and standard deviation of the latents of images in model units, both float32."""

    @abstractmethod
    def decode(self, z: Float[Tensor, "b c *latent"]) -> Float[Tensor, "b 1 *grid"]:
        """Return the images of latents in model units, float32, not clipped to [0, 1]."""


def build_autoencoder(settings: AutoencoderSettings, seed: int = 0) -> Autoencoder:
    """Return a new autoencoder, its initial weights drawn from ``seed``."""
    with named_weights(seed, "autoencoder"):
        if settings.kind == "maisi":
            return MaisiAutoencoder(settings)
        layout = torch.channels_last_3d if settings.spatial_dims == 3 else torch.channels_last
        return CompactAutoencoder(settings).to(memory_format=layout)  # pyright: ignore[reportCallIssue]


# ---------------------------------------------------------------------------------------------------------------
# compact: every convolution works on space-to-depth blocks, so that none runs at full resolution; no normalization,
# so that a crop is encoded as it would be inside its volume.


class CompactAutoencoder(Autoencoder):
    """Space-to-depth autoencoder without normalization layers."""

    def __init__(self, settings: AutoencoderSettings):
        super().__init__(settings)
        dims, wide = settings.spatial_dims, settings.latent_channels
        channels, blocks = settings.channels, settings.num_res_blocks
        # Pixels are mixed 3 wide where they enter and leave; between levels 1 wide is enough, the blocks mix.
        kernels = (3,) + (1,) * (len(channels) - 1)
        finer = (1, *channels[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(_conv(dims, n * 2**dims, c, k), *(_Residual(dims, c) for _ in range(r)))
            for n, c, k, r in zip(finer, channels, kernels, blocks, strict=True)
        )
        self.to_latent = nn.Sequential(nn.SiLU(), _conv(dims, channels[-1], 2 * wide, 1))
        self.from_latent = _conv(dims, wide, channels[-1], 3)
        self.up = nn.ModuleList(
            nn.Sequential(*(_Residual(dims, c) for _ in range(r)), nn.SiLU(), _conv(dims, c, n * 2**dims, k))
            for n, c, k, r in reversed(list(zip(finer, channels, kernels, blocks, strict=True)))
        )

    def encode(
        self, x: Float[Tensor, "b 1 *grid"]
    ) -> tuple[Float[Tensor, "b c *latent"], Float[Tensor, "b c *latent"]]:
        """Return mean and standard deviation of the latents; the grid must be a multiple of ``compression``."""
        h = 2 * x - 1
        for level in self.down:
            h = level(space_to_depth(h))
        mean, log_variance = self.to_latent(h).float().chunk(2, dim=1)
        return mean, torch.exp(0.5 * log_variance.clamp(-20, 4))

    def decode(self, z: Float[Tensor, "b c *latent"]) -> Float[Tensor, "b 1 *grid"]:
        """Return the images of latents in model units."""
        h = self.from_latent(z)
        for level in self.up:
            h = depth_to_space(level(h))
        return 0.5 * h.float() + 0.5


class _Residual(nn.Module):
    """x + two convolutions, the second zero at first, so that a deep norm-free net starts as the identity."""

    def __init__(self, dims: int, channels: int):
        super().__init__()
        self.first = _conv(dims, channels, channels, 3)
        self.second = _conv(dims, channels, channels, 3)
        nn.init.zeros_(self.second.weight)
        assert self.second.bias is not None
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b c *grid"]:
        return x + self.second(F.silu(self.first(F.silu(x))))


def _conv(dims: int, inputs: int, outputs: int, kernel: int) -> nn.Conv2d | nn.Conv3d:
    kind = nn.Conv3d if dims == 3 else nn.Conv2d
    return kind(inputs, outputs, kernel, padding=kernel // 2)


def space_to_depth(x: Float[Tensor, "b c *fine"]) -> Float[Tensor, "b c8 *coarse"]:
    """Move every 2x2(x2) block of voxels into the channels, stored channels last (twice as fast on CPUs)."""
    if x.ndim == 5:
        blocks = rearrange(x, "b c (x i) (y j) (z k) -> b (c i j k) x y z", i=2, j=2, k=2)
        return blocks.contiguous(memory_format=torch.channels_last_3d)
    blocks = rearrange(x, "b c (x i) (y j) -> b (c i j) x y", i=2, j=2)
    return blocks.contiguous(memory_format=torch.channels_last)


def depth_to_space(x: Float[Tensor, "b c8 *coarse"]) -> Float[Tensor, "b c *fine"]:
    """Undo ``space_to_depth``."""
    if x.ndim == 5:
        fine = rearrange(x, "b (c i j k) x y z -> b c (x i) (y j) (z k)", i=2, j=2, k=2)
        return fine.contiguous(memory_format=torch.channels_last_3d)
    fine = rearrange(x, "b (c i j) x y -> b c (x i) (y j)", i=2, j=2)
    return fine.contiguous(memory_format=torch.channels_last)


# ---------------------------------------------------------------------------------------------------------------
# maisi: the published network (Guo et al. 2024, MAISI), unchanged, behind the contract.


class MaisiAutoencoder(Autoencoder):
    """MONAI's AutoencoderKlMaisi. Its parameters are ours under ``PREFIX``."""

    PREFIX = "network."

    def __init__(self, settings: AutoencoderSettings):
        super().__init__(settings)
        from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi

        # Float32 normalization: the released setting (float16) runs under CUDA float16 autocast only. One split:
        # MONAI drops the tail of a volume whose length is not a multiple of the splits. Neither changes weights.
        self.network = AutoencoderKlMaisi(
            spatial_dims=3, in_channels=1, out_channels=1, latent_channels=settings.latent_channels,
            num_channels=settings.channels, num_res_blocks=settings.num_res_blocks,
            attention_levels=[False] * len(settings.channels), norm_num_groups=settings.norm_groups, norm_eps=1e-6,
            num_splits=1, norm_float16=False, save_mem=False,
        )  # fmt: skip

    def encode(
        self, x: Float[Tensor, "b 1 *grid"]
    ) -> tuple[Float[Tensor, "b c *latent"], Float[Tensor, "b c *latent"]]:
        """Return mean and standard deviation of the latents; the grid must be a multiple of ``compression``."""
        mean, std = self.network.encode(x)
        return mean.float(), std.float()

    def decode(self, z: Float[Tensor, "b c *latent"]) -> Float[Tensor, "b 1 *grid"]:
        """Return the images of latents in model units."""
        return self.network.decode(z).float()

    def load_released(self, weights: Mapping[str, Tensor], origin: Path) -> None:
        """Load weights in the released layout, every tensor and nothing else.

        Args:
            weights: name -> tensor as MONAI's class names them, without our prefix.
            origin: the file they come from, for the error.

        Raises:
            InputError: a tensor is missing, unknown or of another shape.
        """
        load_strictly(self.network, weights, origin)

    def released(self) -> dict[str, Tensor]:
        """Return the weights in the released layout: what MONAI's class loads strictly."""
        return self.network.state_dict()
