"""Intervals: those that a formula gives, and those that must not be narrower than their cases allow."""

import numpy as np
import pytest

from cardiosynth.evaluation.statistics import (
    best_beyond_chance,
    holm,
    mean_interval,
    mean_ranks,
    paired_p_value,
    ratio_interval,
)


def test_of_one_seed_the_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(0).normal(5, 2, (1, 400))
    found, half = mean_interval(values), 1.96 * values.std() / 20
    assert found == pytest.approx((values.mean(), values.mean() - half, values.mean() + half), abs=0.03)


def test_cases_of_a_group_are_drawn_together():
    """Four copies of every case are no more evidence than one."""
    values = np.random.default_rng(1).normal(0, 1, (1, 30))
    once = mean_interval(values)
    copied = mean_interval(np.repeat(values, 4, axis=1), groups=np.repeat(np.arange(30), 4).tolist())
    assert copied == pytest.approx(once)
    naive = mean_interval(np.repeat(values, 4, axis=1))
    assert naive.high - naive.low < 0.6 * (once.high - once.low)


def test_seeds_that_disagree_widen_the_interval():
    cases = np.random.default_rng(2).normal(0, 0.1, 50)
    found = mean_interval(np.stack([cases - 1, cases, cases + 1]))
    assert found.low < -0.9
    assert found.high > 0.9


def test_a_ratio_is_of_sums_and_certain_where_every_case_has_it():
    x = np.arange(1.0, 9.0).reshape(2, 4)
    assert ratio_interval(3 * x * x, x * x) == pytest.approx((3, 3, 3))
    assert ratio_interval(np.array([[1.0, 0.0]]), np.array([[1.0, 3.0]])).value == 0.25


def test_what_is_not_known_is_left_out():
    assert mean_interval(np.array([[1.0, np.nan, 1.0]])) == (1, 1, 1)
    assert np.isnan(mean_interval(np.full((1, 2), np.nan))).all()


def test_a_paired_test_counts_cases_and_not_seeds():
    gains = np.linspace(0.1, 0.6, 6)
    assert paired_p_value(gains[None]) == pytest.approx(2 / 2**6)
    assert paired_p_value(np.tile(gains, (5, 1))) == paired_p_value(gains[None])
    assert paired_p_value(np.stack([gains, -gains])) == 1
    assert paired_p_value(np.append(gains, np.nan)[None]) == paired_p_value(gains[None])
    assert np.isnan(paired_p_value(np.full((1, 3), np.nan)))


def test_under_no_effect_a_paired_test_is_as_often_wrong_as_it_says():
    rng = np.random.default_rng(0)
    found = [paired_p_value(rng.normal(0, 1, (2, 12))) for _ in range(200)]
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.03)


def test_holm_multiplies_the_smallest_most_and_never_turns_the_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([float("nan"), 0.02])[1] == 0.02
    assert holm([]) == []


def test_the_best_is_the_arm_that_beats_every_other_beyond_chance():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.3, 0.6, 30)
    clear = np.stack([base, base + 0.2 + 0.01 * rng.normal(size=30), base + 0.1 + 0.01 * rng.normal(size=30)])
    noise = rng.normal(size=(3, 30))
    assert best_beyond_chance([clear, noise]) == [1, None]
    assert best_beyond_chance([clear[[0, 1, 1]]]) == [None], "two arms are equally good"


def test_a_difference_that_one_test_finds_is_not_enough_among_many():
    rng = np.random.default_rng(1)
    base = rng.uniform(size=6)
    ahead = np.stack([base, base + rng.uniform(0.1, 0.2, 6)])
    assert paired_p_value((ahead[1] - ahead[0])[None]) < 0.05
    assert best_beyond_chance([ahead]) == [1]
    assert best_beyond_chance([ahead, *rng.normal(size=(3, 2, 6))])[0] is None
    assert best_beyond_chance([ahead[:1]]) == best_beyond_chance([np.full((2, 6), np.nan)]) == [None]


def test_ranks_by_hand():
    ssim, rmse = np.array([[0.9, 0.7], [0.6, 0.6], [0.8, 0.8]]), np.array([[30.0, 30], [10, 10], [20, 40]])
    found = mean_ranks([ssim, -rmse])
    assert [interval.value for interval in found] == [(1.5 + 2.5) / 2, (3 + 1) / 2, (1.5 + 2.5) / 2]
    assert mean_ranks([np.exp(5 * ssim[:, :1])])[0] == (1, 1, 1), "only the order of one case counts"


def test_a_method_is_ranked_by_what_is_known_of_it():
    criterion, other = np.array([[3.0], [2.0], [1.0]]), np.array([[np.nan], [1.0], [2.0]])
    assert [interval.value for interval in mean_ranks([criterion, other])] == [1, 2, 2]
    assert np.isnan(mean_ranks([other])[0]).all()
    assert [interval.value for interval in mean_ranks([np.array([[np.nan, 1.0], [0.5, 0.5]])])] == [1, 2]


def test_ranks_that_cases_dispute_are_uncertain_and_those_they_agree_on_are_not():
    rng = np.random.default_rng(0)
    clear = np.stack([rng.normal(level, 0.1, 40) for level in (3.0, 2.0, 1.0)])
    assert mean_ranks([clear, clear]) == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]
    equal = mean_ranks([rng.normal(size=(2, 40))])
    assert all((interval.low, interval.high) == (1, 2) for interval in equal)
    criteria = [rng.normal(size=(2, 40)) for _ in range(12)]
    assert all(interval.high - interval.low < 0.8 for interval in mean_ranks(criteria))


def test_criteria_of_the_same_cases_are_drawn_together():
    """Ten copies of one criterion are no more evidence than one."""
    values = np.random.default_rng(1).normal(size=(3, 25))
    np.testing.assert_allclose(mean_ranks([values] * 10), mean_ranks([values]))
