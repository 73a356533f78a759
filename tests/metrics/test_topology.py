import math

import numpy as np

from cardiosynth.metrics.topology import betti0_error, components, connectivity_error, largest_component_fraction


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
