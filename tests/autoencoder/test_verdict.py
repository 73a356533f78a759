import numpy as np
import pytest

from cardiosynth.autoencoder.verdict import verdict
from cardiosynth.core.intensity import Window

from .blobs import blob

WINDOW = Window(low=-1000.0, high=2000.0)


def judged(reconstruct, cases):
    return verdict(reconstruct, lambda case: WINDOW, cases)


def test_a_shift_is_bias_and_costs_no_contrast():
    found = judged(lambda case: case.image + 30.0, [blob(0), blob(1)])
    assert found["cases"] == ["blob-0", "blob-1"]
    assert found["psnr_db"] == pytest.approx(20 * np.log10(3000 / 30))
    assert found["psnr_heart_db"] == pytest.approx(20 * np.log10(3000 / 30))
    assert found["hu_bias"]["left_ventricle"] == pytest.approx(30)
    assert found["psnr_structure_db"]["coronary_artery"] == pytest.approx(40)
    assert found["contrast_kept"]["coronary_artery"] == pytest.approx(1)


def test_a_faded_image_keeps_the_faded_part_of_every_contrast():
    found = judged(lambda case: 0.25 * case.image.astype(np.float32), [blob(0)])
    assert found["contrast_kept"]["left_ventricle"] == pytest.approx(0.25)
    assert found["contrast_kept"]["left_atrium"] is None


def test_cases_without_masks_have_an_error_and_nothing_per_structure():
    found = judged(lambda case: case.image + 3.0, [blob(0, with_mask=False)])
    assert found["psnr_db"] == pytest.approx(60)
    assert found["psnr_heart_db"] is None
    assert found["contrast_kept"] == found["psnr_structure_db"] == {}
