import json
from pathlib import Path

import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.data.listing import given_spacings, mask_beside, spacing_of


def test_voxel_sizes_are_found_by_case_then_patient_then_for_all(tmp_path: Path):
    assert given_spacings(tmp_path) == {}
    (tmp_path / "spacing.json").write_text(json.dumps({"a_frame1": [1, 1, 5], "a": [2, 2, 5], "*": [3, 3, 5]}))
    sizes = given_spacings(tmp_path)
    assert spacing_of(sizes, "a_frame1", "a") == (1, 1, 5)
    assert spacing_of(sizes, "a_frame2", "a") == (2, 2, 5)
    assert spacing_of(sizes, "b_frame1", "b") == (3, 3, 5)
    assert spacing_of({}, "b_frame1", "b") is None


@pytest.mark.parametrize("content", ["[1, 2]", '{"a": 1}', '{"a": [0, 1, 1]}', '{"a": ["1", 1, 1]}'])
def test_a_table_of_voxel_sizes_that_is_none_is_refused_by_name(tmp_path: Path, content: str):
    (tmp_path / "spacing.json").write_text(content)
    with pytest.raises(InputError, match=r"spacing\.json.*in millimeters"):
        given_spacings(tmp_path)


def test_a_mask_is_found_whatever_its_ending(tmp_path: Path):
    (tmp_path / "[1]_label.nii").touch()
    (tmp_path / "[1]_label.txt").touch()
    assert mask_beside(tmp_path / "[1]_image.nii.gz", "[1]_label").name == "[1]_label.nii"
    assert mask_beside(tmp_path / "2_image.nii.gz", "2_label").name == "2_label.nii.gz"
