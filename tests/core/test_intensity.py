import numpy as np
import pydantic
import pytest
import torch

from cardiosynth.core.intensity import NORMALIZED_MR, IntensityScale, Window, normalized, rounded_image, why_not_hu


def test_the_window_maps_there_and_back_and_clips():
    window = Window(low=-1000, high=2000)
    image = np.array([-1024.0, -1000, 500, 2000, 3000])
    assert window.to_model(image).tolist() == [0, 0, 0.5, 1, 1]
    np.testing.assert_allclose(window.from_model(window.to_model(image)), image.clip(-1000, 2000))
    assert torch.equal(window.to_model(torch.tensor([500.0])), torch.tensor([0.5]))
    assert window.from_model(np.array([1.7])).item() == 2000
    assert window.width == 3000


def test_an_empty_window_is_refused():
    with pytest.raises(pydantic.ValidationError, match="empty"):
        Window(low=3, high=3)


def test_ct_has_one_window_and_mr_each_volume_its_own():
    image = np.linspace(100, 300, 1001)
    assert IntensityScale().window_of(image) == Window(low=-1000, high=2000)
    fitted = IntensityScale(unit="mr", percentiles=(10, 90)).window_of(image)
    assert (fitted.low, fitted.high) == pytest.approx((120, 280))
    assert IntensityScale(unit="mr").window_of(np.zeros(8)).width > 0


def test_normalized_volumes_have_their_percentiles_at_0_and_1000_and_a_slice_keeps_the_volumes_scale():
    volume = np.linspace(100, 4100, 2001)
    found, own = normalized(volume)
    assert found.dtype == np.int16
    assert np.percentile(found, (0.5, 99.5)).tolist() == pytest.approx([0, 1000], abs=0.5)
    assert (own.low, own.high) == pytest.approx((120, 4080))
    assert (found.min(), found.max()) == (-5, 1005), "nothing is clipped"
    assert NORMALIZED_MR.window_of(found[:7]) == NORMALIZED_MR.window_of(found) == Window(low=0, high=1000)


def test_images_are_stored_rounded_and_clipped_to_int16():
    found = rounded_image(np.array([1.5, 2.5, -0.4, 40000, -40000]))
    assert found.dtype == np.int16
    assert found.tolist() == [2, 2, 0, 32767, -32768]


@pytest.mark.parametrize(
    ("values", "is_doubtful"),
    [
        (np.array([-1024, 3071], np.int16), False),
        (np.array([0, 300], np.int16), False),
        (np.array([0, 4095], np.int16), True),
        (np.array([0, 1], np.int16), False),
        (np.array([0, 0.7], np.float32), True),
        (np.array([0, 0], np.float32), False),
    ],
)
def test_values_that_no_ct_has_are_recognized(values: np.ndarray, is_doubtful: bool):
    assert (why_not_hu(values) is not None) == is_doubtful
