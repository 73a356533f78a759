import math

import numpy as np
import pytest
import torch

from cardiosynth.metrics.surface import hausdorff95, surface_dice


def ball(center: tuple[float, ...], radius: float, shape: tuple[int, ...] = (20, 20, 20)) -> np.ndarray:
    points = np.moveaxis(np.indices(shape), 0, -1) - np.array(center)
    return np.linalg.norm(points, axis=-1) <= radius


def test_two_single_voxels_are_their_distance_apart():
    p, q = np.zeros((2, 8, 8, 8), bool)
    p[1, 1, 1] = q[1, 4, 5] = True
    assert hausdorff95(p, q, (1.0, 1.0, 1.0)) == 5
    assert hausdorff95(p, q, (1.0, 2.0, 3.0)) == pytest.approx(math.hypot(6, 12))


def test_planes_that_reach_the_border():
    p, q = np.zeros((2, 10, 6, 6), bool)
    p[2] = q[7] = True
    assert hausdorff95(p, q, (0.5, 1.0, 1.0)) == 2.5


def test_equal_masks_are_zero_apart():
    assert hausdorff95(ball((9, 9, 9), 5), ball((9, 9, 9), 5), (1.0, 1.0, 2.0)) == 0


def test_empty_masks():
    empty, full = np.zeros((6, 6), bool), np.ones((6, 6), bool)
    assert math.isnan(hausdorff95(empty, empty, (1.0, 1.0)))
    assert hausdorff95(empty, full, (1.0, 1.0)) == hausdorff95(full, empty, (1.0, 1.0)) == math.inf


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI warns of itself
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.7, 0.8, 3.0)])
def test_agrees_with_monai(spacing_mm):
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    p, q = ball((8, 9, 10), 5), ball((10, 10, 9), 6.5)
    p[1:3, 1:3, 1:3] = True
    oracle = compute_hausdorff_distance(
        torch.from_numpy(p)[None, None].float(), torch.from_numpy(q)[None, None].float(),
        include_background=True, percentile=95, spacing=spacing_mm,
    )  # fmt: skip
    assert hausdorff95(p, q, spacing_mm) == pytest.approx(float(oracle), abs=1e-4)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI warns of itself
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.7, 0.8, 3.0)])
def test_surface_dice_agrees_with_monai(spacing_mm):
    from monai.metrics.surface_dice import compute_surface_dice

    p, q = ball((8, 9, 10), 5), ball((10, 10, 9), 6.5)
    oracle = compute_surface_dice(
        torch.from_numpy(p)[None, None].float(), torch.from_numpy(q)[None, None].float(),
        class_thresholds=[1.5], include_background=True, spacing=spacing_mm,
    )  # fmt: skip
    assert surface_dice(p, q, 1.5, spacing_mm) == pytest.approx(float(oracle), abs=1e-5)


def test_surface_dice_forgives_up_to_the_tolerance():
    p, q = np.zeros((2, 10, 6, 6), bool)
    p[2] = q[4] = True
    assert surface_dice(p, q, 1.0, (0.5, 1.0, 1.0)) == 1
    assert surface_dice(p, q, 0.9, (0.5, 1.0, 1.0)) == 0
    assert surface_dice(p, np.zeros_like(p), 9.0, (1.0, 1.0, 1.0)) == 0
    assert math.isnan(surface_dice(q & p, q & p, 9.0, (1.0, 1.0, 1.0)))
