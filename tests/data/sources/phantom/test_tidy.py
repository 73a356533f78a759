import numpy as np

from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.data.sources.phantom.tidy import CUT_OFF_CODE, without_cut_off_pieces

ATRIUM, CORONARY, LUNG = (CARDIAC_CT.named(n).code for n in ("left_atrium", "coronary_artery", "lung"))


def pieces(code):
    mask = np.zeros((9, 9, 9), np.uint8)
    mask[0:3, 0:3, 0:3] = code
    mask[5:7, 5:7, 5:7] = code
    mask[8, 0, 0] = code
    return mask


def test_the_largest_pieces_stay_and_the_others_become_mediastinum():
    mask = pieces(ATRIUM)
    tidy = without_cut_off_pieces(mask)
    assert (tidy == ATRIUM).sum() == 27
    assert (tidy == CUT_OFF_CODE).sum() == 9
    assert (mask == ATRIUM).sum() == 36


def test_as_many_pieces_stay_as_the_table_expects():
    tidy = without_cut_off_pieces(pieces(CORONARY))
    assert (tidy == CORONARY).sum() == 35


def test_pieces_that_touch_at_a_corner_are_one():
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = ATRIUM
    assert np.array_equal(without_cut_off_pieces(mask), mask)


def test_surroundings_may_have_any_number_of_pieces():
    assert np.array_equal(without_cut_off_pieces(pieces(LUNG)), pieces(LUNG))
