import numpy as np

from cardiosynth.data.sources.phantom.variation import LIMIT_SD, Variation


def test_each_part_draws_from_its_own_generator():
    first = Variation(0, 7).draws("liver")
    other = Variation(0, 7)
    other.draws("heart").normal(1.0)
    assert other.draws("liver").uniform(0, 1) == first.uniform(0, 1)
    assert Variation(0, 8).draws("liver").uniform(0, 1) != Variation(0, 7).draws("liver").uniform(0, 1)


def test_normal_draws_stay_within_their_limit():
    draws = Variation(0, 0).draws("x")
    values = np.array([draws.normal(1.5) for _ in range(500)])
    assert np.abs(values).max() == LIMIT_SD * 1.5
    assert 1.1 < values.std() < 1.6


def test_directions_are_unit_vectors():
    assert np.isclose(np.linalg.norm(Variation(0, 0).draws("x").direction()), 1)
