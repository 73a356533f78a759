import math

import numpy as np
import pydantic
import pytest
import torch

from cardiosynth.core.random import generator
from cardiosynth.data.loader import CaseCache
from cardiosynth.segmentation.spatial import Motion, SpatialChange, moved_crop, rotation

from .cases import SCALE, case

STRONG = SpatialChange(rotation_deg=40, scaling=0.3, shift_mm=2, distortion_mm=2, distortion_spacing_mm=6)


def still(axes, **changes) -> Motion:
    values = {
        "matrix": torch.eye(axes, dtype=torch.float64), "shift_mm": torch.zeros(axes, dtype=torch.float64),
        "field": None, "spacing_mm": (1.0,) * axes,
    }  # fmt: skip
    return Motion(**values | changes)


def cached(*shape, spacing_mm=(1.0, 1.0, 1.0), **fields) -> CaseCache:
    confidence = np.random.default_rng(0).random((1, *shape), np.float32)
    affine = np.diag([*spacing_mm, 1.0])
    return CaseCache([case(i, shape, confidence=confidence, affine=affine, **fields) for i in range(2)], SCALE)


def parts(crop):
    assert crop.mask is not None
    return crop.image, crop.mask, crop.confidence


@pytest.mark.parametrize("shape", [(12, 12), (12, 12, 12)])
def test_a_quarter_turn_turns_all_parts(shape):
    cache, start, size = cached(*shape), (2,) * len(shape), (8,) * len(shape)
    angles = [math.pi / 2] if len(shape) == 2 else [0, 0, math.pi / 2]
    turned = moved_crop(cache, 0, start, size, still(len(shape), matrix=rotation(angles)))
    for there, here in zip(parts(turned), parts(cache.take(0, start, size)), strict=True):
        torch.testing.assert_close(there, here.rot90(-1, (1, 2)), atol=1e-5, rtol=0)


def test_a_shift_by_whole_voxels_is_the_block_that_lies_there_also_beyond_the_case():
    cache = cached(12, 10, 9, spacing_mm=(1.0, 2.0, 0.5))
    shift_mm = torch.tensor([-5.0, 6.0, 1.0], dtype=torch.float64)
    moved = moved_crop(cache, 0, (1, 2, 3), (8, 8, 4), still(3, shift_mm=shift_mm, spacing_mm=(1.0, 2.0, 0.5)))
    for there, here in zip(parts(moved), parts(cache.take(0, (-4, 5, 5), (8, 8, 4))), strict=True):
        torch.testing.assert_close(there, here, atol=1e-5, rtol=0)
    assert moved.confidence[:, :4].abs().max() == 0
    assert moved.confidence[:, 5:, :5].min() > 0


def test_a_linear_image_stays_linear_along_the_moved_axes():
    slope, shape = np.array([20, -30, 50]), (24, 24, 24)
    image = np.tensordot(slope, np.indices(shape), axes=1)[None].astype(np.int16)
    cache = cached(*shape, image=image, mask=np.ones((1, *shape), np.uint8) * 3)
    motion = still(3, matrix=1.2 * rotation([0.2, -0.3, 0.5]), shift_mm=torch.tensor([0.5, 1, -2], dtype=torch.float64))
    moved = moved_crop(cache, 0, (8, 8, 8), (8, 8, 8), motion)
    offset = np.indices((8, 8, 8)) - 3.5
    places = np.tensordot(motion.matrix.numpy(), offset, axes=1) + np.array([12.0, 12.5, 9.5])[:, None, None, None]
    expected = (np.tensordot(slope, places, axes=1) + 1000) / 3000
    np.testing.assert_allclose(moved.image[0].numpy(), expected, atol=1e-4)
    assert (moved.mask == 3).all()


def test_rotations_keep_distances_in_millimeters_where_voxels_are_not_cubes():
    spacing_mm = (0.5, 1.0, 2.0)
    motion = SpatialChange(rotation_deg=40).draw((4, 4, 4), spacing_mm, generator(0, "turn"))
    positions = motion.positions((4, 4, 4)) * torch.tensor(spacing_mm)[:, None, None, None]
    steps_mm = [positions.diff(dim=axis + 1).norm(dim=0) for axis in range(3)]
    for step_mm, mm in zip(steps_mm, spacing_mm, strict=True):
        torch.testing.assert_close(step_mm, torch.full_like(step_mm, mm))
    assert not torch.allclose(motion.matrix, torch.eye(3, dtype=torch.float64), atol=0.05)


@pytest.mark.parametrize("shape", [(16, 20), (16, 20, 12)])
def test_the_strongest_distortion_folds_nowhere_and_goes_no_further_than_it_says(shape):
    change = SpatialChange(distortion_mm=2.4, distortion_spacing_mm=6)
    for index in range(5):
        motion = change.draw(shape, (1.0,) * len(shape), generator(0, "distortion", index))
        assert motion.field is not None
        motion.field.coefficients.copy_(motion.field.coefficients.sign() * 2.4)
        positions = motion.positions(shape)
        rest = still(len(shape)).positions(shape)
        assert 0.5 < (positions - rest).abs().max() <= 2.4 + 1e-5
        slopes = torch.stack(
            [torch.gradient(p, dim=tuple(range(len(shape))))[a] for p in positions for a in range(len(shape))]
        )
        jacobian = slopes.reshape(len(shape), len(shape), -1).permute(2, 0, 1)
        assert torch.linalg.det(jacobian).min() > 0


def test_knots_reach_far_enough_an_even_field_shifts_all_voxels_alike():
    motion = STRONG.draw((9, 8, 7), (1.0, 1.5, 2.0), generator(0, "knots"))
    assert motion.field is not None
    even = still(3, field=motion.field, spacing_mm=(1.0, 1.5, 2.0))
    motion.field.coefficients.fill_(1.0)
    moved = (even.positions((9, 8, 7)) - still(3, spacing_mm=(1.0, 1.5, 2.0)).positions((9, 8, 7))).flatten(1)
    torch.testing.assert_close(moved, torch.tensor([[1.0], [1 / 1.5], [0.5]]).expand_as(moved), atol=1e-5, rtol=0)


def test_changes_are_as_large_and_as_frequent_as_they_say():
    change, rng = SpatialChange(share=0.25, scaling=0.25), generator(0, "share")
    sizes = torch.stack([change.draw((4, 4), (1.0, 1.0), rng).matrix[0, 0] for _ in range(400)])
    assert 60 < (sizes != 1).sum() < 140
    assert 1 / 1.25 <= sizes.min() < 0.83
    assert 1.2 < sizes.max() <= 1.25


def test_what_is_off_draws_nothing():
    rng = generator(0, "off")
    before = rng.get_state()
    assert SpatialChange().is_none
    assert SpatialChange().draw((4, 4, 4), (1.0,) * 3, rng).is_none
    assert torch.equal(rng.get_state(), before)
    assert SpatialChange(share=0, rotation_deg=10).is_none
    assert not STRONG.is_none


def test_a_distortion_that_could_fold_is_refused():
    with pytest.raises(pydantic.ValidationError, match="make distortion_spacing_mm 25 or more"):
        SpatialChange(distortion_mm=10, distortion_spacing_mm=24)
