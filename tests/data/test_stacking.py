import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.data.prepare.settings import PrepareSettings, SliceSettings
from cardiosynth.data.prepare.slices import cut_slices
from cardiosynth.data.stacking import by_volume, stacked

from .prepare.scans import scan

CUT = PrepareSettings(slices=SliceSettings(size=16), spacing_mm=(1.0, 1.0))


def test_a_volume_cut_into_slices_and_put_together_is_the_volume_again():
    whole = scan(np.eye(4))
    slices = cut_slices(whole, CUT)
    (found,) = by_volume(slices[::-1]).values()
    again = stacked(found)
    x, y, z = np.rint(again.affine[:3, 3]).astype(int)
    part = (slice(None), slice(x, x + 16), slice(y, y + 16), slice(z, z + len(slices)))
    assert np.array_equal(again.required_image(), whole.required_image()[part])
    assert np.array_equal(again.required_mask(), whole.required_mask()[part])
    assert again.case_id == whole.case_id
    np.testing.assert_allclose(again.affine[:3, :3], np.eye(3))


def test_a_slice_that_is_missing_in_between_is_empty():
    slices = cut_slices(scan(np.eye(4)), CUT)
    again = stacked([*slices[:2], *slices[3:]])
    assert again.grid.shape == (16, 16, len(slices))
    assert not again.required_mask()[..., 2].any()
    assert np.array_equal(again.required_mask()[..., 3], slices[3].required_mask())


def test_what_does_not_fit_together_is_refused():
    slices = cut_slices(scan(np.eye(4)), CUT)
    with pytest.raises(InputError, match="do not fit together"):
        stacked([slices[0], slices[0]])
    with pytest.raises(InputError, match="is no slice of a volume"):
        by_volume([scan(np.eye(4))])
