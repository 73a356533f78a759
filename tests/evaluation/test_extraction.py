import numpy as np
import pytest
import torch

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale, Window
from cardiosynth.evaluation.extraction import (
    Extractor,
    SampleSettings,
    View,
    cropped,
    describe,
    planes_of,
    sampled,
)

SCALE = IntensityScale(window=Window(low=0, high=100))
SETTINGS = SampleSettings(shortest_side=12, picture_side=2)


def case(shape: tuple[int, ...]) -> Case:
    """Every voxel of slice z along the last axis is z."""
    image = np.broadcast_to(np.arange(shape[-1], dtype=np.int16), shape)
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(2, n - 4) for n in shape)] = 1
    return Case(case_id="a", image=image[None].copy(), mask=mask[None], affine=np.eye(4))


def means(dims: int, scale: IntensityScale | None = None) -> Extractor:
    return Extractor("mean", "0123", dims, lambda x: x.flatten(1).mean(1, keepdim=True), scale)


def view(case: Case, extractor: Extractor | None, settings: SampleSettings = SETTINGS) -> View:
    return View(SCALE, extractor, settings, planes_of(case.grid.shape, settings))


def test_a_short_stack_is_seen_slice_by_slice():
    stack = case((16, 16, 10))
    found = describe(stack, view(stack, means(2)), None)
    assert found.keys() == {"axial", "pictures", "places"}
    assert found["axial"][:, 0] == pytest.approx(np.arange(10) / 100)
    assert found["places"].tolist() == list(range(10))
    assert found["pictures"].shape == (10, 4)


def test_of_many_slices_some_are_taken_evenly():
    stack = case((16, 16, 10))
    assert describe(stack, view(stack, None), 5)["places"].tolist() == [1, 3, 5, 7, 9]
    assert describe(stack, view(stack, None), 1)["places"].tolist() == [5]


def test_a_volume_is_seen_in_three_planes_and_shown_whole():
    volume = case((12, 14, 16))
    found = describe(volume, view(volume, means(2)), 3)
    assert {name: len(rows) for name, rows in found.items()} == {
        "axial": 3, "coronal": 3, "sagittal": 3, "pictures": 1, "places": 1,
    }  # fmt: skip
    assert found["coronal"][:, 0] == pytest.approx(0.075)
    assert found["places"].tolist() == [-1]


def test_a_network_for_volumes_sees_volumes_only():
    volume, flat = case((12, 14, 16)), case((16, 16))
    assert describe(volume, view(volume, means(3)), 3)["volume"] == pytest.approx(np.array([[0.075]]))
    with pytest.raises(InputError, match="give a network for slices"):
        describe(flat, view(flat, means(3)), None)


def test_a_slice_is_its_own_picture():
    flat = case((16, 16))
    found = describe(flat, view(flat, means(2)), None)
    assert found["places"].tolist() == [0]
    assert found["axial"].shape == (1, 1)


def test_pictures_are_as_far_apart_as_their_root_mean_square_difference():
    one = case((16, 16, 3))
    rows = describe(one, view(one, None), None)["pictures"]
    assert np.linalg.norm(rows[2] - rows[0]) == pytest.approx(0.02)


def test_a_network_sees_its_own_window():
    flat = case((16, 16))
    wide = IntensityScale(window=Window(low=0, high=200))
    seen = describe(flat, view(flat, means(2, wide)), None)
    assert seen["axial"][0, 0] == pytest.approx(0.0375)


def test_the_heart_is_cut_out_with_its_margin():
    volume = case((20, 20, 20))  # its structure reaches from 2 to 16
    assert cropped(volume, SCALE, SETTINGS).shape == (20, 20, 20)
    heart = cropped(volume, SCALE, SampleSettings(crop="heart", margin=0.1))
    assert heart.shape == (16, 16, 16)
    assert heart[0, 0, 0] == pytest.approx(0.01)
    empty = volume.with_(mask=np.zeros_like(volume.required_mask()))
    assert cropped(empty, SCALE, SampleSettings(crop="heart")).shape == (20, 20, 20)


def test_no_more_slices_than_memory_has_place_for():
    settings = SampleSettings(most_samples=10)
    assert sampled(3, settings) == (3, [0, 1, 2])
    per_case, numbers = sampled(1000, settings)
    assert per_case == 1
    assert len(set(numbers)) == 10
    assert numbers == sampled(1000, settings)[1]


def test_batches_do_not_matter():
    stack = case((16, 16, 40))
    extractor = Extractor("cumulative", "0", 2, lambda x: torch.cumsum(x.flatten(1), 1)[:, -1:])
    whole = describe(stack, View(SCALE, extractor, SETTINGS, ("axial",)), None)
    assert whole["axial"][:, 0] == pytest.approx(256 * np.arange(40) / 100, rel=1e-4)
