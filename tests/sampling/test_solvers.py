"""Solvers against exact solutions: a Gaussian mixture in one dimension, whose flow keeps every quantile."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from monai.networks.schedulers.ddpm import DDPMScheduler
from monai.networks.schedulers.rectified_flow import RFlowScheduler

from cardiosynth.core.random import generator
from cardiosynth.diffusion.denoiser import NetworkDenoiser, target
from cardiosynth.diffusion.process import Cosine, RectifiedFlow, VariancePreserving, time_at_angle, times
from cardiosynth.sampling.solvers import ddim, ddpm_ancestral, dpm_solver_pp_2m, euler, heun

from .oracles import gaussian, gaussian_chain, mixture

DATA = mixture((0.3, -1.0, 0.5), (0.7, 0.8, 0.7))
PROCESSES = [VariancePreserving(), RectifiedFlow(), Cosine()]
ORDERS = [(ddim, 1), (euler, 1), (heun, 2), (dpm_solver_pp_2m, 2)]


def slope(solver, process, grid, counts):
    """Order of convergence: minus the slope of log error over log steps, least squares."""
    x = torch.tensor([[-1.5, -0.4, 0.3, 1.2]], dtype=torch.float64)
    errors = []
    for count in counts:
        points = grid(count)
        found = solver(DATA.denoiser(process), process, points, x, None)
        errors.append((found - DATA.flowed(process, points[0], points[-1], x)).abs().max().log())
    logs = torch.tensor(counts, dtype=torch.float64).log()
    return -float(((logs - logs.mean()) * torch.stack(errors)).sum() / (logs - logs.mean()).square().sum())


@pytest.mark.parametrize("process", PROCESSES, ids=["vp", "flow", "cosine"])
@pytest.mark.parametrize(("solver", "order"), ORDERS)
def test_order_on_an_inner_interval(solver, order, process):
    def grid(count):
        return time_at_angle(process, torch.linspace(1.3, 0.4, count + 1, dtype=torch.float64))

    assert abs(slope(solver, process, grid, [16, 32, 64]) - order) < 0.2


@pytest.mark.parametrize("process", PROCESSES, ids=["vp", "flow", "cosine"])
@pytest.mark.parametrize(("solver", "order"), ORDERS[:3])
def test_order_from_noise_to_data(solver, order, process):
    def grid(count):
        return times(count, "angle", process)

    assert abs(slope(solver, process, grid, [16, 32, 64]) - order) < 0.2


@pytest.mark.parametrize(("solver", "order"), ORDERS[:3])
def test_order_of_flow_in_equal_steps_of_time(solver, order):
    process = RectifiedFlow()
    assert abs(slope(solver, process, lambda count: times(count, "time", process), [16, 32, 64]) - order) < 0.2


@pytest.mark.parametrize("process", PROCESSES, ids=["vp", "flow", "cosine"])
def test_multistep_from_noise_to_data_beats_first_order_and_heun_at_equal_calls(process):
    x = torch.tensor([[-1.5, -0.4, 0.3, 1.2]], dtype=torch.float64)

    def error(solver, count):
        points = times(count, "angle", process)
        found = solver(DATA.denoiser(process), process, points, x, None)
        return float((found - DATA.flowed(process, points[0], points[-1], x)).abs().max())

    assert error(dpm_solver_pp_2m, 20) < 0.5 * error(heun, 10) < error(ddim, 20)
    assert slope(dpm_solver_pp_2m, process, lambda n: times(n, "angle", process), [16, 32, 64]) > 1.2


@pytest.mark.parametrize("process", PROCESSES, ids=["vp", "flow", "cosine"])
@pytest.mark.parametrize("solver", [ddim, euler, heun, dpm_solver_pp_2m])
def test_a_single_datum_is_reached_in_any_number_of_steps(solver, process):
    datum = torch.tensor([[0.3, -2.0, 1.1]], dtype=torch.float64)
    x = torch.randn(1, 3, generator=generator(0, "start"), dtype=torch.float64)
    for count in (1, 2, 7):
        found = solver(lambda x, t, c: datum.expand_as(x), process, times(count, "time", process), x, None)
        torch.testing.assert_close(found, datum, atol=1e-12, rtol=0)


def test_heun_is_exact_for_a_single_datum_at_every_time():
    process, datum = VariancePreserving(), torch.full((1, 1), 0.7, dtype=torch.float64)
    noise = torch.full((1, 1), -1.3, dtype=torch.float64)
    points = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)
    at = [process.alpha(t) * datum + process.sigma(t) * noise for t in points]
    torch.testing.assert_close(heun(lambda x, t, c: datum, process, points, at[0], None), at[-1], atol=1e-12, rtol=0)


@pytest.mark.parametrize("process", PROCESSES, ids=["vp", "flow", "cosine"])
def test_euler_on_the_straight_flow_is_ddim(process):
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[None]
    points = times(9, "time", process)
    found = [solver(DATA.denoiser(process), process, points, x, None) for solver in (euler, ddim)]
    torch.testing.assert_close(found[0], found[1], atol=1e-12, rtol=0)


@pytest.mark.parametrize("process", PROCESSES, ids=["vp", "flow", "cosine"])
@pytest.mark.parametrize("solver", [ddim, euler, heun, dpm_solver_pp_2m])
def test_float32_stays_float32_and_finite_at_both_ends(solver, process):
    x = torch.randn(2, 5, generator=generator(0, "start"))
    found = solver(lambda x, t, c: x * 0.5, process, times(5, "time", process), x, None)
    assert found.dtype == torch.float32
    assert found.isfinite().all()


@pytest.mark.parametrize("solver", [ddim, euler, heun, dpm_solver_pp_2m])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_states_in_half_precision_are_refused(solver, dtype):
    process = VariancePreserving()
    with pytest.raises(AssertionError, match="loses the first steps"):
        solver(lambda x, t, c: x, process, times(2, "time", process), torch.ones(1, 3, dtype=dtype), None)


@pytest.mark.parametrize(("process", "prediction"), [(VariancePreserving(), "epsilon"), (RectifiedFlow(), "flow")])
@pytest.mark.parametrize("solver", [ddim, euler, heun, dpm_solver_pp_2m])
def test_a_bfloat16_network_costs_its_own_rounding_alone(solver, process, prediction):
    """The last of 60 steps adds less than bfloat16 could resolve of the state; it rounds each prediction by 2^-9."""
    x = torch.linspace(-2, 2, 41)[None]
    oracle, seen = DATA.denoiser(process), []

    def network(state, t, condition, rounded=True):
        seen.append((state.dtype, t.dtype))
        time = t[0].double()
        alpha, sigma = process.alpha(time), process.sigma(time)
        x0 = oracle(state.double(), time, None)
        output = target(prediction, x0, (state.double() - alpha * x0) / sigma, alpha, sigma)
        return output.bfloat16() if rounded else output

    points = times(60, "auto", process)
    rough = solver(NetworkDenoiser(network, process, prediction), process, points, x, None)
    fine = solver(NetworkDenoiser(partial(network, rounded=False), process, prediction), process, points, x, None)
    assert rough.dtype == torch.float32
    assert set(seen) == {(torch.float32, torch.float32)}
    assert float((rough - fine).abs().mean()) < 2**-8 * float(fine.abs().mean())


@pytest.mark.parametrize("process", PROCESSES, ids=["vp", "flow", "cosine"])
@pytest.mark.parametrize("count", [3, 20])
def test_ancestral_mean_and_variance_in_closed_form(process, count):
    size, points = 100_000, times(count, "time", process)
    x = torch.randn(size, 1, generator=generator(0, "start"), dtype=torch.float64)
    found = ddpm_ancestral(
        gaussian(0.4, 0.6).denoiser(process), process, points, x, None, rng=generator(0, "ancestral")
    )
    mean, variance = gaussian_chain(process, points, 0.4, 0.6)
    assert abs(float(found.mean()) - mean) < 5 * math.sqrt(variance / size)
    assert abs(float(found.var()) - variance) < 5 * variance * math.sqrt(2 / size)


@pytest.mark.parametrize("process", PROCESSES, ids=["vp", "flow", "cosine"])
def test_ancestral_of_a_single_datum_has_the_forward_marginal_at_every_time(process):
    points = torch.tensor([1.0, 0.7, 0.25], dtype=torch.float64)
    size, datum = 100_000, 1.7
    start = float(process.alpha(points[0])) * datum
    x = start + float(process.sigma(points[0])) * torch.randn(
        size, 1, generator=generator(0, "start"), dtype=torch.float64
    )
    found = ddpm_ancestral(
        lambda x, t, c: torch.full_like(x, datum), process, points, x, None, rng=generator(0, "ancestral")
    )
    variance = float(process.sigma(points[-1])) ** 2
    assert abs(float(found.mean()) - float(process.alpha(points[-1])) * datum) < 5 * math.sqrt(variance / size)
    assert abs(float(found.var()) - variance) < 5 * variance * math.sqrt(2 / size)


def test_ancestral_in_a_thousand_steps_is_monais_ddpm_draw_for_draw():
    """The published sampler. MONAI counts steps from 0: alpha_bar after its step n is ours at t = (n + 1) / 1000."""
    process, x = VariancePreserving(), torch.randn(1, 2, 8, generator=generator(0, "start"), dtype=torch.float64)

    def network(x, t, condition):
        return 0.8 * torch.tanh(x) * t.view(-1, 1, 1) ** 0.5

    scheduler = DDPMScheduler(schedule="scaled_linear_beta", beta_start=0.0015, beta_end=0.0195, clip_sample=False)
    theirs, rng = x, generator(0, "ancestral")
    for step in reversed(range(1000)):
        output = network(theirs, torch.tensor([(step + 1) / 1000], dtype=torch.float64), None)
        theirs, _ = scheduler.step(output, step, theirs, generator=rng)
    denoiser, points = NetworkDenoiser(network, process, "epsilon"), times(1000, "time", process)
    ours = ddpm_ancestral(denoiser, process, points, x, None, rng=generator(0, "ancestral"))
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)  # its coefficients are float32


def test_euler_is_maisis_sampler_where_half_precision_holds_its_times():
    process, x = RectifiedFlow(), torch.randn(1, 2, 8, generator=generator(0, "start"), dtype=torch.float64)

    def network(x, t, condition):
        return torch.tanh(x) * (1 + t.view(-1, 1, 1))

    scheduler = RFlowScheduler(num_train_timesteps=1000, use_discrete_timesteps=False)
    scheduler.set_timesteps(10)
    theirs, points = x, [*scheduler.timesteps.tolist(), 0]
    for t, after in pairwise(points):
        theirs, _ = scheduler.step(network(theirs, torch.tensor([t / 1000]), None), t, theirs, after)
    ours = euler(NetworkDenoiser(network, process, "reversed_flow"), process, times(10, "auto", process), x, None)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_ancestral_repeats_with_the_same_generator():
    process, x = VariancePreserving(), torch.ones(1, 4)
    first, second = (
        ddpm_ancestral(lambda x, t, c: x, process, times(4, "time", process), x, None, rng=generator(3, "a"))
        for _ in range(2)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize("solver", [ddim, euler, heun, dpm_solver_pp_2m])
def test_callback_sees_each_step_once_and_changes_nothing(solver):
    process, seen = RectifiedFlow(), []
    x = torch.randn(1, 4, generator=generator(0, "start"))

    def callback(step, state, t, denoised):
        torch.testing.assert_close(denoised, state * 0.5)
        seen.append((step, float(t)))

    watched = solver(lambda x, t, c: x * 0.5, process, times(4, "time", process), x, None, callback=callback)
    assert seen == [(0, 1.0), (1, 0.75), (2, 0.5), (3, 0.25)]
    assert torch.equal(watched, solver(lambda x, t, c: x * 0.5, process, times(4, "time", process), x, None))
