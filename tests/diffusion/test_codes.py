"""MAISI's codes: facts of its label table, names of three vocabularies, and what is told of a body."""

import numpy as np
import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT, label_table
from cardiosynth.diffusion.codes import (
    BODY,
    MAISI_CODES,
    code_table,
    lacks_body,
    maisi_code,
    released_labels,
    told_mask,
)
from cardiosynth.diffusion.control import ConditionSettings


def test_the_table_is_maisis():
    """132 places, eight of them free, and the body; checked at both ends of every run of names."""
    known = {
        "liver": 1, "aorta": 6, "portal_vein_and_splenic_vein": 17, "brain": 22, "right_lung_lower_lobe": 32,
        "vertebrae_l5": 33, "vertebrae_l1": 37, "vertebrae_t12": 38, "vertebrae_t1": 49, "vertebrae_c7": 50,
        "vertebrae_c1": 56, "trachea": 57, "colon": 62, "left_rib_1": 63, "left_rib_12": 74, "right_rib_1": 75,
        "right_rib_12": 86, "left_humerus": 87, "right_hip": 96, "sacrum": 97, "right_gluteus_minimus": 103,
        "right_iliopsoas": 107, "left_atrial_appendage": 108, "heart": 115, "pulmonary_vein": 119,
        "superior_vena_cava": 125, "bone_lesion": 128, "airway": 132, "body": 200,
    }  # fmt: skip
    assert {name: MAISI_CODES[name] for name in known} == known
    assert len(MAISI_CODES) == len(set(MAISI_CODES.values())) == 125
    assert set(range(1, 133)) - set(MAISI_CODES.values()) == {2, 16, 18, 20, 21, 129, 130, 131}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("kidney_right", 5), ("Right Kidney", 5), ("rib_left_7", 69), ("lung_upper_lobe_left", 28),
        ("vertebrae_T4", 46), ("urinary_bladder", 15), ("heart_atrium_left", 115), ("left_ventricular_myocardium", 115),
        ("ascending_aorta", 6), ("coronary_artery", 115), ("pulmonary_artery", BODY), ("lung", None),
        ("great_veins", None),
    ],
)  # fmt: skip
def test_names_of_three_vocabularies_are_understood_and_nothing_is_guessed(name, code):
    assert maisi_code(name) == code


def test_structures_without_a_code_are_refused_all_at_once():
    with pytest.raises(InputError, match=r"no code for lung, ribs_and_sternum, spine, great_veins;"):
        code_table(CARDIAC_CT)


def test_every_target_of_ours_has_a_code_and_so_has_every_label_of_released_weights():
    labels = released_labels()
    table = code_table(labels)
    assert [label.name for label in labels.targets] == [label.name for label in CARDIAC_CT.targets]
    assert all(table[label.code] == label.code for label in labels if label.role == "surrounding")
    assert all(table[label.code] in (6, 115, BODY) for label in labels.targets)


LABELS = label_table({"left_ventricle": 3, "aorta": 4, "liver": 9})


def case(labels=LABELS, **changes):
    image, mask = np.full((1, 12, 12, 4), -1000, np.int16), np.zeros((1, 12, 12, 4), np.uint8)
    image[:, 2:10, 2:10] = 40
    mask[:, 3:5, 3:5], mask[:, 6:8, 6:8], mask[:, 6:8, 3:5] = 3, 4, 9
    values = {"case_id": "c", "image": image, "mask": mask, "affine": np.eye(4), "labels": labels}
    return Case(**{**values, **changes})


def test_a_mask_is_told_in_maisis_codes_with_the_body_seen_in_its_image():
    given = case()
    told = told_mask(given, "maisi")
    np.testing.assert_array_equal(np.unique(told), [0, 1, 6, 115, BODY])
    np.testing.assert_array_equal(told > 0, given.image > 0)
    assert all(np.array_equal(told == new, given.mask == old) for old, new in ((3, 115), (4, 6), (9, 1)))
    np.testing.assert_array_equal(told_mask(given, "own"), given.mask)


def test_a_body_in_the_mask_is_left_as_it_is():
    labels = label_table({"left_ventricle": 3, "aorta": 4, "liver": 9, "body": 20})
    mask = case().mask.copy()
    mask[:, 9, 9] = 20
    given = case(labels, mask=mask)
    assert not lacks_body(given)
    np.testing.assert_array_equal(told_mask(given, "maisi") == BODY, mask == 20)


@pytest.mark.parametrize("changes", [{"image": None}, {"intensity_unit": "mr"}])
def test_without_an_image_in_hu_a_missing_body_is_refused(changes):
    assert lacks_body(case(**changes))
    with pytest.raises(InputError, match=r"no label 'body'.*add the label"):
        told_mask(case(**changes), "maisi")


def test_maisis_codes_are_for_bit_planes_of_a_template():
    with pytest.raises(ValueError, match="set kind=template and encoding=bits"):
        ConditionSettings(kind="painted", codes="maisi")
