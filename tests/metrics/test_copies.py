"""Copies: what anatomy and means can neither hide nor feign."""

import numpy as np
import pytest

from cardiosynth.metrics.copies import common_interior, texture_correlation


def test_the_common_interior_is_away_from_every_border_of_every_mask():
    one, other = np.zeros((12, 12), np.uint8), np.zeros((12, 12), np.uint8)
    one[1:10, 1:10], other[3:12, 1:10] = 2, 2
    expected = np.zeros((12, 12), bool)
    expected[4:9, 2:9] = True  # rows 3..9 hold 2 in both
    np.testing.assert_array_equal(common_interior([one, other], (2,), margin=1), expected)
    assert not common_interior([one, other], (3,), margin=1).any()
    assert not common_interior([one, np.where(other == 2, 3, 0).astype(np.uint8)], (2, 3), margin=0).any()


def test_grain_is_found_under_any_contrast_and_contrast_alone_is_no_likeness():
    rng = np.random.default_rng(0)
    mask, grain = rng.integers(0, 4, (20, 20, 20)).astype(np.uint8), rng.normal(0, 20, (20, 20, 20))
    region = np.ones(mask.shape, bool)
    one, other = (np.array(levels)[mask] + grain for levels in ((0, 50, 400, 300), (-100, 10, 90, 80)))
    assert texture_correlation(one, other, mask, region) == pytest.approx(1)
    assert texture_correlation(one, -other, mask, region) == pytest.approx(-1)
    unlike = np.array((0, 50, 400, 300))[mask] + rng.normal(0, 20, mask.shape)
    assert abs(texture_correlation(one, unlike, mask, region)) < 0.05


def test_only_the_region_counts_and_nothing_is_known_of_what_does_not_vary():
    rng = np.random.default_rng(1)
    x, noise, mask = rng.normal(size=(20, 20)), rng.normal(size=(20, 20)), np.ones((20, 20), np.uint8)
    region = np.arange(20) < 10
    region = np.broadcast_to(region, (20, 20)).copy()
    y = np.where(region, 3 * x + 1, noise)
    assert texture_correlation(x, y, mask, region) == pytest.approx(1)
    assert abs(texture_correlation(x, y, mask, ~region)) < 0.2
    assert np.isnan(texture_correlation(x, np.ones_like(x), mask, region))
    assert np.isnan(texture_correlation(x, y, mask, np.zeros_like(region)))
