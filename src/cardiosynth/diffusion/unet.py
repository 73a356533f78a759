"""The denoising networks: MONAI's diffusion U-Net, alone or told of a mask and a template."""

from collections.abc import Mapping
from pathlib import Path

import pydantic
import torch
from jaxtyping import Float
from monai.networks.nets.controlnet import ControlNet
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
from torch import Tensor, nn

from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable
from cardiosynth.diffusion.control import Condition, ConditionSettings
from cardiosynth.diffusion.stem import build_stem, channels_last

ENTRY = "conv_in.conv.weight"
"""The U-Net's weights that read x and what is concatenated to it."""
TIMESTEPS = 1000
"""The networks read t in [0, 1] as MONAI's timesteps 0..1000."""


class DenoiserSettings(Settings):
    """Size of the U-Net (and of the ControlNet, which is like its encoder).

    Attributes:
        channels: per level. Published (MAISI) (64, 128, 256, 512).
        num_res_blocks: per level. Published 2.
        attention_levels: which levels have self-attention. Published the two lowest.
        num_head_channels: channels of an attention head. Published 32.
        norm_num_groups: groups of the group normalization. Published 32.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    num_res_blocks: int = pydantic.Field(default=1, ge=1)
    attention_levels: tuple[bool, ...] = (False, False, True)
    num_head_channels: int = pydantic.Field(default=32, ge=1)
    norm_num_groups: int = pydantic.Field(default=16, ge=1)

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "DenoiserSettings":
        if len(self.channels) != len(self.attention_levels):
            raise ValueError(f"{len(self.channels)} channels need as many attention_levels")
        if any(c % self.norm_num_groups for c in self.channels):
            raise ValueError(f"channels {self.channels} must be multiples of norm_num_groups {self.norm_num_groups}")
        # The middle block has attention whatever the levels have.
        attended = [c for c, on in zip(self.channels, self.attention_levels, strict=True) if on] + [self.channels[-1]]
        if any(c % self.num_head_channels for c in attended):
            raise ValueError(f"channels with attention must be multiples of num_head_channels {self.num_head_channels}")
        return self

    @property
    def multiple(self) -> int:
        """What every side of a latent must be a multiple of, so that the levels meet again."""
        return 2 ** (len(self.channels) - 1)


class TemplateUNet(nn.Module):
    """A U-Net, told of a mask and a template through its input, through a ControlNet, both, or not at all.

    Before training, a condition changes nothing: what is concatenated enters through zero weights, and the
    ControlNet's outputs are zero.

    Args:
        latent_channels: channels of x.
        compression: image voxels per latent voxel along each axis.
        spatial_dims: 2 or 3.
        denoiser: size of the networks.
        condition: what it is told, or None for the unconditional U-Net of the first stage.
        labels: the label table of the masks.
    """

    def __init__(
        self,
        latent_channels: int,
        compression: int,
        spatial_dims: int,
        denoiser: DenoiserSettings,
        condition: ConditionSettings | None,
        labels: LabelTable,
    ):
        super().__init__()
        self.spatial_dims, self.latent_channels = spatial_dims, latent_channels
        self.condition, self.labels = condition, labels
        inject = condition.inject if condition else None
        self.concatenated = condition.features if condition and inject in ("concatenate", "both") else 0
        self.controlled = denoiser.channels[0] if inject in ("control", "both") else 0
        sizes = {
            "spatial_dims": spatial_dims, "channels": denoiser.channels, "num_res_blocks": denoiser.num_res_blocks,
            "attention_levels": denoiser.attention_levels, "num_head_channels": denoiser.num_head_channels,
            "norm_num_groups": denoiser.norm_num_groups,
        }  # fmt: skip
        self.unet = DiffusionModelUNet(
            in_channels=latent_channels + self.concatenated, out_channels=latent_channels, **sizes
        )
        with torch.no_grad():
            self.unet.get_parameter(ENTRY)[:, latent_channels:] = 0
        self.stem: nn.Module | None = None
        if condition is not None:
            heads = (self.concatenated, self.controlled)
            self.stem = build_stem(condition, labels, compression, spatial_dims, heads)
        self.control: ControlNet | None = None
        if self.controlled:
            self.control = ControlNet(in_channels=latent_channels, conditioning_embedding_num_channels=(1, 1), **sizes)
            # Its own stem would be computed again at every step.
            self.control.register_module("controlnet_cond_embedding", nn.Identity())
        for parameter in self.parameters():
            if parameter.ndim == spatial_dims + 2:
                parameter.data = self._laid_out(parameter.data)

    def embed(self, condition: Condition) -> Float[Tensor, "b e *latent"]:
        """Return the embedding of a condition (Eq. 1), to be computed once per case.

        Args:
            condition: unfolded volumes at image resolution.

        Returns:
            Features to concatenate, followed by those for the ControlNet.
        """
        assert self.stem is not None, "an unconditional network has nothing to embed"
        return self.stem(condition)

    def forward(
        self, x: Float[Tensor, "b c *latent"], t: Float[Tensor, "b"], embedding: Float[Tensor, "b e *latent"] | None
    ) -> Float[Tensor, "b c *latent"]:
        """Return the network's prediction (epsilon, v, x0 or flow).

        Args:
            x: noisy latents.
            t: times in [0, 1].
            embedding: what ``embed`` returned; None for the unconditional network.
        """
        timesteps, seen = t * TIMESTEPS, x
        assert (self.stem is None) == (embedding is None), "embedding and network do not belong together"
        if embedding is None:
            return self.unet(self._laid_out(x), timesteps)
        if self.concatenated:
            seen = torch.cat([x, embedding[:, : self.concatenated].to(x.dtype)], 1)
        if self.control is None:
            return self.unet(self._laid_out(seen), timesteps)
        down, middle = self.control(self._laid_out(x), timesteps, embedding[:, self.concatenated :])
        return self.unet(
            self._laid_out(seen),
            timesteps,
            down_block_additional_residuals=tuple(down),
            mid_block_additional_residual=middle,
        )

    def _laid_out(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=channels_last(self.spatial_dims))


def inherit(module: TemplateUNet, unconditional: Mapping[str, Tensor], origin: Path) -> None:
    """Start a conditional network from the weights of an unconditional one.

    The U-Net takes them all; its weights for concatenated features stay zero. The ControlNet starts as a copy of
    the encoder (Zhang et al., 2023), so both begin as the unconditional network.

    Raises:
        InputError: naming ``origin``, where the weights belong to a network of another size.
    """
    given = {name.removeprefix("unet."): value for name, value in unconditional.items()}
    own = module.unet.state_dict()
    if given.keys() != own.keys() or given[ENTRY].shape[1] != module.latent_channels:
        raise InputError(f"{origin} holds the weights of another network; use its denoiser settings.")
    wider = own[ENTRY].clone()
    wider[:, : module.latent_channels] = given[ENTRY]
    given = {**given, ENTRY: wider}
    if any(given[name].shape != own[name].shape for name in own):
        raise InputError(f"{origin} holds a U-Net of another size; use its denoiser settings.")
    module.unet.load_state_dict(given)
    if module.control is not None:
        copied = module.control.state_dict()
        for name in copied.keys() & given.keys():
            copied[name] = given[name][:, : module.latent_channels] if name == ENTRY else given[name]
        module.control.load_state_dict(copied)
