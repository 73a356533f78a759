"""Maps judged region by region: perfect, worthless and trivial ones, in regions of known size."""

import numpy as np
import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.labels import label_table
from cardiosynth.core.random import numpy_generator
from cardiosynth.evaluation.confidence import (
    EVERYWHERE,
    HEART,
    Truth,
    border_nearness,
    gradient_magnitude,
    rank_errors,
    regions_of,
)

TABLE = label_table({"chamber": 1, "vessel": 2, "lung": 3}, ["lung"])
RNG = numpy_generator(0, "confidence")


def cube(spacing_mm: float = 2.5) -> Case:
    mask = np.full((1, 20, 20, 20), 3, np.uint8)
    mask[0, 8:12, 8:12, 8:12] = 1
    return Case(case_id="cube", image=None, mask=mask, affine=np.diag([*(spacing_mm,) * 3, 1.0]), labels=TABLE)


def test_the_heart_is_widened_in_millimeters_and_absent_structures_are_no_region():
    fine, coarse = regions_of(cube(2.5)), regions_of(cube(5.0))
    assert set(fine) == {HEART, EVERYWHERE, "chamber"}
    assert fine["chamber"].sum() == 64
    lines = [np.flatnonzero(region[HEART].any((1, 2))).tolist() for region in (fine, coarse)]
    assert lines == [[6, 8, 10, 12], [8, 10, 12]]  # 5 mm are two voxels or one; every second voxel is taken
    assert coarse[HEART].sum() == 8 + 3 * 4
    assert fine[EVERYWHERE].sum() == 1000


def test_the_error_itself_is_perfect_and_a_constant_says_nothing():
    error = RNG.gamma(2.0, 20.0, (1, 20, 20, 20)).astype(np.float32)
    truth = Truth(error, error > 60, RNG.normal(size=error.shape).astype(np.float32))
    best, blank = (rank_errors(m, truth, regions_of(cube())) for m in (error, np.ones_like(error)))
    for region in (HEART, EVERYWHERE):
        assert best[region].spearman == pytest.approx(1)
        assert best[region].partial == pytest.approx(1)
        assert best[region].auroc == 1
        assert best[region].sparsification == pytest.approx(0, abs=1e-9)
        assert best[region].sparsification_labels == pytest.approx(0, abs=1e-9)
        assert np.isnan(blank[region].spearman)
        assert blank[region].auroc == 0.5
        assert blank[region].sparsification > 0.3


def test_a_region_sees_its_own_voxels_only():
    error, noise = RNG.random((2, 1, 20, 20, 20), np.float32)
    inside = cube().mask == 1
    found = rank_errors(np.where(inside, error, noise), Truth(error, error > 0.5, noise), regions_of(cube()))
    assert found["chamber"].spearman == pytest.approx(1)
    assert abs(found[EVERYWHERE].spearman) < 0.3


def test_the_gradient_of_a_ramp_is_its_slope():
    ramp = np.broadcast_to(3.0 * np.arange(8, dtype=np.float32)[:, None, None], (8, 8, 8))[None]
    np.testing.assert_allclose(gradient_magnitude(ramp, 3), 3.0, rtol=1e-6)


def test_nearness_to_a_border_is_minus_the_distance_on_both_of_its_sides():
    near = border_nearness(cube(2.0))[0, :, 9, 9]
    assert near[8:12].tolist() == [-2, -4, -4, -2]
    assert near[5:8].tolist() == [-6, -4, -2]
