import numpy as np
import pytest

from cardiosynth.metrics.memorization import binomial_bound, near_copies, nearest


def distances(seed: int, count: int, *parts: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    training = np.random.default_rng(0).standard_normal((200, 4))
    fresh = rng.standard_normal((count, 4))
    if parts:
        fresh = training[:count] + parts[0] * fresh
    return nearest(fresh, training)[0]


def test_the_nearest_row_and_how_far_it_is():
    x, others = np.array([[0.0, 0.0], [9.0, 9.0]]), np.array([[9.0, 8.0], [3.0, 4.0]])
    found, index = nearest(x, others)
    assert found.tolist() == [5, 1]
    assert index.tolist() == [1, 0]


def test_copies_are_caught():
    found = near_copies(distances(1, 100, 1e-3), distances(2, 100))
    assert found.share == 1
    assert found.ratio < 0.01
    assert found.suspicious


def test_fresh_samples_are_not_copies():
    found = near_copies(distances(3, 100), distances(2, 100))
    assert not found.suspicious
    assert found.ratio == pytest.approx(1, abs=0.3)


def test_the_threshold_is_the_fifth_percentile_of_the_test_images():
    found = near_copies(np.array([0.4, 5.0, 5.0, 105.0]), np.arange(0, 101, dtype=np.float64))
    assert found.threshold == 5
    assert found.share == 0.25
    assert found.ratio == 0.1


def test_the_bound_by_chance():
    assert binomial_bound(1, 0.04) == 0  # a single image is near by chance in 4 of 100 sets, which 95 % allow
    assert binomial_bound(1, 0.06) == 1
    assert binomial_bound(2, 0.5, 0.7) == 0.5
    assert 0.05 < binomial_bound(1000, 0.05) < 0.065
