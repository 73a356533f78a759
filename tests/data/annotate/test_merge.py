import itertools

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.volume import Grid
from cardiosynth.data.annotate.merge import RANKING, Piece, checked_ranking, level_of, merge
from cardiosynth.data.formats.volume import Volume

GRID = Grid((12, 10, 8), np.diag([1.0, 1.0, 2.0, 1.0]))
ROLES = {"lung": "surrounding", "heart": "surrounding"}
CODES = {"coronary_artery": 1, "aorta": 2, "left_ventricle": 3, "lung": 4, "heart": 5, "right_ventricle": 6}


def level(name: str) -> int:
    return level_of(name, ROLES.get(name, "target"), RANKING)


def slab(provider: str, name: str, first: int, last: int, grid: Grid = GRID) -> Piece:
    """The structure fills the planes ``first`` to ``last - 1`` along x: 80 voxels each."""
    mask = np.zeros((1, *grid.shape), np.uint8)
    mask[0, first:last] = 7
    return Piece(provider, {7: name}, lambda: Volume(mask, grid.affine))


def planes(mask: np.ndarray) -> list[int]:
    assert (mask == mask[:, :, :1, :1]).all()
    return mask[0, :, 0, 0].tolist()


def test_the_ranking_and_not_the_order_of_painting_decides():
    pieces = [
        slab("a", "coronary_artery", 5, 6), slab("b", "lung", 0, 7), slab("c", "aorta", 2, 5),
        slab("d", "left_ventricle", 4, 9), slab("e", "heart", 1, 11),
    ]  # fmt: skip
    wanted = [4, 5, 2, 2, 3, 1, 3, 3, 3, 5, 5, 0]
    for order in itertools.permutations(pieces):
        merged = merge(order, GRID, CODES, level)
        assert planes(merged.mask) == wanted
    plane = 10 * 8
    assert merged.overwritten == {
        ("lung", "heart"): 6 * plane, ("heart", "aorta"): 3 * plane, ("aorta", "left_ventricle"): plane,
        ("heart", "left_ventricle"): 4 * plane, ("left_ventricle", "coronary_artery"): plane,
    }  # fmt: skip
    assert merged.voxels["e"] == {"heart": 10 * plane}, "what a provider claimed, not what was left of it"
    assert not merged.resampled


def test_structures_of_one_name_are_united_and_lose_nothing_to_each_other():
    merged = merge([slab("a", "aorta", 2, 6), slab("b", "aorta", 4, 9)], GRID, CODES, level)
    assert planes(merged.mask) == [0, 0, *[2] * 7, 0, 0, 0]
    assert not merged.overwritten


def test_on_one_level_the_later_provider_has_the_voxel():
    left, right = slab("a", "left_ventricle", 0, 6), slab("b", "right_ventricle", 4, 9)
    assert planes(merge([left, right], GRID, CODES, level).mask)[4:6] == [6, 6]
    assert planes(merge([right, left], GRID, CODES, level).mask)[4:6] == [3, 3]


def test_several_codes_become_one_structure_and_unnamed_ones_are_left_out():
    mask = np.zeros((1, *GRID.shape), np.uint8)
    mask[0, 0], mask[0, 1], mask[0, 2], mask[0, 3] = 1, 2, 3, 4
    piece = Piece("a", {1: "lung", 3: "lung", 4: "left_ventricle"}, lambda: Volume(mask, GRID.affine))
    merged = merge([piece], GRID, CODES, level)
    assert planes(merged.mask) == [4, 0, 4, 3] + [0] * 8


def test_a_mask_on_another_grid_comes_to_that_of_the_image():
    fine = Grid((48, 20, 16), np.diag([0.5, 0.5, 1.0, 1.0]))
    fine.affine[:3, 3] = -0.25 - 6, -0.25, -0.5  # its planes 12 to 35 are the image's 0 to 11
    merged = merge([slab("a", "aorta", 16, 24, fine), slab("b", "heart", 0, 3)], GRID, CODES, level)
    assert merged.resampled == {"a"}
    assert planes(merged.mask) == [5, 5, 2, 2, 2, 2] + [0] * 6


def test_a_slice_for_a_volume_is_refused():
    flat = Piece("b", {1: "lung"}, lambda: Volume(np.ones((1, 12, 10), np.uint8), np.eye(4)))
    with pytest.raises(InputError, match="b gives a mask of 2 axes for an image of 3"):
        merge([flat], GRID, CODES, level)


def test_structures_that_the_ranking_does_not_name_go_by_their_role():
    assert level_of("stent", "surrounding", RANKING) < level_of("heart", "surrounding", RANKING)
    assert level_of("stent", "target", RANKING) == level_of("left_ventricle", "target", RANKING)
    assert level_of("body_wall", "surrounding", RANKING) == 0


@pytest.mark.parametrize(
    ("levels", "part"),
    [
        ((("lung", "other surroundings"), ("Lung", "other targets")), "lung stands in it more than once"),
        ((("lung",), ("other targets",)), "where 'other surroundings' belong"),
    ],
)
def test_a_ranking_with_a_gap_or_a_double_is_refused(levels, part: str):
    with pytest.raises(ValueError, match=part):
        checked_ranking(levels)
