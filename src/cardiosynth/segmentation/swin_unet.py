"""Swin-UNet (Cao et al. 2021): a U-shape of shifted-window attention alone, for slices.

MONAI has its blocks and not the network. It is put together here from the paper: patches of 4 x 4 pixels, stages of
Swin blocks with merging of patches between them, the mirror image of that with expanding of patches, skips that are
concatenated and brought back to their width, and a last expansion to pixels. It has as many parameters as published.
"""

from collections.abc import Callable

import pydantic
import torch
from einops import rearrange
from jaxtyping import Float
from monai.networks.nets.swin_unetr import BasicLayer, PatchMerging
from torch import Tensor, nn

from cardiosynth.core.config import Settings

INPUT_CHANNELS = 3
"""As published, where weights of photographs are the start: a gray image is taken three times."""
INITIAL_DEVIATION = 0.02
"""Standard deviation of the initial weights of linear layers (Swin)."""


class SwinUNetSettings(Settings):
    """Size of a Swin-UNet. The defaults are published.

    Attributes:
        features: per patch at the finest level; doubled from level to level.
        depths: attention blocks per level, finest first; every other one has its windows shifted.
        heads: attention heads per level.
        window: patches along a side of an attention window; where a level has fewer, the window is the whole level.
        patch: pixels along a side of a patch.
        drop_path: share of blocks that are left out in training, at the deepest block; it rises linearly to there.
    """

    features: int = pydantic.Field(default=96, ge=1)
    depths: tuple[pydantic.PositiveInt, ...] = (2, 2, 2, 2)
    heads: tuple[pydantic.PositiveInt, ...] = (3, 6, 12, 24)
    window: int = pydantic.Field(default=7, ge=2)
    patch: int = pydantic.Field(default=4, ge=1)
    drop_path: float = pydantic.Field(default=0.2, ge=0, lt=1)

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "SwinUNetSettings":
        if len(self.depths) < 2 or len(self.heads) != len(self.depths):
            raise ValueError(f"{len(self.depths)} depths need as many heads, and at least two of each")
        for width, heads in zip(self.widths, self.heads, strict=True):
            if width % heads:
                raise ValueError(f"{width} features cannot be shared by {heads} heads; change features or heads")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Features per level."""
        return tuple(self.features * 2**level for level in range(len(self.depths)))

    @property
    def multiple(self) -> int:
        """Pixels per axis that the network takes are multiples of this."""
        return self.patch * 2 ** (len(self.depths) - 1)


def _channels_last(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return rearrange(layer(rearrange(x, "b c h w -> b h w c")), "b h w c -> b c h w")


class PatchExpand(nn.Module):
    """Every patch becomes ``factor`` x ``factor`` patches of ``wanted`` features: the opposite of merging.

    Args:
        width: features of a patch.
        factor: patches along a side of what becomes of one.
        wanted: features of each of them.
    """

    def __init__(self, width: int, factor: int, wanted: int):
        super().__init__()
        self.factor = factor
        self.expand = nn.Linear(width, factor**2 * wanted, bias=False)
        self.norm = nn.LayerNorm(wanted)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d hp wq"]:
        """Return the finer patches."""
        patches = self.expand(rearrange(x, "b c h w -> b h w c"))
        finer = rearrange(patches, "b h w (p q d) -> b (h p) (w q) d", p=self.factor, q=self.factor)
        return rearrange(self.norm(finer), "b h w d -> b d h w")


class SwinUNet(nn.Module):
    """Slices (b 1 x y) -> logits (b classes x y); both axes are multiples of ``settings.multiple``.

    Args:
        num_classes: of the output, the background among them.
        settings: its size.
        dropout: share of features dropped in training, within the blocks.
    """

    def __init__(self, num_classes: int, settings: SwinUNetSettings, dropout: float = 0.0):
        super().__init__()
        widths, patch = settings.widths, settings.patch
        self.embed = nn.Conv2d(INPUT_CHANNELS, widths[0], patch, patch)
        self.embed_norm = nn.LayerNorm(widths[0])
        self.encoder = nn.ModuleList(_stages(settings, dropout))
        self.merge = nn.ModuleList(PatchMerging(width, spatial_dims=2) for width in widths[:-1])
        self.deepest_norm = nn.LayerNorm(widths[-1])
        self.expand = nn.ModuleList(PatchExpand(2 * width, 2, width) for width in widths[-2::-1])
        self.narrow = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for width in widths[-2::-1])
        self.decoder = nn.ModuleList(_stages(settings, dropout)[-2::-1])
        self.finest_norm = nn.LayerNorm(widths[0])
        self.to_pixels = PatchExpand(widths[0], patch, widths[0])
        self.head = nn.Conv2d(widths[0], num_classes, 1, bias=False)
        self.apply(_start)

    def forward(self, x: Float[Tensor, "b 1 x y"]) -> Float[Tensor, "b classes x y"]:
        """Return the logits."""
        x = _channels_last(self.embed_norm, self.embed(x.expand(-1, INPUT_CHANNELS, -1, -1)))
        skips = []
        for level, stage in enumerate(self.encoder):
            x = stage(x)
            if level < len(self.merge):
                skips.append(x)
                x = _channels_last(self.merge[level], x)
        x = _channels_last(self.deepest_norm, x)
        for expand, narrow, stage in zip(self.expand, self.narrow, self.decoder, strict=True):
            x = stage(narrow(torch.cat([expand(x), skips.pop()], dim=1)))
        return self.head(self.to_pixels(_channels_last(self.finest_norm, x)))


def _stages(settings: SwinUNetSettings, dropout: float) -> list[BasicLayer]:
    """Return the attention stages of every level, finest first."""
    blocks, stages, before = sum(settings.depths), [], 0
    for width, depth, heads in zip(settings.widths, settings.depths, settings.heads, strict=True):
        rates = [settings.drop_path * (before + i) / max(1, blocks - 1) for i in range(depth)]
        before += depth
        window = (settings.window, settings.window)
        stages.append(BasicLayer(width, depth, heads, window, rates, qkv_bias=True, drop=dropout))
    return stages


def _start(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=INITIAL_DEVIATION)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
