"""Processes: the discrete schedule they interpolate, their ends, and time grids."""

import math

import pytest
import torch
from monai.networks.schedulers.rectified_flow import RFlowScheduler, timestep_transform

from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.random import generator
from cardiosynth.diffusion.process import (
    Cosine,
    ProcessSettings,
    RectifiedFlow,
    TimeShift,
    VariancePreserving,
    angle,
    build_process,
    shifted,
    time_at_angle,
    times,
)

PROCESSES = [VariancePreserving(), RectifiedFlow(), Cosine()]
COSINE_250 = ProcessSettings(kind="cosine_betas", num_steps=250)


def test_alpha_bar_at_the_steps_is_the_product_of_the_discrete_schedule():
    process = VariancePreserving(0.0015, 0.0195, 1000)
    betas = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64) ** 2
    product = torch.cumprod(1 - betas, 0)
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    torch.testing.assert_close(process.alpha(t) ** 2, product, rtol=1e-12, atol=0)
    assert float(product[-1]) == pytest.approx(1.4e-4, rel=0.05)  # the schedule does not end in pure noise


def test_alpha_bar_between_steps_is_the_geometric_mean():
    process = VariancePreserving(num_steps=10)
    t = torch.tensor([0.3, 0.35, 0.4], dtype=torch.float64)
    low, middle, high = (process.alpha(t) ** 2).tolist()
    assert middle == pytest.approx(math.sqrt(low * high), rel=1e-12)


@pytest.mark.parametrize("process", PROCESSES, ids=["vp", "flow", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_ends_shape_and_dtype(process, dtype):
    t = torch.tensor([[0.0, 1.0]], dtype=dtype)
    alpha, sigma = process.alpha(t), process.sigma(t)
    assert alpha.dtype == sigma.dtype == dtype
    assert alpha.shape == sigma.shape == t.shape
    assert alpha[0, 0] == 1
    assert sigma[0, 0] == 0


@pytest.mark.parametrize(("settings", "alpha_bar"), [
    ({"kind": "linear", "beta_start": 1e-4, "beta_end": 0.02, "num_steps": 1000}, 4.0e-5),
    ({"kind": "linear", "beta_start": 1e-4, "beta_end": 0.02, "num_steps": 100}, 0.364),
    ({"kind": "linear", "beta_start": 1e-3, "beta_end": 0.2, "num_steps": 100}, 2.0e-5),
    ({"kind": "cosine"}, 0.0),
])  # fmt: skip
def test_what_a_schedule_keeps_of_the_data_at_its_end(settings, alpha_bar):
    """The published T = 100 with DDPM's betas is far from noise; a sampler that starts from noise needs another."""
    end = build_process(ProcessSettings(**settings)).alpha(torch.ones((), dtype=torch.float64)) ** 2
    assert float(end) == pytest.approx(alpha_bar, rel=0.02, abs=0)


def test_linear_betas_are_ddpms():
    process = VariancePreserving(1e-4, 0.02, 10, linear=True)
    product = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 10, dtype=torch.float64), 0)
    t = torch.arange(1, 11, dtype=torch.float64) / 10
    torch.testing.assert_close(process.alpha(t) ** 2, product, rtol=1e-12, atol=0)


def test_cosine_betas_are_the_published_curve_but_for_their_last_step():
    process, steps = build_process(COSINE_250), torch.arange(1, 250, dtype=torch.float64) / 250
    curve = torch.cos((steps + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(process.alpha(steps) ** 2, curve, rtol=1e-9, atol=0)
    end, before = (float(process.alpha(torch.tensor(t, dtype=torch.float64)) ** 2) for t in (1.0, 0.996))
    assert end == pytest.approx(0.001 * before, rel=1e-6)


def test_vp_preserves_variance_also_where_sigma_is_tiny():
    process = VariancePreserving()
    t = torch.tensor([0.0, 1e-9, 1e-3, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(process.alpha(t) ** 2 + process.sigma(t) ** 2, torch.ones_like(t))
    assert float(process.sigma(t[1]) ** 2) == pytest.approx(-math.log1p(-0.0015) * 1e-6, rel=1e-6)


@pytest.mark.parametrize("process", PROCESSES, ids=["vp", "flow", "cosine"])
def test_angle_rises_and_is_inverted(process):
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    phi = angle(process, t)
    assert (phi.diff() > 0).all()
    torch.testing.assert_close(time_at_angle(process, phi), t, atol=1e-9, rtol=0)
    torch.testing.assert_close(torch.tan(phi[1:-1]), (process.sigma(t) / process.alpha(t))[1:-1])


@pytest.mark.parametrize("process", PROCESSES, ids=["vp", "flow", "cosine"])
@pytest.mark.parametrize("spacing", ["time", "angle"])
def test_time_grids_fall_from_one_to_zero(process, spacing):
    grid = times(7, spacing, process)
    assert grid.dtype == torch.float64
    assert len(grid) == 8
    assert grid[0] == 1
    assert grid[-1] == 0
    assert (grid.diff() < 0).all()
    steps = grid.diff() if spacing == "time" else angle(process, grid).diff()
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-6, atol=0)


@pytest.mark.parametrize("process", PROCESSES, ids=["vp", "flow", "cosine"])
@pytest.mark.parametrize("spacing", ["time", "angle"])
def test_a_later_start_takes_as_many_even_steps(process, spacing):
    grid = times(5, spacing, process, start=0.4)
    assert (len(grid), float(grid[0]), float(grid[-1])) == (6, 0.4, 0.0)
    steps = grid.diff() if spacing == "time" else angle(process, grid).diff()
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-6, atol=0)
    assert float(times(5, spacing, process, ratio=3.0, start=0.4)[0]) == pytest.approx(1.2 / 1.8)


def test_each_process_has_the_spacing_that_suits_it():
    flow, preserving = RectifiedFlow(), VariancePreserving()
    assert torch.equal(times(7, "auto", flow), times(7, "time", flow))
    assert torch.equal(times(7, "auto", preserving), times(7, "angle", preserving))


def test_one_step_grid():
    assert times(1, "angle", VariancePreserving()).tolist() == [1.0, 0.0]


def test_settings_build_what_they_say():
    t = torch.tensor([0.5], dtype=torch.float64)
    built = build_process(ProcessSettings(num_steps=10))
    assert torch.equal(built.alpha(t), VariancePreserving(num_steps=10).alpha(t))
    assert float(build_process(ProcessSettings(kind="rectified_flow")).alpha(t)) == 0.5


@pytest.mark.parametrize("shape", [(32, 32, 32), (128, 128, 32), (128, 128, 64), (16, 24, 8), (64, 48)])
@pytest.mark.parametrize("scale", [1.0, 1.4])
def test_the_shift_is_monais_timestep_transform(shape, scale):
    t = torch.linspace(0, 1, 41, dtype=torch.float64)
    theirs = timestep_transform(
        t * 1000,
        input_img_size_numel=math.prod(shape),
        base_img_size_numel=32 ** len(shape),
        scale=scale,
        num_train_timesteps=1000,
        spatial_dim=len(shape),
    )
    ratio = TimeShift(by_volume=True, scale=scale).ratio(shape)
    torch.testing.assert_close(shifted(t, ratio), theirs / 1000, atol=1e-12, rtol=0)


def test_the_shifted_grid_is_maisis_but_for_its_half_precision():
    """MONAI keeps its times in float16, with a resolution of half a step of a thousand, and ends one step early."""
    shape = (128, 128, 32)
    scheduler = RFlowScheduler(num_train_timesteps=1000, use_discrete_timesteps=False, use_timestep_transform=True)
    scheduler.set_timesteps(30, input_img_size_numel=math.prod(shape))
    grid = times(30, "time", RectifiedFlow(), TimeShift(by_volume=True).ratio(shape))
    torch.testing.assert_close(grid[:-1], scheduler.timesteps.double() / 1000, atol=3e-4, rtol=0)
    assert grid[-1] == 0
    assert float(-grid.diff().sum()) == 1


@pytest.mark.parametrize("ratio", [0.1, 0.37, 1.0, 2.52, 7.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_shift_keeps_both_ends_and_the_order_and_is_undone_by_its_inverse(ratio, dtype):
    t = torch.linspace(0, 1, 1001, dtype=dtype)
    found = shifted(t, ratio)
    assert found.dtype == dtype
    assert found[0] == 0
    assert found[-1] == 1
    assert (found.diff() > 0).all()
    assert ((found > t) == (ratio > 1))[1:-1].all()
    torch.testing.assert_close(shifted(found, 1 / ratio), t, atol=1e-6, rtol=0)


def test_the_base_size_and_the_default_change_no_bit():
    drawn = torch.rand(100_000, generator=generator(0, "times"))
    assert TimeShift(by_volume=True).ratio((32, 32, 32)) == 1
    assert TimeShift().ratio((128, 128, 64)) == 1
    assert torch.equal(shifted(drawn, 1.0), drawn)


def test_in_rectified_flow_the_shift_multiplies_the_noise_level():
    process, t = RectifiedFlow(), torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    level = process.sigma(t) / process.alpha(t)
    moved = shifted(t, 2.5)
    torch.testing.assert_close(process.sigma(moved) / process.alpha(moved), 2.5 * level)


def test_a_shift_without_a_direction_is_refused():
    with pytest.raises(InputError, match="scale"):
        parse_settings(TimeShift, {"scale": 0.0}, "--set")
