import math

import numpy as np
import pytest
from scipy import stats

from cardiosynth.core.random import numpy_generator
from cardiosynth.metrics.uncertainty import (
    auroc,
    partial_spearman,
    ranks,
    sparsification_curve,
    sparsification_error,
    spearman,
)

RNG = numpy_generator(0, "uncertainty")
X, Y, Z = RNG.normal(size=(3, 6, 7, 8))
COARSE = np.round(X)


def test_equal_values_share_their_rank():
    assert ranks(np.array([30, 10, 10, 20])).tolist() == [4, 1.5, 1.5, 3]


def test_rank_correlation_is_scipys_with_ties_too():
    assert spearman(COARSE, X + Y) == pytest.approx(stats.spearmanr(COARSE.ravel(), (X + Y).ravel()).statistic)


def test_rank_correlation_does_not_see_a_monotone_change():
    assert spearman(X, np.exp(3 * X)) == pytest.approx(1)
    assert spearman(X, -(X**3)) == pytest.approx(-1)
    assert math.isnan(spearman(np.ones_like(X), X))


def of_gaussians(correlation: float) -> float:
    return 6 / math.pi * math.asin(correlation / 2)


def test_partial_correlation_of_gaussians_is_the_closed_form():
    c, a, b = numpy_generator(1, "large").normal(size=(3, 50_000))
    xy, xc = of_gaussians(0.5), of_gaussians(math.sqrt(0.5))
    expected = (xy - xc**2) / (1 - xc**2)
    assert spearman(c + a, c + b) == pytest.approx(xy, abs=0.015)
    assert abs(expected) < 0.02  # of ranks next to nothing is left, of the values themselves nothing
    assert partial_spearman(c + a, c + b, c) == pytest.approx(expected, abs=0.015)
    alone = of_gaussians(1 / math.sqrt(3))
    assert partial_spearman(a, a + b + c, c) == pytest.approx(alone / math.sqrt(1 - alone**2), abs=0.015)


def test_a_control_that_is_the_map_itself_leaves_nothing_to_explain():
    assert math.isnan(partial_spearman(X, Y, 2 * X))


def test_auroc_is_the_share_of_pairs_in_order():
    wrong = np.array([True, True, False, False, False])
    assert auroc(np.array([5, 2, 1, 2, 3]), wrong) == pytest.approx((3 + 1.5) / 6)
    assert auroc(np.ones(5), wrong) == 0.5
    assert auroc(wrong, wrong) == 1
    assert math.isnan(auroc(X, X > 10))


def test_the_curve_of_a_known_order():
    error = np.array([4.0, 0.0, 2.0, 2.0])
    assert sparsification_curve(np.array([4, 1, 2, 3]), error).tolist() == pytest.approx([0, 0.5, 2 / 3, 1])
    assert sparsification_curve(np.array([1, 1, 0, 2]), error).tolist() == pytest.approx([1, 1, 1, 1])


def test_no_order_leaves_the_logarithm_of_two_when_half_is_wrong():
    """The oracle's curve is 0 up to one half and 2 - 1 / f after: area 1 - ln 2 below the constant's 1."""
    wrong = np.arange(100_000) % 2 == 0
    assert sparsification_error(np.zeros(100_000), wrong) == pytest.approx(math.log(2), abs=1e-3)
    assert sparsification_error(wrong, wrong) == pytest.approx(0)
    assert sparsification_error(~wrong, wrong) > math.log(2)


def test_a_better_order_has_a_smaller_area_and_only_the_order_counts():
    error = np.abs(X)
    good, poor = (sparsification_error(error + noise * np.abs(Y), error) for noise in (0.3, 3.0))
    assert 0 < good < poor < sparsification_error(np.zeros_like(error), error)
    assert sparsification_error(np.exp(error), 7 * error) == pytest.approx(0, abs=1e-12)
    assert math.isnan(sparsification_error(X, np.zeros_like(X)))
