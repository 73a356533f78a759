"""Intervals: those that a formula gives, and those that must not be narrower than their cases allow."""

import numpy as np
import pytest

from cardiosynth.evaluation.statistics import mean_interval, ratio_interval


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
