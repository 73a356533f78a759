import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as reference

from cardiosynth.autoencoder.bottleneck import kl_divergence, sample


def test_a_standard_normal_costs_nothing():
    assert float(kl_divergence(torch.zeros(1, 2, 3, 3), torch.ones(1, 2, 3, 3))) == 0


def test_the_divergence_is_the_closed_form():
    rng = torch.Generator().manual_seed(0)
    mean = torch.randn((2, 4, 3, 3, 3), generator=rng)
    std = torch.rand((2, 4, 3, 3, 3), generator=rng) + 0.1
    expected = reference(Normal(mean, std), Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(kl_divergence(mean, std), expected)


def test_draws_have_the_mean_and_the_spread_asked_for():
    noise = torch.randn((1, 1, 100, 1000), generator=torch.Generator().manual_seed(0))
    z = sample(torch.full_like(noise, 3.0), torch.full_like(noise, 0.5), noise)
    assert abs(float(z.mean()) - 3.0) < 0.01
    assert abs(float(z.std()) - 0.5) < 0.01
