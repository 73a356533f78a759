import math

import numpy as np
import pytest

from cardiosynth.metrics.overlap import dice, dilated, rdice_literal, rdice_symmetric

UNIT = (1.0, 1.0, 1.0)


def box(start: int, stop: int) -> np.ndarray:
    mask = np.zeros((12, 5, 5), bool)
    mask[start:stop, 2, 2] = True
    return mask


def test_dice_of_half_overlapping_rods_is_a_half():
    assert dice(box(0, 4), box(2, 6)) == 0.5


@pytest.mark.parametrize(
    "measure", [dice, lambda p, q: rdice_literal(p, q, 1.0, UNIT), lambda p, q: rdice_symmetric(p, q, 1.0, UNIT)]
)
def test_empty_masks(measure):
    assert math.isnan(measure(box(0, 0), box(0, 0)))
    assert measure(box(0, 0), box(0, 4)) == 0
    assert measure(box(0, 4), box(0, 0)) == 0
    assert measure(box(0, 4), box(0, 4)) == 1


def test_codes_count_as_inside():
    assert dice(box(0, 4).astype(np.uint8) * 7, box(2, 6)) == 0.5


def test_dilation_is_measured_in_millimeters():
    mask = np.zeros((7, 7, 7), bool)
    mask[3, 3, 3] = True
    assert dilated(mask, 1.0, UNIT).sum() == 7
    assert dilated(mask, 1.0, (1.0, 1.0, 3.0)).sum() == 5
    assert dilated(mask, math.sqrt(2), UNIT).sum() == 19
    assert not dilated(np.zeros_like(mask), 5.0, UNIT).any()


def test_literal_rdice_forgives_only_what_is_far():
    q = np.zeros((12, 12, 12), bool)
    q[1:11, 4:6, 4] = True
    near = np.roll(q, 1, axis=1)
    assert rdice_literal(near, q, 1.0, UNIT) == dice(near, q) == 0.5
    far = near.copy()
    far[1:11, 10, 10] = True
    assert dice(far, q) == pytest.approx(0.4)
    assert rdice_literal(far, q, 1.0, UNIT) == 0.5


def test_symmetric_rdice_forgives_what_is_near():
    q = np.zeros((12, 12, 12), bool)
    q[1:11, 4:6, 4] = True
    near = np.roll(q, 1, axis=1)
    assert rdice_symmetric(near, q, 1.0, UNIT) == 1
    assert rdice_symmetric(near, q, 1.0, (1.0, 2.0, 1.0)) == 0.5
    far = near.copy()
    far[1:11, 10, 10] = True
    assert rdice_symmetric(far, q, 1.0, UNIT) == pytest.approx(2 * (20 / 30) / (20 / 30 + 1))


def test_symmetric_rdice_without_radius_is_dice():
    rng = np.random.default_rng(0)
    p, q = rng.random((2, 8, 8, 8)) < 0.3
    assert rdice_symmetric(p, q, 0.0, UNIT) == pytest.approx(dice(p, q))
    assert rdice_symmetric(p, q, 1.0, UNIT) == pytest.approx(rdice_symmetric(q, p, 1.0, UNIT))
