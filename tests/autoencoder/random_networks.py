"""Networks whose every parameter is drawn at random, so that nothing that starts at zero is hidden."""

import torch
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
from torch import nn

from cardiosynth.autoencoder.networks import Autoencoder, AutoencoderSettings, build_autoencoder

SMALL = AutoencoderSettings(kind="maisi", channels=(8, 16, 32), num_res_blocks=(1, 1, 1), norm_groups=4)
RELEASED = AutoencoderSettings(kind="maisi", channels=(64, 128, 256), num_res_blocks=(2, 2, 2), norm_groups=32)


def randomized(module: nn.Module, seed: int = 0):
    """Give every parameter a value: kernels that keep the variance, norms around one and biases around zero."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            drawn = torch.randn(parameter.shape, generator=rng)
            if parameter.ndim > 1:
                parameter.copy_(drawn * (2 / parameter[0].numel()) ** 0.5)
            else:
                parameter.copy_(0.3 * drawn + ("norm" in name and name.endswith("weight")))
    return module


def random_autoencoder(settings: AutoencoderSettings) -> Autoencoder:
    """Return one without gradients to its weights."""
    return randomized(build_autoencoder(settings)).eval().requires_grad_(False)


def monai_network(settings: AutoencoderSettings, **options) -> AutoencoderKlMaisi:
    """Return MONAI's class of the same layout, in one split and normalizing in float32."""
    return AutoencoderKlMaisi(
        spatial_dims=3, in_channels=1, out_channels=1, latent_channels=settings.latent_channels,
        num_channels=settings.channels, num_res_blocks=settings.num_res_blocks, norm_num_groups=settings.norm_groups,
        norm_eps=1e-6, **{"attention_levels": (False,) * 3, "num_splits": 1, "norm_float16": False} | options,
    )  # fmt: skip


def two_regions(shape, seed: int = 0, shift: float = 2.0) -> torch.Tensor:
    """Return noise whose second half along the longest axis is shifted, as soft tissue is beside air."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    axis = max(range(2, len(shape)), key=lambda i: shape[i])
    x.narrow(axis, shape[axis] // 2, shape[axis] - shape[axis] // 2).add_(shift)
    return x
