"""MAISI's networks twice, with the same random parameters: ours, and MONAI's classes as MAISI's scripts use them."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
from monai.apps.generation.maisi.networks.controlnet_maisi import ControlNetMaisi
from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi
from torch import Tensor, nn

from cardiosynth.autoencoder.networks import AutoencoderSettings, MaisiAutoencoder, build_autoencoder
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.diffusion.control import Condition, raw_condition
from cardiosynth.diffusion.layouts import DDPM_CT
from cardiosynth.diffusion.unet import ACQUISITION_GAIN, TIMESTEPS, TemplateUNet, chest_ct

AUTOENCODER = AutoencoderSettings(kind="maisi", channels=(64, 128, 256), num_res_blocks=(2, 2, 2))
SPACING_MM = (0.4, 0.4, 0.5)


class Sizes(NamedTuple):
    """Widths of the networks: the released ones, or small ones for a test of the benchmark itself."""

    autoencoder: AutoencoderSettings = AUTOENCODER
    denoiser: Any = DDPM_CT.denoiser


TOY = Sizes(
    AUTOENCODER.model_copy(update={"channels": (8, 8, 16), "num_res_blocks": (1, 1, 1), "norm_groups": 4}),
    DDPM_CT.denoiser.model_copy(
        update={"channels": (8, 16, 16, 32), "norm_num_groups": 4, "num_head_channels": 8, "num_res_blocks": 1}
    ),
)


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter at random, those that start at zero included, so that signals keep their size."""
    rng = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
        drawn = torch.randn(parameter.shape, generator=rng) * fan_in**-0.5
        is_scale = parameter.ndim == 1 and name.endswith("weight")
        parameter.data.copy_(drawn + 1 if is_scale else drawn)
    return module.eval()


def our_denoiser(sizes: Sizes) -> TemplateUNet:
    """Return our conditional U-Net with ControlNet and stem."""
    codec = sizes.autoencoder
    network = TemplateUNet(codec.latent_channels, codec.compression, 3, sizes.denoiser, DDPM_CT.condition, CARDIAC_CT)
    randomize(network)
    return network


def our_autoencoder(sizes: Sizes) -> MaisiAutoencoder:
    """Return our autoencoder."""
    autoencoder = build_autoencoder(sizes.autoencoder)
    assert isinstance(autoencoder, MaisiAutoencoder)
    randomize(autoencoder, 1)
    return autoencoder


class Reference(nn.Module):
    """MONAI's U-Net and ControlNet with the weights of ours; the stem runs in every call."""

    def __init__(self, ours: TemplateUNet):
        super().__init__()
        size = ours.denoiser
        trunk = {
            "spatial_dims": 3, "in_channels": ours.latent_channels, "num_channels": size.channels,
            "num_res_blocks": size.num_res_blocks, "attention_levels": size.attention_levels,
            "num_head_channels": size.num_head_channels, "norm_num_groups": size.norm_num_groups,
        }  # fmt: skip
        self.unet = DiffusionModelUNetMaisi(
            out_channels=ours.latent_channels, include_top_region_index_input=True,
            include_bottom_region_index_input=True, include_spacing_input=True, **trunk,
        )  # fmt: skip
        self.unet.load_state_dict(ours.unet.state_dict())
        self.control = ControlNetMaisi(
            conditioning_embedding_in_channels=17, conditioning_embedding_num_channels=(8, 32, 64), **trunk
        )
        assert ours.control is not None
        assert ours.stem is not None
        stem = {f"controlnet_cond_embedding.{name.removeprefix('embedding.')}": value
                for name, value in ours.stem.state_dict().items()}  # fmt: skip
        self.control.load_state_dict({**ours.control.state_dict(), **stem})
        self.offset = size.timestep_offset

    def forward(self, x: Tensor, t: Tensor, raw: Tensor) -> Tensor:
        """Return the prediction, as MAISI's inference script computes it."""
        timesteps = t * TIMESTEPS + self.offset
        down, middle = self.control(x, timesteps, raw)
        told = chest_ct(torch.tensor([SPACING_MM] * len(x), device=x.device))
        return self.unet(
            x,
            timesteps,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            top_region_index_tensor=ACQUISITION_GAIN * told.top_region,
            bottom_region_index_tensor=ACQUISITION_GAIN * told.bottom_region,
            spacing_tensor=ACQUISITION_GAIN * told.spacing_mm,
        )


def reference_autoencoder(ours: MaisiAutoencoder, sizes: Sizes, *, num_splits: int, norm_float16: bool) -> nn.Module:
    """Return MONAI's autoencoder with the weights of ours."""
    codec = sizes.autoencoder
    network = AutoencoderKlMaisi(
        spatial_dims=3, in_channels=1, out_channels=1, latent_channels=codec.latent_channels,
        num_channels=codec.channels, num_res_blocks=codec.num_res_blocks, attention_levels=[False] * 3,
        norm_num_groups=codec.norm_groups, norm_eps=1e-6, num_splits=num_splits, norm_float16=norm_float16,
        save_mem=norm_float16,
    )  # fmt: skip
    network.load_state_dict(ours.released())
    return network.eval()


def random_condition(grid: tuple[int, ...], device: str = "cpu") -> Condition:
    """Return masks of blocks and a template of noise."""
    rng = torch.Generator().manual_seed(2)
    codes = torch.tensor([0, *CARDIAC_CT.codes], dtype=torch.uint8)
    coarse = [codes[torch.randint(len(codes), [n // 8 for n in grid], generator=rng)] for _ in range(2)]
    masks = [
        mask.repeat_interleave(8, 0).repeat_interleave(8, 1).repeat_interleave(8, 2)[None, None] for mask in coarse
    ]
    image = torch.rand((1, 1, *grid), generator=rng)
    return Condition(*(x.to(device) for x in (*masks, image, torch.rand(1, 256, generator=rng))))


def raw(condition: Condition) -> Tensor:
    """Return the 17 channels that MONAI's ControlNet takes."""
    return raw_condition(condition, DDPM_CT.condition, CARDIAC_CT)


def denoised(predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Return the noise after ``steps`` equal steps against the prediction, in float32."""
    x = noise
    for t in _times(steps):
        x = x - predict(x, torch.full((len(x),), t, device=x.device)).float() / steps
    return x


def _times(steps: int) -> Iterator[float]:
    return (1 - step / steps for step in range(steps))
