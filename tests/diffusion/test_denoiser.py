"""Parametrizations: every one of them stands for the same x0."""

import pytest
import torch
from monai.networks.schedulers.rectified_flow import RFlowScheduler

from cardiosynth.core.errors import InputError
from cardiosynth.core.random import generator
from cardiosynth.diffusion.denoiser import NetworkDenoiser, Prediction, diffuse, target, to_x0
from cardiosynth.diffusion.process import RectifiedFlow, VariancePreserving

KINDS: list[Prediction] = ["epsilon", "v", "x0", "flow", "reversed_flow"]
PAIRS = [(VariancePreserving(), kind) for kind in KINDS] + [(RectifiedFlow(), kind) for kind in KINDS[1:]]


def pair():
    rng = generator(0, "pair")
    x0, noise = (torch.randn(3, 2, 4, 4, 4, generator=rng, dtype=torch.float64) for _ in range(2))
    return x0, noise


@pytest.mark.parametrize(("process", "prediction"), PAIRS)
@pytest.mark.parametrize("time", [0.0, 0.4, 1.0])
def test_a_perfect_prediction_gives_back_the_data(process, prediction, time):
    x0, noise = pair()
    t = torch.tensor(time, dtype=torch.float64)
    alpha, sigma = process.alpha(t), process.sigma(t)
    perfect = target(prediction, x0, noise, alpha, sigma)
    found = to_x0(prediction, perfect, diffuse(x0, noise, alpha, sigma), alpha, sigma)
    torch.testing.assert_close(found, x0, atol=1e-10, rtol=0)


@pytest.mark.parametrize(("process", "prediction"), PAIRS)
def test_a_network_that_predicts_perfectly_is_the_oracle(process, prediction):
    x0, noise = pair()
    t = torch.tensor(0.7, dtype=torch.float64)
    alpha, sigma = process.alpha(t), process.sigma(t)
    seen = []

    def network(x, time, condition):
        seen.append((time.tolist(), condition))
        return target(prediction, x0, noise, alpha, sigma)

    denoiser = NetworkDenoiser(network, process, prediction)
    torch.testing.assert_close(denoiser(diffuse(x0, noise, alpha, sigma), t, "c"), x0, atol=1e-10, rtol=0)
    assert seen == [([0.7] * 3, "c")]


def test_targets_are_the_published_formulas():
    x0, noise = torch.tensor([2.0]), torch.tensor([3.0])
    alpha, sigma = torch.tensor(0.8), torch.tensor(0.6)
    assert [float(target(kind, x0, noise, alpha, sigma)) for kind in KINDS] == pytest.approx([3.0, 1.2, 2.0, 1.0, -1.0])


def test_reversed_flow_is_what_monai_trains_and_steps_with():
    """One whole step of MONAI's scheduler from pure noise, with the target as its network's output, is the data."""
    x0, noise = pair()
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    output = target("reversed_flow", x0, noise, zero, one)
    scheduler = RFlowScheduler(num_train_timesteps=1000, use_discrete_timesteps=False)
    scheduler.set_timesteps(1)
    theirs, _ = scheduler.step(output, 1000, noise, 0)
    torch.testing.assert_close(theirs, to_x0("reversed_flow", output, noise, zero, one), atol=1e-12, rtol=0)
    half = torch.full((), 0.5, dtype=torch.float64)
    noisy = scheduler.add_noise(x0, noise, torch.full((3,), 500.0))
    torch.testing.assert_close(noisy, diffuse(x0, noise, half, half), atol=1e-6, rtol=0)


def test_epsilon_is_refused_where_the_process_ends_in_pure_noise():
    with pytest.raises(InputError, match="choose prediction flow"):
        NetworkDenoiser(lambda x, t, c: x, RectifiedFlow(), "epsilon")


def test_x0_is_clamped_and_half_precision_networks_give_float32():
    denoiser = NetworkDenoiser(lambda x, t, c: (x * 100).bfloat16(), RectifiedFlow(), "x0", clamp=5.0)
    found = denoiser(torch.tensor([[-1.0, 0.01, 1.0]]), torch.tensor(0.5), None)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor([[-5.0, 1.0, 5.0]]), atol=0.01, rtol=0)


def test_the_first_step_of_a_schedule_survives_a_half_precision_network():
    """There 1 - alpha_bar is 0.0015; in bfloat16 alpha_bar is 1 and the noise would be taken for data."""
    process, t = VariancePreserving(), torch.tensor(0.001)
    assert 1 - process.alpha(t).square().bfloat16() == 0
    x0, noise = (value.float() for value in pair())
    x = diffuse(x0, noise, process.alpha(t), process.sigma(t))
    denoiser = NetworkDenoiser(lambda x, t, c: noise.bfloat16(), process, "epsilon")
    torch.testing.assert_close(denoiser(x, t, None), x0, atol=0.0015**0.5 * 2**-8 * float(noise.abs().max()), rtol=0)


def test_diffusing_in_half_precision_is_refused():
    half = torch.ones(2, 3).bfloat16()
    with pytest.raises(AssertionError, match="loses the first steps"):
        diffuse(half, half, torch.tensor(0.5), torch.tensor(0.5))
