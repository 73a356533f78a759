import math

import numpy as np
import pytest
import torch

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.metrics.fidelity import (
    contrast_kept,
    mean_hu_error,
    psnr,
    rmse,
    slice_step,
    ssim,
    ssim_map,
    structure_contrast,
    structure_means,
    structure_psnr,
)

CORONARY, AORTA = CARDIAC_CT.named("coronary_artery"), CARDIAC_CT.named("ascending_aorta")


def noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def test_rmse_and_psnr_of_a_constant_difference():
    x = np.zeros((4, 5, 6), np.int16)
    assert rmse(x, x + np.int16(10)) == 10
    assert psnr(x, x + np.int16(10), data_range=1000.0) == pytest.approx(40)
    assert psnr(x, x, data_range=1.0) == math.inf


def test_rmse_does_not_overflow_int16():
    low, high = np.full((3, 3), -30000, np.int16), np.full((3, 3), 30000, np.int16)
    assert rmse(low, high) == 60000


def test_ssim_of_constants_is_the_luminance_term():
    x, y = np.full((12, 12, 12), 0.2, np.float32), np.full((12, 12, 12), 0.6, np.float32)
    c1 = 0.01**2
    assert ssim(x, y, data_range=1.0) == pytest.approx((2 * 0.2 * 0.6 + c1) / (0.2**2 + 0.6**2 + c1), abs=1e-5)


def test_ssim_of_equal_images_is_one_and_is_symmetric():
    x, y = noise((14, 14, 14), 0), noise((14, 14, 14), 1)
    assert ssim(x, x, 1.0) == pytest.approx(1)
    assert ssim(x, y, 1.0) == pytest.approx(ssim(y, x, 1.0))
    assert ssim(1000 * x, 1000 * y, 1000.0) == pytest.approx(ssim(x, y, 1.0), abs=1e-5)


def test_ssim_agrees_with_monai():
    from monai.metrics.regression import SSIMMetric

    x = noise((20, 22, 24), 0)
    y = np.clip(x + 0.2 * noise((20, 22, 24), 1), 0, 1.0)
    oracle = SSIMMetric(spatial_dims=3, data_range=1.0, win_size=11, kernel_sigma=1.5)
    expected = float(oracle(torch.from_numpy(x)[None, None], torch.from_numpy(y)[None, None]))
    assert ssim(x, y, 1.0) == pytest.approx(expected, abs=1e-4)


def test_ssim_in_a_region_is_the_mean_of_the_map_there():
    x, y = noise((13, 13, 13), 0), noise((13, 13, 13), 1)
    region = np.zeros((13, 13, 13), bool)
    region[2:6, 3:9, 1:4] = True
    assert ssim(x, y, 1.0, region) == pytest.approx(float(ssim_map(x, y, 1.0)[region].mean()))
    assert math.isnan(ssim(x, y, 1.0, np.zeros_like(region)))


def test_few_slices_are_compared_one_by_one():
    x, y = noise((16, 16, 4), 0), noise((16, 16, 4), 1)
    assert ssim(x, y, 1.0) == pytest.approx(np.mean([ssim(x[..., z], y[..., z], 1.0) for z in range(4)]))


def test_ssim_refuses_what_its_window_does_not_fit():
    with pytest.raises(InputError, match="11 voxels"):
        ssim(noise((16, 8, 4), 0), noise((16, 8, 4), 1), 1.0)


def test_steps_across_slices():
    image = np.zeros((3, 4, 5), np.int16)
    image[..., 1::2] = 10
    assert slice_step(image, 2) == 10
    assert slice_step(image, 0) == 0
    image[..., :] = np.array([-32000, 32000, 32000, 32000, 32000])
    assert slice_step(image, 2) == 16000
    assert math.isnan(slice_step(image[..., :1], 2))


def sphere_case() -> tuple[np.ndarray, np.ndarray]:
    points = np.indices((24, 24, 24)) - 12
    mask = np.where(np.sqrt((points**2).sum(0)) <= 5, CORONARY.code, 0).astype(np.uint8)
    return np.where(mask > 0, 300, -100).astype(np.int16), mask


def test_contrast_of_a_bright_ball_in_fat():
    image, mask = sphere_case()
    assert structure_contrast(image, mask, CORONARY.code) == 400
    assert math.isnan(structure_contrast(image, mask, AORTA.code))
    assert math.isnan(structure_contrast(image, np.ones_like(mask), CORONARY.code))


def test_the_shell_is_two_voxels_thick():
    mask = np.zeros((11,), np.uint8)
    mask[5] = CORONARY.code
    image = np.abs(np.arange(11) - 5).astype(np.int16)
    assert structure_contrast(image, mask, CORONARY.code) == -1.5
    assert structure_contrast(image, mask, CORONARY.code, shell_voxels=3) == -2


def test_contrast_kept_does_not_see_a_bias():
    image, mask = sphere_case()
    half = (image // 2 + 37).astype(np.int16)
    kept = contrast_kept(half, image, mask, CARDIAC_CT)
    assert kept["coronary_artery"] == 0.5
    assert math.isnan(kept["ascending_aorta"])
    assert contrast_kept(np.zeros_like(image), image, mask, [CORONARY]) == {"coronary_artery": 0}


def test_contrast_kept_is_undefined_without_contrast():
    image, mask = sphere_case()
    faint = np.where(mask > 0, 5, 0).astype(np.int16)
    assert math.isnan(contrast_kept(image, faint, mask, [CORONARY])["coronary_artery"])


def test_mean_hu_error_has_a_sign():
    image, mask = sphere_case()
    darker = (image - 25).astype(np.int16)
    assert mean_hu_error(darker, image, mask, [CORONARY]) == {"coronary_artery": -25}
    means = structure_means(image, mask)
    assert means[CORONARY.code] == 300
    assert means[0] == -100
    assert np.isnan(means[2:]).all()


def test_the_error_of_each_structure_is_its_own():
    image, mask = sphere_case()
    noisy = np.where(mask == CORONARY.code, image + 30, image + 3).astype(np.int16)
    found = structure_psnr(noisy, image, mask, [CORONARY, AORTA], data_range=3000)
    assert found["coronary_artery"] == pytest.approx(40)
    assert math.isnan(found["ascending_aorta"])
    assert structure_psnr(image, image, mask, [CORONARY], data_range=3000) == {"coronary_artery": math.inf}
