import math

import numpy as np
import pytest

from cardiosynth.core.intensity import Window
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.evaluation.measures import heart as heart_region
from cardiosynth.evaluation.measures import measure_case, measure_pair

NAMES = ["left_ventricle", "coronary_artery", "spine", "liver"]
WINDOW = Window(low=-1000.0, high=1000.0)


def test_a_structure_is_measured_in_physical_units(heart):
    found = measure_case(heart("a"), NAMES)
    assert sorted(found.structures) == ["coronary_artery", "left_ventricle", "spine"]
    ventricle = found.structures["left_ventricle"]
    assert (ventricle.mean, ventricle.sd, ventricle.contrast) == (300, 0, 400)
    assert (ventricle.pieces, ventricle.largest) == (1, 1)
    assert ventricle.volume_ml == pytest.approx(6**3 * 8 / 1000)
    assert math.isnan(ventricle.confidence)
    assert math.isnan(found.structures["spine"].contrast)


def test_without_an_image_or_a_voxel_size_the_rest_is_still_measured(heart):
    found = measure_case(heart("a", image=None, spacing_known=False), NAMES).structures["left_ventricle"]
    assert found.pieces == 1
    assert all(math.isnan(v) for v in (found.mean, found.sd, found.contrast, found.volume_ml))


def test_tunnels_and_cavities_are_counted_in_targets(heart):
    mask = heart("a").required_mask().copy()
    mask[0, 6, 6, 4:10] = mask[0, 8, 8, 6] = 0  # through the ventricle, and inside it
    found = measure_case(heart("a", mask=mask), NAMES).structures
    assert (found["left_ventricle"].tunnels, found["left_ventricle"].cavities) == (1, 1)
    assert (found["coronary_artery"].tunnels, found["coronary_artery"].cavities) == (0, 0)
    assert math.isnan(found["spine"].tunnels)


def test_confidence_inside_and_outside(synthetic):
    found = measure_case(synthetic("a", "b"), NAMES)
    assert (found.confidence_inside, found.confidence_outside) == pytest.approx((0.8, 0.2))
    assert found.structures["coronary_artery"].confidence == pytest.approx(0.8)


def test_an_offset_is_an_error_but_keeps_the_contrast(heart, synthetic):
    real, made = heart("a"), synthetic("b", "a", offset=50)
    found = measure_pair(real, made.required_image(), WINDOW, list(CARDIAC_CT))
    assert found.rmse == 50
    assert found.rmse_model == pytest.approx(0.025, abs=1e-6)
    assert found.psnr_db == pytest.approx(20 * math.log10(1 / 0.025), abs=1e-3)
    assert found.error["left_ventricle"] == 50
    assert found.kept["coronary_artery"] == 1
    assert 0.9 < found.ssim < 1
    assert 0.9 < found.ssim_heart < 1
    assert math.isnan(found.error["liver"])
    assert "spine" not in found.kept


def test_the_window_clips_similarity_but_not_the_error_in_hu(heart):
    real = heart("a")
    brighter = np.where(real.required_image() > 0, 5000, real.required_image()).astype(np.int16)
    dark = Window(low=-1000.0, high=0.0)
    found = measure_pair(real, brighter, dark, [])
    assert found.rmse_model == 0
    assert found.rmse > 1000


def test_the_heart_is_one_voxel_wider_than_its_structures(heart):
    mask = np.zeros((1, 12, 12, 12), np.uint8)
    mask[0, 5, 5, 5] = 4
    mask[0, 0, 0, 0] = CARDIAC_CT.named("spine").code
    assert heart_region(heart("a").with_(image=None, mask=mask)).sum() == 27
