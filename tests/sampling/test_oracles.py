"""From 5 to 1000 steps: Gaussian data of small, unit and large width, and two modes, against what is exact.

A latent's fine detail is data of small standard deviation; a solver that makes it too wide or too narrow makes noisy
or smooth images.
"""

import math
from itertools import pairwise

import pytest
import torch

from cardiosynth.core.random import generator
from cardiosynth.diffusion.process import RectifiedFlow, VariancePreserving, angle, times
from cardiosynth.sampling.solvers import ddim, ddpm_ancestral, dpm_solver_pp_2m, euler, heun

from .oracles import gaussian_chain, levels, mixture

PROCESSES = [VariancePreserving(), RectifiedFlow()]
IDS = ["vp", "flow"]
STDS = torch.tensor([0.3, 1.0, 3.0], dtype=torch.float64)
"""Data of three widths at once, one per column."""
FEW = [5, 10, 20, 30, 50, 100]
MANY = pytest.param([200, 1000], marks=pytest.mark.slow)
HIGHER_ORDER = [(heun, lambda n: 12 / n**2), (dpm_solver_pp_2m, lambda n: 4 / n**1.5)]
"""Limits of a relative error; for the order of the second see its docstring."""
MODES = mixture((0.3, -1.2, 0.2), (0.7, 0.6, 0.2))
VALLEY = -0.3


def gaussians(process):
    """E[x0 | x, t] of data of the three widths."""

    def denoiser(x, t, condition):
        alpha, sigma = process.alpha(t), process.sigma(t)
        return alpha * STDS**2 / (alpha**2 * STDS**2 + sigma**2) * x

    return denoiser


def log_widths(solver, process, points):
    """How much too wide a solver makes data of each width; the flow is linear, and one point tells its factor."""
    found = solver(gaussians(process), process, points, torch.ones(1, 3, dtype=torch.float64), None)[0]
    exact = STDS / torch.hypot(process.alpha(points[0]) * STDS, process.sigma(points[0]))
    return (found / exact).log()


@pytest.mark.parametrize("process", PROCESSES, ids=IDS)
@pytest.mark.parametrize("spacing", ["time", "angle"])
@pytest.mark.parametrize(("count", "tolerance"), [(100, 0.12), pytest.param(1000, 0.04, marks=pytest.mark.slow)])
def test_first_order_width_is_short_by_what_theory_says(count, tolerance, spacing, process):
    """A step of h in angle loses h^2 std^2 / (2 r^4) of log width, r^2 = (std cos)^2 + sin^2, to leading order."""
    points = times(count, spacing, process)
    phi = angle(process, points)
    middle = ((phi[1:] + phi[:-1]) / 2)[:, None]
    level = (STDS * middle.cos()) ** 2 + middle.sin() ** 2
    predicted = -(phi.diff()[:, None] ** 2 * STDS**2 / (2 * level**2)).sum(0)
    small = predicted > -0.05  # where the steps are short enough for the leading order
    assert small.any()
    for solver in (ddim, euler):
        found = log_widths(solver, process, points)
        torch.testing.assert_close(found[small], predicted[small], rtol=tolerance, atol=0)
        assert (found < 0).all()


@pytest.mark.parametrize("process", PROCESSES, ids=IDS)
@pytest.mark.parametrize("counts", [FEW, MANY])
def test_first_order_width_is_never_further_off_than_its_limit(counts, process):
    """In even angles the leading error is (pi^2 / 16) (std + 1 / std) per step; fewer steps do better than that."""
    limit = math.pi**2 / 16 * (STDS + 1 / STDS)
    for solver in (ddim, euler):
        short = [1 - log_widths(solver, process, times(count, "angle", process)).exp() for count in counts]
        assert all(((error > 0) & (error < limit / count)).all() for error, count in zip(short, counts, strict=True))
        assert all((fine < coarse).all() for coarse, fine in pairwise(short))


@pytest.mark.parametrize("process", PROCESSES, ids=IDS)
@pytest.mark.parametrize(("solver", "limit"), HIGHER_ORDER)
@pytest.mark.parametrize("counts", [FEW, MANY])
def test_second_order_width_tightens_faster(counts, solver, limit, process):
    for count in counts:
        points = times(count, "auto", process)
        error = log_widths(solver, process, points).expm1().abs()
        assert (error < limit(count)).all(), count
        assert (error < log_widths(ddim, process, points).expm1().abs()).all(), count


def chain_by_loss(process, points, std):
    """The variance of the chain: that of the data less what each step loses by taking x0 as known.

    By the tower rule a disturbance of x_s reaches the data multiplied by the slope of D there.
    """
    variance = std**2
    for alpha_t, sigma_t, alpha_s, sigma_s in levels(process, points):
        added = sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2
        unknown = std**2 * sigma_t**2 / (alpha_t**2 * std**2 + sigma_t**2)
        slope = alpha_s * std**2 / (alpha_s**2 * std**2 + sigma_s**2)
        variance -= (slope * alpha_s * added / sigma_t**2) ** 2 * unknown
    alpha, sigma = float(process.alpha(points[0])), float(process.sigma(points[0]))
    marginal = alpha**2 * std**2 + sigma**2
    return variance + (alpha * std**2 / marginal) ** 2 * (1 - marginal)  # the chain begins with N(0, 1)


@pytest.mark.parametrize("process", PROCESSES, ids=IDS)
@pytest.mark.parametrize(("count", "short"), [(30, 0.14), (100, 0.053), (1000, 0.0065)])
def test_respaced_ancestral_chain_lacks_the_spread_of_x0_and_nothing_else(count, short, process):
    """At 30 steps data of width 0.3 come out 0.26 wide; posteriors made for 1000 steps would give 0.92."""
    points = times(count, "auto", process)
    for std in STDS.tolist():
        _, variance = gaussian_chain(process, points, 0.0, std)
        assert variance == pytest.approx(chain_by_loss(process, points, std), rel=1e-9)
        assert 1 - short < math.sqrt(variance) / std < 1


@pytest.mark.parametrize("process", PROCESSES, ids=IDS)
@pytest.mark.parametrize("count", [30, 100, pytest.param(1000, marks=pytest.mark.slow)])
def test_ancestral_samples_are_as_wide_as_the_chain_says(count, process):
    size, points = 10_000, times(count, "auto", process)
    noise = torch.randn(size, 3, generator=generator(0, "start"), dtype=torch.float64)
    found = ddpm_ancestral(gaussians(process), process, points, noise, None, rng=generator(0, "ancestral")).var(0)
    wanted = torch.tensor([gaussian_chain(process, points, 0.0, std)[1] for std in STDS.tolist()]).double()
    torch.testing.assert_close(found, wanted, rtol=5 * math.sqrt(2 / size), atol=0)


def test_ancestral_in_ddpms_own_thousand_steps_gives_the_data():
    process = VariancePreserving()
    mean, variance = gaussian_chain(process, times(1000, "time", process), 0.4, 0.3)
    assert mean == pytest.approx(0.4, abs=0.01)
    assert math.sqrt(variance) == pytest.approx(0.3, abs=0.01)


def worst_of_modes(found):
    """The largest error of weight, mean and standard deviation of the left mode, and of mean and std of all."""
    left, (mean, std) = found[found < VALLEY], MODES.mean_and_std()
    share = len(left) / found.numel()
    pairs = [(share, 0.3), (left.mean(), -1.2), (left.std(), 0.2), (found.mean(), mean), (found.std(), std)]
    return max(abs(float(value) - wanted) for value, wanted in pairs)


@pytest.mark.parametrize("process", PROCESSES, ids=IDS)
@pytest.mark.parametrize(("solver", "limit"), [(ddim, lambda n: 0.8 / n), (euler, lambda n: 0.8 / n), *HIGHER_ORDER])
@pytest.mark.parametrize("counts", [[5, 10, 30, 100], MANY])
def test_two_modes_keep_weight_place_and_width(counts, solver, limit, process):
    """What starts at even quantiles of x at t = 1 is the exact distribution, so that no chance enters."""
    size = 1000
    quantiles = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    start = MODES.at_quantile(process, torch.ones((), dtype=torch.float64), quantiles)[None]
    exact = MODES.at_quantile(process, torch.zeros((), dtype=torch.float64), quantiles)[None]
    for count in counts:
        found = solver(MODES.denoiser(process), process, times(count, "auto", process), start, None)
        assert float((found - exact).abs().mean()) < limit(count), count
        assert worst_of_modes(found) < limit(count) + 2 / size, count


@pytest.mark.parametrize("process", PROCESSES, ids=IDS)
@pytest.mark.parametrize("counts", [[5, 30, 100], pytest.param([1000], marks=pytest.mark.slow)])
def test_two_modes_of_the_ancestral_chain(counts, process):
    size = 10_000
    for count in counts:
        noise = torch.randn(size, 1, generator=generator(0, "start"), dtype=torch.float64)
        points, oracle = times(count, "auto", process), MODES.denoiser(process)
        found = ddpm_ancestral(oracle, process, points, noise, None, rng=generator(0, "ancestral"))
        assert worst_of_modes(found) < 0.8 / count + 5 * float(found.std()) / math.sqrt(size), count
