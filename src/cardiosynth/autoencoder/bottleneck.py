"""The Kullback-Leibler bottleneck: latents are Gaussians, drawn by reparametrization (Kingma & Welling 2014)."""

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST_STD = 1e-10
"""Keeps the logarithm finite; far below the exp(-10) that an encoder can say."""


def kl_divergence(mean: Float[Tensor, "b c *latent"], std: Float[Tensor, "b c *latent"]) -> Float[Tensor, ""]:
    """Return the divergence of N(mean, std^2) from N(0, 1), averaged over latent values, in nats per value.

    1/2 (mean^2 + std^2 - 1 - log std^2). MAISI sums over a volume's values instead, so that a weight published
    there is ours times the number of values.
    """
    log_std = torch.log(std.clamp_min(SMALLEST_STD))
    return (0.5 * (mean**2 + std**2 - 1) - log_std).mean()


def sample(
    mean: Float[Tensor, "b c *latent"], std: Float[Tensor, "b c *latent"], noise: Float[Tensor, "b c *latent"]
) -> Float[Tensor, "b c *latent"]:
    """Return mean + std * noise, a draw of the latent for standard normal ``noise``."""
    return mean + std * noise
