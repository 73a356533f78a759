"""Autoencoders behind one contract: model units [0, 1] in and out, latents between, Gaussian or quantized.

``compact`` learns fast on two CPU cores; ``maisi`` is the published layout, into which released weights load; ``vqgan``
and ``vqvae`` are those of these papers, for slices and volumes; ``identity`` and ``haar`` have nothing to learn, see
``fixed.py``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import pydantic
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cardiosynth.autoencoder.chain import Branch, Chain, Merge
from cardiosynth.autoencoder.codebook import Codebook, CodebookSettings
from cardiosynth.autoencoder.folds import DepthToSpace, SpaceToDepth
from cardiosynth.autoencoder.layers import Activate, Convolve, Layer, Scale
from cardiosynth.autoencoder.mask_stem import MaskStem
from cardiosynth.core.config import Settings
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.random import named_weights
from cardiosynth.training.state import load_strictly


class AutoencoderSettings(Settings):
    """Which autoencoder.

    Attributes:
        kind: ``compact`` (ours: no normalization layers, space-to-depth stem and head), ``maisi`` (MONAI's
            AutoencoderKlMaisi, three-dimensional), ``vqgan`` (group normalization, strided convolutions), ``vqvae``
            (no normalization, ReLU, windows of 4, residual blocks at latent resolution alone), or without
            anything to train ``identity`` (voxels, published: DDPM, Med-DDPM) and ``haar`` (wavelets, published: WDM),
            whose sizes ``fixed_settings`` gives.
        spatial_dims: 3 for volumes, 2 for slices.
        codebook: quantizes the latents; None leaves them Gaussian. Published (FQCDM) with.
        latent_channels: values per latent voxel. Published (FCaS after MAISI) 4; not stated by FQCDM.
        compression: image voxels per latent voxel along each axis. Published 4, (VQGAN) 16; 1 is ``identity``.
        channels: features per level, finest first. One level per halving for ``compact`` and ``vqvae``, published
            (VQ-VAE) (64, 128); one more, at full resolution, for ``maisi``, published (64, 128, 256), and ``vqgan``,
            published (128, 256, 512).
        num_res_blocks: residual blocks per level. Published (MAISI, VQGAN) (2, 2, 2), (VQ-VAE) (0, 2).
        norm_groups: groups of MAISI's and VQGAN's group normalization, published 32; the others have none.
        checkpointing: train with less memory and a third more time, same gradients.
        mask_features: channels in which the decoder is told of the mask, beyond the paper; see ``MaskStem``. Published
            none: null. Not for ``maisi``.
    """

    FIXED: ClassVar[Mapping[str, int]] = {"identity": 1, "haar": 2}
    """Kinds that nothing is learned of, and their compression."""

    kind: Literal["compact", "maisi", "vqgan", "vqvae", "identity", "haar"] = "compact"
    spatial_dims: Literal[2, 3] = 3
    codebook: CodebookSettings | None = None
    latent_channels: int = pydantic.Field(default=4, ge=1)
    compression: Literal[1, 2, 4, 8, 16] = 4
    channels: tuple[int, ...] = (24, 64)
    num_res_blocks: tuple[int, ...] = (1, 2)
    norm_groups: int = pydantic.Field(default=32, ge=1)
    checkpointing: bool = False
    mask_features: int | None = pydantic.Field(default=None, ge=1)

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "AutoencoderSettings":
        if self.is_fixed:
            self._check_fixed()
            return self
        if self.compression == 1:
            raise ValueError("a compression of 1 leaves nothing to learn; set kind=identity")
        levels = self.compression.bit_length() - 1 + self._is_normalized
        if len(self.channels) != levels or len(self.num_res_blocks) != levels:
            raise ValueError(
                f"a {self.kind} autoencoder of compression {self.compression} has {levels} levels; give as many "
                "channels and num_res_blocks"
            )
        if self.kind == "maisi" and self.spatial_dims != 3:
            raise ValueError("a maisi autoencoder is three-dimensional; use compact or vqgan for slices")
        if self.kind == "maisi" and self.codebook is not None:
            raise ValueError("a maisi autoencoder is Gaussian; use compact or vqgan with a codebook")
        if self.kind == "maisi" and self.mask_features is not None:
            raise ValueError("a maisi decoder is told of no mask; use compact or vqgan, or set mask_features=null")
        if self.kind == "vqvae" and any(self.num_res_blocks[:-1]):
            raise ValueError("a vqvae has residual blocks at its last level alone; set num_res_blocks to 0 before it")
        if self._is_normalized and any(n % self.norm_groups for n in self.channels):
            raise ValueError(f"channels {self.channels} must be multiples of norm_groups {self.norm_groups}")
        return self

    def _check_fixed(self) -> None:
        factor = self.FIXED[self.kind]
        if (self.compression, self.latent_channels) != (factor, factor**self.spatial_dims):
            raise ValueError(
                f"kind {self.kind} compresses {self.spatial_dims} axes by {factor}; set compression={factor} and "
                f"latent_channels={factor**self.spatial_dims}"
            )
        if self.channels or self.num_res_blocks or self.codebook is not None or self.mask_features is not None:
            raise ValueError(
                f"kind {self.kind} has nothing to learn; leave channels and num_res_blocks empty, and codebook and "
                "mask_features null"
            )

    @property
    def _is_normalized(self) -> bool:
        """Whether it has group normalization, and then a level at full resolution."""
        return self.kind in ("maisi", "vqgan")

    @property
    def is_fixed(self) -> bool:
        """Whether there is nothing to train."""
        return self.kind in self.FIXED


class Autoencoder(nn.Module, ABC):
    """What every stage knows of an autoencoder.

    Attributes:
        compression: image voxels per latent voxel along each axis.
        latent_channels: values per latent voxel.
        decoder_channels: values per latent voxel that ``decoding`` takes: latent and what is told of the mask.
        spatial_dims: 2 or 3.
        codebook: quantizes latents; None where they are Gaussian or fixed.
        is_gaussian: whether ``encoding`` says how certain latents are.
        mask_stem: tells the decoder of masks; None where it sees latents alone.
        checkpointing: compute inner values again for the gradients instead of keeping them.
    """

    LOG_VARIANCE: ClassVar[tuple[float, float]]
    """Between which it is clamped."""

    def __init__(self, settings: AutoencoderSettings):
        super().__init__()
        self.checkpointing = settings.checkpointing
        self.compression: int = settings.compression
        self.latent_channels = settings.latent_channels
        self.spatial_dims: int = settings.spatial_dims
        self.codebook = None if settings.codebook is None else Codebook(settings.codebook, settings.latent_channels)
        self.is_gaussian = settings.codebook is None and not settings.is_fixed
        self.mask_stem: MaskStem | None = None
        self.decoder_channels: int = settings.latent_channels + (settings.mask_features or 0)

    @property
    def moment_channels(self) -> int:
        """What ``encoding`` gives per latent voxel: mean and log variance; the mean alone where not Gaussian."""
        return self.latent_channels * (2 if self.is_gaussian else 1)

    @property
    def last_weight(self) -> Tensor:
        """The kernel of the decoder's last convolution."""
        return [layer.conv.weight for layer in self.decoding().layers if isinstance(layer, Convolve)][-1]

    @abstractmethod
    def encoding(self) -> Chain:
        """Return the layers from images in model units to ``moment_channels`` values per latent voxel."""

    @abstractmethod
    def decoding(self) -> Chain:
        """Return the layers from ``told`` latents to images in model units."""

    def encode(
        self, x: Float[Tensor, "b 1 *grid"]
    ) -> tuple[Float[Tensor, "b c *latent"], Float[Tensor, "b c *latent"]]:
        """Return mean and standard deviation of the latents of images in model units, both float32.

        Latents that are to be quantized are returned as they are before, and these and fixed ones with a deviation
        of 0. An axis that is not a multiple of ``compression`` loses its end or is refused (``compact``, ``haar``).
        """
        return self.gaussian(self.encoding().forward(x, self.checkpointing))

    def decode(
        self, z: Float[Tensor, "b c *latent"], mask: UInt8[Tensor, "b 1 *grid"] | None = None
    ) -> Float[Tensor, "b 1 *grid"]:
        """Return the images of latents, quantized where they shall be, in model units, float32, not clipped.

        Args:
            z: latents.
            mask: see ``told``.
        """
        return self.decoding().forward(self.told(z, mask), self.checkpointing).float()

    def told(
        self, z: Float[Tensor, "b c *latent"], mask: UInt8[Tensor, "b 1 *grid"] | None = None
    ) -> Float[Tensor, "b d *latent"]:
        """Return what ``decoding`` takes: the latents as they are, or ++ features of the mask.

        Args:
            z: latents.
            mask: in the codes of the decoder's label table; None where none is known, which is an empty one. A decoder
                that sees latents alone does not look at it.
        """
        if self.mask_stem is None:
            return z
        if mask is None:
            mask = z.new_zeros((len(z), 1, *(n * self.compression for n in z.shape[2:])), dtype=torch.uint8)
        return torch.cat([z, self.mask_stem(mask).to(z.dtype)], 1)

    def quantize(self, z: Float[Tensor, "b c *latent"]) -> Float[Tensor, "b c *latent"]:
        """Return the nearest code of each latent, or the latents as they are where there is no codebook."""
        return z if self.codebook is None else self.codebook.quantize(z)

    def gaussian(
        self, moments: Float[Tensor, "b c2 *latent"]
    ) -> tuple[Float[Tensor, "b c *latent"], Float[Tensor, "b c *latent"]]:
        """Return mean and standard deviation, float32, from what ``encoding`` gives."""
        if not self.is_gaussian:
            return moments.float(), torch.zeros_like(moments, dtype=torch.float32)
        mean, log_variance = moments.float().chunk(2, dim=1)
        return mean, torch.exp(0.5 * log_variance.clamp(*self.LOG_VARIANCE))


def build_autoencoder(settings: AutoencoderSettings, seed: int = 0, labels: LabelTable | None = None) -> Autoencoder:
    """Return a new autoencoder, its initial weights drawn from ``seed``.

    Args:
        settings: its kind and sizes.
        seed: of the run.
        labels: the label table of the masks, where ``settings.mask_features`` tells the decoder of them.
    """
    with named_weights(seed, "autoencoder"):
        autoencoder = _build(settings)
        if settings.mask_features is not None:
            # Built last, so that an encoder begins the same whatever its decoder is told.
            assert labels is not None, "a decoder that is told of masks needs their label table"
            sizes = (settings.compression, settings.spatial_dims, settings.mask_features)
            autoencoder.mask_stem = MaskStem(labels, *sizes)
    if settings.kind != "compact":
        return autoencoder
    layout = torch.channels_last_3d if settings.spatial_dims == 3 else torch.channels_last
    return autoencoder.to(memory_format=layout)  # pyright: ignore[reportCallIssue]


def _build(settings: AutoencoderSettings) -> Autoencoder:
    if settings.kind == "maisi":
        return MaisiAutoencoder(settings)
    if settings.kind == "vqgan":
        from cardiosynth.autoencoder.vqgan import VqganAutoencoder

        return VqganAutoencoder(settings)
    if settings.kind == "vqvae":
        from cardiosynth.autoencoder.vqvae import VqvaeAutoencoder

        return VqvaeAutoencoder(settings)
    if settings.is_fixed:
        from cardiosynth.autoencoder.fixed import FixedAutoencoder

        return FixedAutoencoder(settings)
    return CompactAutoencoder(settings)


# ---------------------------------------------------------------------------------------------------------------
# compact: every convolution works on space-to-depth blocks, so that none runs at full resolution; no normalization,
# so that a crop is encoded as it would be inside its volume.


class CompactAutoencoder(Autoencoder):
    """Space-to-depth autoencoder without normalization layers."""

    LOG_VARIANCE = (-20.0, 4.0)

    def __init__(self, settings: AutoencoderSettings):
        super().__init__(settings)
        dims = settings.spatial_dims
        channels, blocks = settings.channels, settings.num_res_blocks
        # Pixels are mixed 3 wide where they enter and leave; between levels 1 wide is enough, the blocks mix.
        kernels = (3,) + (1,) * (len(channels) - 1)
        finer = (1, *channels[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(convolution(dims, n * 2**dims, c, k), *(_Residual(dims, c) for _ in range(r)))
            for n, c, k, r in zip(finer, channels, kernels, blocks, strict=True)
        )
        self.to_latent = nn.Sequential(nn.SiLU(), convolution(dims, channels[-1], self.moment_channels, 1))
        self.from_latent = convolution(dims, self.decoder_channels, channels[-1], 3)
        self.up = nn.ModuleList(
            nn.Sequential(*(_Residual(dims, c) for _ in range(r)), nn.SiLU(), convolution(dims, c, n * 2**dims, k))
            for n, c, k, r in reversed(list(zip(finer, channels, kernels, blocks, strict=True)))
        )

    def encoding(self) -> Chain:
        """Return the layers from images to moments; the grid must be a multiple of ``compression``."""
        layers: list[Layer] = [Scale("to [-1, 1]", 2, -1)]
        for i, level in enumerate(self.down):
            layers += [SpaceToDepth(f"down.{i} (fold)"), *_described(level, f"down.{i}")]
        return Chain((*layers, *_described(self.to_latent, "to_latent")))

    def decoding(self) -> Chain:
        """Return the layers from latents to images."""
        layers: list[Layer] = [Convolve("from_latent", self.from_latent)]
        for i, level in enumerate(self.up):
            layers += [*_described(level, f"up.{i}"), DepthToSpace(f"up.{i} (unfold)")]
        return Chain((*layers, Scale("to [0, 1]", 0.5, 0.5)))


class _Residual(nn.Module):
    """x + two convolutions, the second zero at first, so that a deep norm-free net starts as the identity."""

    def __init__(self, dims: int, channels: int):
        super().__init__()
        self.first = convolution(dims, channels, channels, 3)
        self.second = convolution(dims, channels, channels, 3)
        nn.init.zeros_(self.second.weight)
        assert self.second.bias is not None
        nn.init.zeros_(self.second.bias)

    def layers(self, name: str) -> list[Layer]:
        """Return the block as layers."""
        first, second = Convolve(f"{name}.first", self.first), Convolve(f"{name}.second", self.second)
        return [Branch(name), Activate(f"{name} (SiLU)"), first, Activate(f"{name} (SiLU)"), second, Merge(name)]


def _described(level: nn.Module, name: str) -> list[Layer]:
    layers: list[Layer] = []
    for i, module in enumerate(level.children()):
        if isinstance(module, _Residual):
            layers += module.layers(f"{name}.{i}")
        elif isinstance(module, nn.SiLU):
            layers.append(Activate(f"{name}.{i}"))
        else:
            assert isinstance(module, nn.Conv2d | nn.Conv3d), module
            layers.append(Convolve(f"{name}.{i}", module))
    return layers


def convolution(dims: int, inputs: int, outputs: int, kernel: int) -> nn.Conv2d | nn.Conv3d:
    """Return a new convolution of two or three dimensions that keeps the grid; ``kernel`` is odd."""
    kind = nn.Conv3d if dims == 3 else nn.Conv2d
    return kind(inputs, outputs, kernel, padding=kernel // 2)


# ---------------------------------------------------------------------------------------------------------------
# maisi: the published network (Guo et al. 2024, MAISI), unchanged, behind the contract.


class MaisiAutoencoder(Autoencoder):
    """MONAI's AutoencoderKlMaisi, its layers computed by us. Its parameters are ours under ``PREFIX``."""

    PREFIX = "network."
    LOG_VARIANCE = (-30.0, 20.0)

    def __init__(self, settings: AutoencoderSettings):
        super().__init__(settings)
        from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi

        # Its forwards split, drop tails, copy to the CPU and normalize in float16; only its modules are used.
        self.network = AutoencoderKlMaisi(
            spatial_dims=3, in_channels=1, out_channels=1, latent_channels=settings.latent_channels,
            num_channels=settings.channels, num_res_blocks=settings.num_res_blocks,
            attention_levels=[False] * len(settings.channels), norm_num_groups=settings.norm_groups, norm_eps=1e-6,
        )  # fmt: skip

    def encoding(self) -> Chain:
        """Return the layers from images to moments; an axis that is not a multiple of 4 loses its end."""
        from cardiosynth.autoencoder.maisi import maisi_encoding

        return maisi_encoding(self.network)

    def decoding(self) -> Chain:
        """Return the layers from latents to images."""
        from cardiosynth.autoencoder.maisi import maisi_decoding

        return maisi_decoding(self.network)

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
