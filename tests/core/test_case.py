import numpy as np
import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import label_table

IMAGE = np.zeros((1, 3, 4, 5), np.int16)
MASK = np.ones((1, 3, 4, 5), np.uint8)


def make(**changes) -> Case:
    return Case(**{"case_id": "a-1", "image": IMAGE, "mask": MASK, "affine": np.eye(4), **changes})


def test_a_case_knows_its_grid_with_or_without_an_image():
    affine = np.diag([1, 2, 3, 1])
    assert make(affine=affine).spacing_mm == (1, 2, 3)
    assert make(affine=affine, image=None).grid.same_as(make(affine=affine).grid)
    assert make(affine=affine, spacing_known=False).spacing_mm is None
    assert make(image=IMAGE[..., 0], mask=MASK[..., 0]).grid.shape == (3, 4)


def test_what_no_scanner_made_is_simulated():
    assert [make(origin=origin).is_simulated for origin in ("real", "phantom", "synthetic")] == [False, True, True]


def test_asking_for_an_absent_part_says_which_file_to_add():
    with pytest.raises(InputError, match=r"imagesTr/a-1_0000\.nii\.gz"):
        make(image=None).required_image()
    with pytest.raises(InputError, match=r"labelsTr/a-1\.nii\.gz"):
        make(mask=None).required_mask()
    assert make().required_image() is IMAGE
    assert make().required_mask() is MASK


def test_a_changed_copy_is_checked_again():
    assert make().with_(case_id="b").case_id == "b"
    with pytest.raises(InputError, match="cannot name a case"):
        make().with_(case_id="b/c")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"case_id": ""}, "cannot name a case"),
        ({"case_id": "a b"}, "cannot name a case"),
        ({"image": None, "mask": None}, "neither image nor mask"),
        ({"affine": np.eye(3)}, "4x4"),
        ({"affine": np.full((4, 4), np.nan)}, "finite 4x4"),
        ({"affine": np.diag([1.0, 0, 1, 1])}, "singular"),
        ({"image": IMAGE[0]}, "give \\(1, X, Y"),
        ({"image": np.zeros((2, 3, 4, 5), np.int16)}, "give \\(1, X, Y"),
        ({"image": IMAGE.astype(np.float64)}, "give int16 or float32"),
        ({"image": np.full(IMAGE.shape, np.inf, np.float32)}, "60 voxels are not finite"),
        ({"mask": MASK[..., :4]}, "different grids"),
        ({"mask": MASK.astype(np.int16)}, "give uint8"),
        ({"mask": MASK * np.uint8(99)}, "holds 99"),
        ({"image": None, "mask": MASK[0, 0]}, "mask has shape"),
        ({"confidence": np.ones((1, 3, 4, 6), np.float32)}, "on the image's grid"),
        ({"confidence": np.ones((2, 3, 4, 5), np.float32)}, "on the image's grid"),
        ({"confidence": np.ones(IMAGE.shape)}, "float32"),
        ({"confidence": np.full(IMAGE.shape, 1.5, np.float32)}, "leaves"),
        ({"confidence": np.full(IMAGE.shape, np.nan, np.float32)}, "leaves"),
    ],
)
def test_nonsense_is_refused_at_the_door(changes: dict, part: str):
    with pytest.raises(InputError, match=part):
        make(**changes)


def test_the_users_own_labels_decide_which_codes_are_known():
    table = label_table({"valve": 99})
    assert make(mask=MASK * np.uint8(99), labels=table).labels is table
