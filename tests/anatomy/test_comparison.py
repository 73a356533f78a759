"""Every difference between a mask and its source is found, told in words, and what a deformation may do is none."""

import numpy as np
import pytest

from cardiosynth.anatomy.comparison import Carried, Tolerances, compare, contacts
from cardiosynth.core.labels import label_table

from .test_deform import deformation

SHAPE = (30, 24, 20)
VESSEL, LEFT, RIGHT = 10, 20, 30
LABELS = label_table({"LAD": VESSEL, "left": LEFT, "right": RIGHT})


def anatomy():
    """Two vessels that run out of view, above two blocks that share a wall."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, 2:5, 15:18] = VESSEL
    mask[:, 12:15, 15:18] = VESSEL
    mask[5:15, 5:15, 4:12] = LEFT
    mask[15:25, 5:15, 4:12] = RIGHT
    return mask


def found(made, source=None, shift_mm=(0.0, 0.0, 0.0)):
    source = anatomy() if source is None else source
    volumes = {code: float((source == code).sum()) for code in (VESSEL, LEFT, RIGHT)}
    subject = deformation(SHAPE, (1.0,) * 3, translation_mm=shift_mm)
    return compare(source, Carried(made, volumes, (VESSEL,)), subject, LABELS, Tolerances())


def fault(made, source=None):
    return found(made, source).fault(Tolerances())


def test_a_mask_is_its_own_equal():
    same = found(anatomy())
    assert same.fault(Tolerances()) == same.left_view(Tolerances()) == ""
    vessel = same.structures["lad"].vessel
    assert vessel.longest_path_ratio == vessel.caliber_ratio == 1
    assert vessel.longest_path_mm == pytest.approx(29, abs=3)
    assert vessel.caliber_mm == pytest.approx(np.sqrt(4 / np.pi * 9), rel=0.1)
    assert found(anatomy()).facts()["left"]["volume_ratio"] == 1


def test_a_speck_is_found_where_both_vessels_run_out_of_view():
    made = anatomy()
    made[12:14, 8, 16] = VESSEL
    assert fault(made) == "lad has 3 pieces instead of 2"


def test_a_broken_vessel_is_found_though_both_parts_reach_the_border():
    made = anatomy()
    made[14, :10][made[14, :10] == VESSEL] = 0
    assert fault(made) == "lad has 3 pieces instead of 2"


def test_vessels_that_grow_together_are_found():
    made = anatomy()
    made[12, 4:13, 16] = VESSEL
    assert fault(made) == "lad has 1 pieces instead of 2"


def test_a_vessel_that_leaves_the_view_and_comes_back_is_whole():
    """An arch whose top is out of view has two ends in view."""
    source = np.zeros(SHAPE, np.uint8)
    source[6:8, 10:12, 10:18] = source[20:22, 10:12, 10:18] = source[6:22, 10:12, 16:18] = VESSEL
    source[5:15, 2:8, 4:12], source[15:25, 2:8, 4:12] = LEFT, RIGHT
    made = np.zeros_like(source)
    made[:, :, 6:] = source[:, :, :-6]
    same = found(made, source, shift_mm=(0.0, 0.0, 6.0))
    assert (same.structures["lad"].pieces_before, same.structures["lad"].pieces) == (1, 2)
    assert same.structures["lad"].pieces_broken_off == same.structures["lad"].pieces_lost == 0
    made[20:22, 10:12, 18] = 0
    assert found(made, source, shift_mm=(0.0, 0.0, 6.0)).structures["lad"].pieces_broken_off == 1


def test_a_hole_is_found():
    made = anatomy()
    made[8:10, 8:10, 7:9] = 0
    assert fault(made) == "left has 1 holes instead of 0"


def test_a_thicker_vessel_is_found_by_its_volume_and_by_its_caliber():
    made = anatomy()
    made[:, 1:6, 15:18] = made[:, 11:16, 15:18] = VESSEL
    assert "lad has 900 voxels instead of 540" in fault(made)
    assert found(made).structures["lad"].vessel.caliber_ratio == pytest.approx(np.sqrt(5 / 3), rel=0.1)
    wide = Tolerances(thin_volume=1.0)
    assert "caliber" in found(made).fault(wide)


def test_a_shorter_vessel_is_found_by_its_path():
    made = anatomy()
    made[22:][made[22:] == VESSEL] = 0
    wide = Tolerances(thin_volume=0.5, caliber=1.0)
    assert "longest path" in found(made).fault(wide)


def test_a_wall_between_what_touched_is_found_and_so_is_a_new_contact():
    made = anatomy()
    made[14] = np.where(made[14] == LEFT, 0, made[14])
    assert fault(made) == "left no longer touches right"
    assert fault(anatomy(), made) == "left now touches right"


def test_what_is_gone_left_the_field_of_view():
    made = anatomy()
    made[made == RIGHT] = 0
    assert found(made).left_view(Tolerances()) == "right left the field of view"
    assert found(anatomy(), shift_mm=(20.0, 0, 0)).left_view(Tolerances()) == "lad left the field of view"


def test_contacts_are_parts_of_the_smaller_surface_in_millimeters():
    mask = np.zeros((6, 6, 6), np.uint8)
    mask[1:3, 1:3, 1:3], mask[3, 1:3, 1:3] = 1, 2
    # Two voxels of 2 x 1 x 1 mm wide each way: the wall is 4 mm2 of 4 + 4 + 4 * 2 * 2 mm2.
    assert contacts(mask, (1, 2), (2.0, 1.0, 1.0)) == {(1, 2): pytest.approx(4 / 24)}
    assert contacts(mask, (1,), (2.0, 1.0, 1.0)) == {}
