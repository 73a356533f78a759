from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.data.formats.volume import Volume, as_mask


def volume(values: np.ndarray) -> Volume:
    return Volume(values[None], np.eye(4))


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_codes_beyond_255_are_renumbered_and_the_background_stays(dtype: type):
    found = as_mask(volume(np.array([[0, 205], [820, 421]], dtype)), Path("a"), {205: 7, 820: 2, 421: 3, 420: 3})
    assert np.array_equal(found.array[0], [[0, 7], [2, 3]])
    assert found.array.dtype == np.uint8


def test_a_code_that_is_not_expected_is_refused_by_name():
    with pytest.raises(InputError, match=r"a\.nii holds the code 7, 900; expected are 205, 420"):
        as_mask(volume(np.array([[7, 205], [900, 0]])), Path("a.nii"), {205: 1, 420: 2})
