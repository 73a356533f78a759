import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT, LabelTable, label_table, normalized_name, relabel


def test_the_default_table_is_the_papers_eight_structures_and_surroundings():
    assert CARDIAC_CT.target_codes == (1, 2, 3, 4, 5, 6, 7, 8)
    assert [CARDIAC_CT.named(n).code for n in ("coronary artery", "Left Ventricle", "pulmonary-artery")] == [1, 4, 8]
    assert all(label.role == "surrounding" for label in CARDIAC_CT if label.code > 8)


def test_only_targets_removes_surroundings_and_nothing_else():
    mask = np.arange(18, dtype=np.uint8).reshape(1, 3, 6)
    assert CARDIAC_CT.only_targets(mask).ravel().tolist() == [*range(9), *[0] * 9]


def test_colors_are_black_for_background_and_the_labels_own_elsewhere():
    colors = CARDIAC_CT.colors()
    assert colors.shape == (256, 3)
    assert (colors[0] == 0).all()
    assert (colors[200] == 128).all()
    assert tuple(colors[4]) == CARDIAC_CT.named("left ventricle").color
    targets = [tuple(colors[code]) for code in CARDIAC_CT.target_codes]
    assert len(set(targets)) == len(targets)


def test_a_plain_table_takes_what_is_known_of_a_structure():
    table = label_table({"background": 0, "Left Ventricle": 5, "my valve": 7, "lung": 9}, surroundings=["my valve"])
    assert table.codes == (5, 7, 9)
    assert table.named("left ventricle").color == CARDIAC_CT.named("left ventricle").color
    assert table.named("left ventricle").components == 1
    assert [label.role for label in table] == ["target", "surrounding", "surrounding"]


def test_a_wrong_name_is_answered_with_the_right_one():
    with pytest.raises(InputError, match="did you mean 'left_atrium'"):
        CARDIAC_CT.named("left artium")


@pytest.mark.parametrize(
    ("names", "part"),
    [
        ({"a": 1, "b": 1}, "code 1 more than once"),
        ({"Aorta": 1, "aorta": 2}, "name aorta more than once"),
        ({"a": 256}, "less than or equal to 255"),
        ({"?": 1}, "should match pattern"),
        ({}, "at least 1 item"),
    ],
)
def test_an_impossible_table_is_refused(names: dict[str, int], part: str):
    with pytest.raises(InputError, match=part):
        label_table(names)


def test_relabeling_goes_by_name_and_tells_what_is_lost():
    source, target = (
        label_table({"aorta": 1, "left atrium": 2, "valve": 3}),
        label_table({"left atrium": 7, "aorta": 8}),
    )
    mask, missing = relabel(np.array([0, 1, 2, 3], np.uint8), source, target)
    assert mask.tolist() == [0, 8, 7, 0]
    assert missing == ["valve"]


def test_a_table_survives_json():
    assert LabelTable.model_validate_json(CARDIAC_CT.model_dump_json()) == CARDIAC_CT


def test_names_are_lower_case_with_single_underscores():
    assert normalized_name(" Left-Ventricle  (LV) ") == "left_ventricle_lv"


def test_arteries_and_veins_are_vessels_and_chambers_are_not():
    vessels = {label.name for label in CARDIAC_CT if label.is_vessel}
    assert vessels == {"coronary_artery", "ascending_aorta", "pulmonary_artery", "descending_aorta", "great_veins"}
