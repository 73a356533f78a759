import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from cardiosynth.metrics.distribution import (
    frechet_distance,
    kernel_distance,
    kernel_distance_draws,
    kernel_sums,
    neighborhoods,
)


def normal(count: int, features: int, seed: int, mean: float = 0.0, sd: float = 1.0) -> np.ndarray:
    return mean + sd * np.random.default_rng(seed).standard_normal((count, features))


def test_frechet_distance_of_two_known_normals():
    x = np.array([[-1.0], [1.0]])  # mean 0, sample variance 2
    assert frechet_distance(x, 3 * x + 4) == pytest.approx(4**2 + 2 * (3 - 1) ** 2)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MONAI's of SciPy
def test_frechet_distance_agrees_with_the_matrix_root_and_with_monai():
    from monai.metrics.fid import FIDMetric

    x, y = normal(40, 6, 0), normal(50, 6, 1, mean=0.3, sd=1.7)
    a, b = np.cov(x.T), np.cov(y.T)
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(x, y) == pytest.approx(expected)
    assert frechet_distance(x, y) == pytest.approx(
        float(FIDMetric()(torch.from_numpy(y), torch.from_numpy(x))), rel=1e-3
    )


def test_fewer_samples_than_features_have_a_distance_of_their_own():
    halves = normal(20, 64, 0), normal(20, 64, 1)
    assert frechet_distance(*halves) > 50
    assert abs(kernel_distance(*halves)) < 0.05


def test_kernel_distance_by_hand():
    x, y = np.array([[0.0], [1.0]]), np.array([[2.0], [0.0]])
    within = 1.0 + 1.0  # (0 * 1 + 1)^3 and (2 * 0 + 1)^3
    between = (1 + 1 + 27 + 1) / 4
    assert kernel_distance(x, y) == pytest.approx(within - 2 * between)


def test_kernel_distance_is_zero_on_average_and_grows_with_a_shift():
    found = [kernel_distance(normal(12, 4, 2 * s), normal(9, 4, 2 * s + 1)) for s in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 20
    assert min(found) < 0
    near, far = (kernel_distance(normal(60, 4, 0), normal(60, 4, 1, mean=m)) for m in (0.5, 1.0))
    assert 0 < near < far


def test_pairs_within_a_case_are_left_out():
    centers = normal(30, 3, 0)
    twins = np.repeat(centers, 2, axis=0)
    groups = np.repeat(np.arange(30), 2).tolist()
    y = normal(25, 3, 1)
    assert kernel_distance(twins, y, groups) == pytest.approx(kernel_distance(centers, y))
    assert kernel_distance(twins, y) > kernel_distance(centers, y)
    assert math.isnan(kernel_distance(centers, y, [0] * 30))


def test_many_rows_are_summed_in_blocks():
    x, y = normal(1100, 2, 0), normal(3, 2, 1)
    kernel = (x @ y.T / 2 + 1) ** 3
    assert kernel_sums(x, y, ["one"] * 1100).between.ravel() == pytest.approx(kernel.sum(0))


def test_draws_lie_around_the_distance():
    x, y = normal(40, 4, 0), normal(40, 4, 1, mean=0.7)
    draws = kernel_distance_draws(kernel_sums(x, y), 400, np.random.default_rng(0))
    value = kernel_distance(x, y)
    low, high = np.quantile(draws, [0.025, 0.975])
    assert 0 < low < value < high
    assert draws.mean() == pytest.approx(value, rel=0.1)


def test_what_is_generated_far_off_is_neither_precise_nor_complete():
    real = normal(50, 3, 0)
    far = neighborhoods(real, real + 100)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)
    same = neighborhoods(real, real)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)


def test_one_good_mode_is_precise_and_incomplete():
    real = np.concatenate([normal(30, 2, 0), normal(30, 2, 1, mean=50)])
    found = neighborhoods(real, normal(60, 2, 2, sd=0.5))
    assert found.precision == 1
    assert found.recall < 0.5
    assert found.coverage <= 0.5
    assert found.density > 0.8


def test_neighborhoods_by_hand():
    real, synthetic = np.array([[0.0], [1.0], [5.0]]), np.array([[1.5], [20.0], [21.0]])
    found = neighborhoods(real, synthetic, k=1)
    # Real rows reach 1, 1 and 4; synthetic ones 18.5, 1 and 1.
    assert found.precision == pytest.approx(1 / 3)
    assert found.recall == 1
    assert found.density == pytest.approx(2 / 3)
    assert found.coverage == pytest.approx(2 / 3)
