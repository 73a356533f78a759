"""VQ-VAE's network: what PyTorch's own layers compute, whole and in slabs."""

import pytest
import torch
import torch.nn.functional as F

from cardiosynth.autoencoder.codebook import CodebookSettings
from cardiosynth.autoencoder.networks import AutoencoderSettings
from cardiosynth.autoencoder.streaming import decode, encode, plan_decode, plan_encode
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.training.cost import Meter

from .random_networks import random_autoencoder, two_regions

SLICES = AutoencoderSettings(
    kind="vqvae", spatial_dims=2, channels=(4, 8), num_res_blocks=(0, 2), codebook=CodebookSettings(codes=8)
)
VOLUMES = SLICES.model_copy(update={"spatial_dims": 3})


def measured(compute):
    with Meter() as meter, torch.no_grad():
        result = compute()
        return result, meter.take()


def close(found, expected):
    assert float(expected.std()) > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def blocks(x, modules):
    for block in modules:
        x = x + block.second(F.relu(block.first(F.relu(x))))
    return x


def test_it_computes_the_published_layers():
    made = random_autoencoder(SLICES)
    x = torch.rand((2, 1, 16, 12), generator=torch.Generator().manual_seed(0))
    h = F.relu(F.conv2d(2 * x - 1, made.down[0].weight, made.down[0].bias, stride=2, padding=1))
    h = F.relu(F.conv2d(h, made.down[1].weight, made.down[1].bias, stride=2, padding=1))
    z = made.to_latent(F.relu(blocks(made.mix(h), made.encoder_blocks)))
    close(made.encode(x)[0], z)
    h = F.relu(blocks(made.from_latent(z), made.decoder_blocks))
    h = F.relu(F.conv_transpose2d(h, made.up[0].weight, made.up[0].bias, stride=2, padding=1))
    h = F.conv_transpose2d(h, made.up[1].weight, made.up[1].bias, stride=2, padding=1)
    close(made.decode(z), (h + 1) / 2)


@pytest.mark.parametrize(("settings", "latent"), [(SLICES, (3, 61)), (VOLUMES, (21, 3, 4))])
def test_slabs_give_what_the_whole_gives_within_the_memory_planned(settings, latent):
    made, z = random_autoencoder(settings), two_regions((2, 4, *latent))
    x = two_regions((2, 1, *(4 * n for n in latent)))
    whole, cost = measured(lambda: made.decode(z.clone()))
    budget_gb = 0.6 * cost.peak_bytes / 1e9
    found, streamed = measured(lambda: decode(made, z.clone(), budget_gb))
    close(found, whole)
    plan = plan_decode(made, tuple(z.shape), budget_gb)
    assert (streamed.flops, cost.flops) == (plan.flops, plan.untiled_flops)
    assert streamed.peak_bytes <= 1.05e9 * budget_gb
    whole, cost = measured(lambda: made.encode(x.clone())[0])
    budget_gb = 0.6 * cost.peak_bytes / 1e9
    found, streamed = measured(lambda: encode(made, x.clone(), budget_gb)[0])
    close(found, whole)
    assert streamed.flops == plan_encode(made, tuple(x.shape), budget_gb).flops
    assert streamed.peak_bytes <= 1.05e9 * budget_gb


def test_residual_blocks_stand_at_latent_resolution_alone():
    with pytest.raises(InputError, match="last level"):
        parse_settings(AutoencoderSettings, {"kind": "vqvae", "channels": [8, 8], "num_res_blocks": [1, 1]}, "test")
