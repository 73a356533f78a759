"""The denoising networks: MAISI's U-Net, alone or told of a mask and a template."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pydantic
import torch
from jaxtyping import Float, Int
from monai.apps.generation.maisi.networks.controlnet_maisi import ControlNetMaisi
from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi
from torch import Tensor, nn

from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable
from cardiosynth.diffusion.adapter import Adapter
from cardiosynth.diffusion.control import Condition, ConditionSettings, num_channels
from cardiosynth.diffusion.spade import LabelModulation
from cardiosynth.diffusion.stem import build_stem, channels_last
from cardiosynth.diffusion.trunk import attend_fused, predict, residuals, time_embedding

ENTRY = "conv_in.conv.weight"
"""The U-Net's weights that read x and what is concatenated to it."""
TIMESTEPS = 1000
"""The networks read t in [0, 1] as MONAI's timesteps 0..1000."""
ACQUISITION_GAIN = 100.0
"""MAISI's networks learned spacing (mm) and region (one-hot) multiplied by this."""
REGIONS = ("head_neck", "chest", "abdomen", "lower_body")
"""MAISI's body regions, in the order of their one-hot code."""
CT = 1
"""MAISI's number of the modality CT."""


class Acquisition(NamedTuple):
    """How the volumes of a batch were acquired, for networks that are told of it.

    Attributes:
        spacing_mm: voxel size of the image.
        top_region: one-hot over ``REGIONS``: where the uppermost slice lies.
        bottom_region: one-hot over ``REGIONS``: where the lowermost slice lies.
        modality: MAISI's number.
    """

    spacing_mm: Float[Tensor, "b 3"]
    top_region: Float[Tensor, "b 4"]
    bottom_region: Float[Tensor, "b 4"]
    modality: Int[Tensor, "b"]


def chest_ct(spacing_mm: Float[Tensor, "b 3"]) -> Acquisition:
    """Return the acquisition of CT volumes of the chest, on the device of ``spacing_mm``."""
    region = torch.zeros((len(spacing_mm), len(REGIONS)), dtype=spacing_mm.dtype, device=spacing_mm.device)
    region[:, REGIONS.index("chest")] = 1
    modality = torch.full((len(spacing_mm),), CT, dtype=torch.long, device=spacing_mm.device)
    return Acquisition(spacing_mm, region, region, modality)


class DenoiserSettings(Settings):
    """Size of the U-Net (and of the ControlNet, which is like its encoder).

    Attributes:
        channels: per level. Published (MAISI) (64, 128, 256, 512).
        num_res_blocks: per level. Published 2.
        attention_levels: which levels have self-attention. Published the two lowest.
        num_head_channels: channels of an attention head. Published 32.
        norm_num_groups: groups of the group normalization. Published 32.
        resblock_updown: change resolution by residual blocks. Published (MAISI) ddpm-ct false, rflow-ct true.
        include_fc: end every attention with a linear layer. Published ddpm-ct false, rflow-ct true.
        spacing_input: tell the U-Net the voxel size. Published true, for both.
        region_input: tell the U-Net the body regions of the first and last slice. Published ddpm-ct true, rflow-ct
            false.
        num_modalities: size of the table of modalities that U-Net and ControlNet are told, 0 for none. Published
            ddpm-ct 0, rflow-ct 128.
        residual_leak: let the ControlNet's last residual enter the middle block as well, as MONAI does. Published
            true, by an addition in place; weights learned with it need it.
        timestep_offset: added to 1000 t before the network sees it. Published ddpm-ct -1: its steps are counted from
            0, and alpha_bar after step n is ours at t = (n + 1) / 1000; rflow-ct 0.
        checkpointing: compute each block again in the backward pass, which takes a third more time and far less
            memory. Changes no number.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    num_res_blocks: int = pydantic.Field(default=1, ge=1)
    attention_levels: tuple[bool, ...] = (False, False, True)
    num_head_channels: int = pydantic.Field(default=32, ge=1)
    norm_num_groups: int = pydantic.Field(default=16, ge=1)
    resblock_updown: bool = False
    include_fc: bool = True
    spacing_input: bool = False
    region_input: bool = False
    num_modalities: int = pydantic.Field(default=0, ge=0)
    residual_leak: bool = False
    timestep_offset: float = 0.0
    checkpointing: bool = False

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
    """A U-Net, told of a mask and a template through its input, a ControlNet, both, its decoder, its encoder, or not.

    Before training, a condition changes nothing: what is concatenated enters through zero weights, and the
    ControlNet's outputs, the decoder's modulations and the adapter's maps are zero.

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
        self.concatenated = 0
        if condition is not None and inject in ("concatenate", "both"):
            self.concatenated = num_channels(condition, labels) if condition.resized else condition.features
        self.controlled = denoiser.channels[0] if inject in ("control", "both") else 0
        self.denoiser = denoiser
        self.unet = _build_unet(latent_channels, self.concatenated, spatial_dims, denoiser)
        self.stem: nn.Module | None = None
        if condition is not None:
            heads = (condition.features if inject == "adapter" else self.concatenated, self.controlled)
            self.stem = build_stem(condition, labels, compression, spatial_dims, heads)
        self.control = _build_control(latent_channels, spatial_dims, denoiser) if self.controlled else None
        self.modulation: LabelModulation | None = None
        if condition is not None and inject == "spade":
            told = num_channels(condition, labels)
            self.modulation = LabelModulation(self.unet, spatial_dims, told, condition.features)
        self.adapter: Adapter | None = None
        if condition is not None and inject == "adapter":
            self.adapter = Adapter(spatial_dims, condition.features, denoiser.channels)
        for parameter in self.parameters():
            if parameter.ndim == spatial_dims + 2:
                parameter.data = self._laid_out(parameter.data)

    @property
    def needs_acquisition(self) -> bool:
        """Whether ``forward`` must be told how the volumes were acquired."""
        size = self.denoiser
        return size.spacing_input or size.region_input or size.num_modalities > 0

    def embed(self, condition: Condition) -> Float[Tensor, "b e *latent"]:
        """Return the embedding of a condition (Eq. 1), to be computed once per case.

        Args:
            condition: unfolded volumes at image resolution.

        Returns:
            Features to concatenate, followed by those for the ControlNet; for the decoder a resized label map; for the
            adapter its first features, from which it makes its small maps again at every call.
        """
        assert self.stem is not None, "an unconditional network has nothing to embed"
        return self.stem(condition)

    def forward(
        self,
        x: Float[Tensor, "b c *latent"],
        t: Float[Tensor, "b"],
        embedding: Float[Tensor, "b e *latent"] | None,
        acquisition: Acquisition | None = None,
    ) -> Float[Tensor, "b c *latent"]:
        """Return the network's prediction (epsilon, v, x0 or flow).

        Args:
            x: noisy latents.
            t: times in [0, 1].
            embedding: what ``embed`` returned; None for the unconditional network.
            acquisition: for networks that need it; others leave it out of account.
        """
        assert (self.stem is None) == (embedding is None), "embedding and network do not belong together"
        assert acquisition is not None or not self.needs_acquisition, "this network must be told the acquisition"
        timesteps, size = t * TIMESTEPS + self.denoiser.timestep_offset, self.denoiser
        modality = acquisition.modality if acquisition is not None else None
        seen, added, encoder, decoder = x, None, None, None
        if embedding is not None and self.concatenated:
            seen = torch.cat([x, embedding[:, : self.concatenated].to(x.dtype)], 1)
        if embedding is not None and self.control is not None:
            time = time_embedding(self.control, timesteps, x.dtype, modality)
            told = embedding[:, self.concatenated :]
            added = residuals(self.control, self._laid_out(x), time, told, size.checkpointing)
        if embedding is not None and self.modulation is not None:
            decoder = self.modulation.decoder(self.unet, self._laid_out(embedding.to(x.dtype)))
        if embedding is not None and self.adapter is not None:
            encoder = self.adapter.encoder(self.unet, self._laid_out(embedding.to(x.dtype)))
        time = time_embedding(self.unet, timesteps, x.dtype, modality)
        time = torch.cat([time, *self._acquisition_embeddings(acquisition)], 1)
        how = {"residual_leak": size.residual_leak, "checkpointing": size.checkpointing}
        return predict(self.unet, self._laid_out(seen), time, added, encoder=encoder, decoder=decoder, **how)

    def _acquisition_embeddings(self, acquisition: Acquisition | None) -> list[Float[Tensor, "b e"]]:
        """Return what the U-Net is told besides the time, in MAISI's order: top, bottom, spacing."""
        found = []
        if acquisition is not None and self.denoiser.region_input:
            found.append(self.unet.top_region_index_layer(ACQUISITION_GAIN * acquisition.top_region))
            found.append(self.unet.bottom_region_index_layer(ACQUISITION_GAIN * acquisition.bottom_region))
        if acquisition is not None and self.denoiser.spacing_input:
            found.append(self.unet.spacing_layer(ACQUISITION_GAIN * acquisition.spacing_mm))
        return found

    def _laid_out(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=channels_last(self.spatial_dims))


def _build_unet(
    latent_channels: int, concatenated: int, spatial_dims: int, denoiser: DenoiserSettings
) -> DiffusionModelUNetMaisi:
    """Return a U-Net that reads what is concatenated through zero weights at first."""
    unet = DiffusionModelUNetMaisi(
        in_channels=latent_channels + concatenated, out_channels=latent_channels,
        include_top_region_index_input=denoiser.region_input, include_bottom_region_index_input=denoiser.region_input,
        include_spacing_input=denoiser.spacing_input, **_trunk(spatial_dims, denoiser),
    )  # fmt: skip
    with torch.no_grad():
        unet.get_parameter(ENTRY)[:, latent_channels:] = 0
    attend_fused(unet)
    return unet


def _build_control(latent_channels: int, spatial_dims: int, denoiser: DenoiserSettings) -> ControlNetMaisi:
    """Return a ControlNet without a stem of its own, which would be computed again at every step."""
    control = ControlNetMaisi(
        in_channels=latent_channels, conditioning_embedding_num_channels=(1, 1), **_trunk(spatial_dims, denoiser)
    )
    control.register_module("controlnet_cond_embedding", nn.Identity())
    attend_fused(control)
    return control


def _trunk(spatial_dims: int, denoiser: DenoiserSettings) -> dict[str, Any]:
    """Return what U-Net and ControlNet have in common."""
    return {
        "spatial_dims": spatial_dims, "num_channels": denoiser.channels, "num_res_blocks": denoiser.num_res_blocks,
        "attention_levels": denoiser.attention_levels, "num_head_channels": denoiser.num_head_channels,
        "norm_num_groups": denoiser.norm_num_groups, "resblock_updown": denoiser.resblock_updown,
        "include_fc": denoiser.include_fc, "num_class_embeds": denoiser.num_modalities or None,
    }  # fmt: skip


def inherit(module: TemplateUNet, unconditional: Mapping[str, Tensor], origin: Path) -> list[str]:
    """Start a conditional network from the weights of an unconditional one.

    The U-Net takes them all; its weights for concatenated features stay zero. The ControlNet starts as a copy of
    the encoder (Zhang et al., 2023), so both begin as the unconditional network. It is told no spacing and no region,
    so that its layers which read the time's embedding are narrower where the U-Net is told them: these stay as
    initialized, and so does what the U-Net does not have.

    Returns:
        Names of the ControlNet's tensors that the U-Net has in another shape; empty where the copy is whole.

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
    return [] if module.control is None else _inherit_control(module.control, given, module.latent_channels)


def _inherit_control(control: ControlNetMaisi, given: Mapping[str, Tensor], latent_channels: int) -> list[str]:
    copied = control.state_dict()
    shared = {name: given[name] for name in copied if name in given}
    shared[ENTRY] = shared[ENTRY][:, :latent_channels]
    other = [name for name, value in shared.items() if value.shape != copied[name].shape]
    control.load_state_dict({**copied, **{name: value for name, value in shared.items() if name not in other}})
    return other
