import math

import numpy as np
import pytest

from cardiosynth.metrics.topology import (
    betti0_error,
    betti_errors,
    betti_numbers,
    cavities,
    centerline,
    centerline_graph,
    centerline_overlap,
    cl_dice,
    components,
    connectivity_error,
    holes,
    largest_component_fraction,
    tunnels,
)


def rods() -> np.ndarray:
    mask = np.zeros((12, 7, 7), np.uint8)
    mask[0:3, 1, 1] = 1
    mask[4:12, 5, 5] = 1
    return mask


def test_a_diagonal_line_is_one_piece():
    assert components(np.eye(9)).count == 1
    line = np.zeros((9, 9, 9), bool)
    line[np.arange(9), np.arange(9), np.arange(9)] = True
    assert components(line).count == 1


def test_pieces_come_largest_first():
    found = components(rods())
    assert found.sizes.tolist() == [8, 3]
    assert (found.labels[4:12, 5, 5] == 1).all()
    assert (found.labels[0:3, 1, 1] == 2).all()
    assert found.labels.sum() == 8 + 2 * 3


def test_small_pieces_can_be_left_out():
    found = components(rods(), smallest_voxels=4)
    assert found.count == 1
    assert found.labels.sum() == 8


def test_fraction_of_the_largest_piece():
    assert largest_component_fraction(rods()) == 8 / 11
    assert math.isnan(largest_component_fraction(np.zeros((4, 4, 4))))


def test_betti0_error_counts_pieces_too_many_and_too_few():
    assert betti0_error(rods(), 2) == 0
    assert betti0_error(rods(), 1) == 1
    assert betti0_error(np.zeros((4, 4, 4)), 2) == 2


def test_a_gap_costs_the_part_behind_it():
    whole = np.zeros((20, 5, 5), bool)
    whole[:, 2, 2] = True
    broken = whole.copy()
    broken[14] = False
    assert connectivity_error(whole, whole, 1) == 0
    assert math.isclose(connectivity_error(broken, whole, 1), 5 / 20)
    assert connectivity_error(broken, whole, 2) == 0
    assert connectivity_error(np.roll(whole, 1, axis=1), whole, 1) == 0
    assert connectivity_error(np.roll(whole, 2, axis=1), whole, 1) == 1
    assert connectivity_error(np.zeros_like(whole), whole, 1) == 1
    assert math.isnan(connectivity_error(whole, np.zeros_like(whole), 1))


def rod(width: int, shift: int = 0, length: int = 12) -> np.ndarray:
    mask = np.zeros((20, 20, length), bool)
    low = 10 + shift - width // 2
    mask[low : low + width, 10 - width // 2 : 10 - width // 2 + width] = True
    return mask


@pytest.mark.parametrize("width", [1, 3, 5])
def test_cl_dice_does_not_ask_how_wide_a_vessel_is_drawn(width: int):
    assert cl_dice(rod(width), rod(1)) == cl_dice(rod(1), rod(width)) == 1


def test_cl_dice_of_a_broken_vessel_misses_the_share_that_is_gone():
    broken = rod(1)
    broken[..., 5:8] = False
    found = 9 / 12
    assert cl_dice(broken, rod(1)) == pytest.approx(2 * found / (1 + found))


@pytest.mark.parametrize(("shift", "expected"), [(1, 1.0), (2, 0.0)])
def test_cl_dice_forgives_half_a_width_aside(shift: int, expected: float):
    assert cl_dice(rod(3, shift), rod(3)) == expected
    assert cl_dice(rod(1, 1), rod(1)) == 0


def test_cl_dice_of_empty_masks():
    empty = np.zeros_like(rod(1))
    assert math.isnan(cl_dice(empty, empty))
    assert cl_dice(empty, rod(1)) == cl_dice(rod(1), empty) == 0


@pytest.mark.parametrize("side", [1, 2])
def test_what_thins_to_nothing_is_its_own_centerline_and_an_empty_mask_has_none(side: int):
    dot = np.zeros((7, 7, 7), bool)
    dot[:side, :side, :side] = True
    assert cl_dice(dot, dot) == 1
    assert not centerline(np.zeros((5, 5, 5), bool)).any()


def test_a_centerline_is_one_voxel_wide_in_planes_too():
    bar = np.zeros((20, 9), np.uint8)
    bar[:, 3:6] = 4
    assert centerline(bar).sum(axis=1).max() == 1
    assert centerline(bar)[5:15, 4].all()


def tree() -> np.ndarray:
    """A trunk of 20 voxels with a side branch of 6, and a line of 9 apart from it."""
    mask = np.zeros((24, 12, 7), bool)
    mask[2:22, 5, 3] = mask[10, 5:13, 3] = True
    mask[2:11, 0, 3] = True
    return mask


def test_the_longest_path_is_the_trunk_in_millimeters():
    graph = centerline_graph(tree(), (2.0, 1.0, 1.0))
    # Where the branch leaves, the centerline cuts a corner.
    assert graph.longest_path_mm == pytest.approx(2 * 19, rel=0.02)
    assert graph.length_mm == pytest.approx(2 * 19 + 6 + 2 * 8, rel=0.02)
    assert centerline_graph(tree(), (0.1, 1.0, 1.0)).longest_path_mm == pytest.approx(0.1 * 11 + 6, abs=0.1)


def test_a_path_goes_on_with_its_points_and_ends_where_they_end():
    graph = centerline_graph(tree(), (1.0, 1.0, 1.0))
    assert graph.moved(3 * graph.points_mm).longest_path_mm == pytest.approx(3 * 19, rel=0.05)
    assert graph.within(graph.points_mm[:, 0] < 12).longest_path_mm == pytest.approx(8 + 6, abs=1.0)
    assert graph.moved(0 * graph.points_mm).longest_path_mm < 1e-6


def test_nothing_and_a_point_have_no_path():
    point = np.zeros((5, 5), bool)
    assert centerline_graph(point, (1.0, 1.0)).longest_path_mm == 0
    point[2, 2] = True
    assert centerline_graph(point, (1.0, 1.0)).longest_path_mm == 0


def test_holes_are_what_no_way_through_faces_leads_into():
    block = np.zeros((9, 9, 9), bool)
    assert holes(block) == 0
    block[1:8, 1:8, 1:8] = True
    assert holes(block) == 0
    block[3, 3, 3] = block[5, 5, 5:7] = False
    assert holes(block) == 2
    assert holes(block, smallest_voxels=2) == 1
    block[0:3, 3, 3] = False
    assert holes(block) == 1
    assert holes(~np.eye(4, dtype=bool)[1:3]) == 0
    assert holes(np.pad(~np.eye(2, dtype=bool), 1, constant_values=True)) == 2


def test_every_cavity_has_its_number():
    block = np.ones((7, 7, 7), bool)
    block[2, 2, 2] = block[4, 4, 2:5] = False
    numbered = cavities(block)
    assert sorted(np.bincount(numbered[numbered > 0])[1:].tolist()) == [1, 3]
    assert not numbered[block].any()
    block[4, 4] = False
    assert cavities(block).max() == 1


def test_tunnels_run_from_side_to_side():
    block = np.ones((7, 7, 7), bool)
    assert tunnels(block) == 0
    block[3, 3, 3] = False
    assert tunnels(block) == 0
    block[3, 3] = False
    assert tunnels(block) == 1
    block[3, :, 3] = False
    # Two ways through the block that cross: a cross has four mouths, and Betti number 1 is one less.
    assert tunnels(block) == 3
    assert tunnels(np.zeros((3, 3, 3))) == 0


def shapes() -> dict[str, np.ndarray]:
    found = {name: np.zeros((9, 9, 9), bool) for name in ("ring", "shell", "two balls")}
    found["ring"][2:7, 2:7, 4] = True
    found["ring"][4, 4, 4] = False
    found["shell"][2:7, 2:7, 2:7] = True
    found["shell"][4, 4, 4] = False
    found["two balls"][1, 1, 1] = found["two balls"][5:8, 5:8, 5:8] = True
    return found


def test_betti_numbers_of_known_shapes():
    found = {name: betti_numbers(mask) for name, mask in shapes().items()}
    assert found == {"ring": (1, 1, 0), "shell": (1, 0, 1), "two balls": (2, 0, 0)}
    assert betti_numbers(shapes()["ring"][..., 4]) == (1, 1)
    assert betti_numbers(np.zeros((4, 4, 4), bool)) == (0, 0, 0)


@pytest.mark.parametrize("shape", [(7, 8, 9), (12, 14)], ids=["volume", "slice"])
def test_betti_numbers_are_those_of_another_implementation(shape):
    import gudhi

    for seed, share in enumerate((0.1, 0.3, 0.5, 0.7, 0.9)):
        mask = np.random.default_rng(seed).random(shape) < share
        padded = np.pad(mask, 1)
        # Voxels as closed cubes: they are connected through corners.
        cubes = gudhi.CubicalComplex(top_dimensional_cells=1.0 - padded)
        cubes.compute_persistence()
        found = cubes.persistent_betti_numbers(0.0, 0.5)
        assert betti_numbers(mask) == tuple(found[: len(shape)])


def test_betti_errors_are_differences_of_each_number():
    ring, shell = shapes()["ring"], shapes()["shell"]
    assert betti_errors(ring, shell) == betti_errors(shell, ring) == (0, 1, 1)
    assert betti_errors(ring, ring) == (0, 0, 0)


def test_centerlines_overlap_within_the_radius():
    p, q = np.zeros((2, 20, 9, 9), bool)
    p[:, 4, 4] = q[:, 6, 4] = True
    assert centerline_overlap(p, q, 1.0, (1.0, 0.5, 1.0)) == 1
    assert centerline_overlap(p, q, 0.9, (1.0, 0.5, 1.0)) == 0
    half = p.copy()
    half[10:] = False
    assert centerline_overlap(half, p, 0.1, (1.0, 1.0, 1.0)) == pytest.approx(20 / 30)


def test_centerline_overlap_of_empty_masks():
    empty, full = np.zeros((5, 5, 5), bool), np.ones((5, 5, 5), bool)
    assert math.isnan(centerline_overlap(empty, empty, 1.0, (1.0, 1.0, 1.0)))
    assert centerline_overlap(empty, full, 1.0, (1.0, 1.0, 1.0)) == 0
