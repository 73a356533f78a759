import numpy as np
import pytest
import torch

from cardiosynth.core.errors import InputError
from cardiosynth.metrics.fidelity import ssim
from cardiosynth.metrics.multiscale import SCALE_WEIGHTS, ms_ssim, num_scales


def noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def test_the_coarsest_scale_still_holds_a_window():
    assert num_scales((175, 176)) == 4
    assert num_scales((176, 176)) == 5
    assert num_scales((1000, 1000)) == 5
    assert num_scales((128, 128)) == 4
    assert num_scales((11, 11)) == 1
    assert num_scales((64, 64, 8)) == 3
    with pytest.raises(InputError, match="11 voxels along two axes"):
        num_scales((64, 8, 8))


@pytest.mark.parametrize("shape", [(180, 176), (47, 53), (24, 28, 23)])
def test_agrees_with_monai(shape):
    from monai.metrics.regression import MultiScaleSSIMMetric

    x = noise(shape, 0)
    y = np.clip(0.7 * x + 0.3 * noise(shape, 1), 0, 1)
    weights = np.array(SCALE_WEIGHTS[: num_scales(shape)])
    oracle = MultiScaleSSIMMetric(
        len(shape), data_range=1.0, kernel_size=11, kernel_sigma=1.5, weights=tuple(weights / weights.sum())
    )
    a, b = (torch.from_numpy(image)[None, None] for image in (x, y))
    assert ms_ssim(x, y, 1.0) == pytest.approx(float(oracle(a, b)), abs=1e-4)


def test_one_scale_is_ssim():
    x, y = noise((13, 14), 0), noise((13, 14), 1)
    assert num_scales(x.shape) == 1
    assert ms_ssim(x, y, 1.0) == pytest.approx(max(ssim(x, y, 1.0), 0), abs=1e-5)


def test_constants_differ_in_luminance_at_the_coarsest_scale_alone():
    x, y = np.full((44, 44), 0.2, np.float32), np.full((44, 44), 0.6, np.float32)
    luminance = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    share = SCALE_WEIGHTS[2] / sum(SCALE_WEIGHTS[:3])
    assert ms_ssim(x, y, 1.0) == pytest.approx(luminance**share, abs=1e-5)


def test_equal_images_are_one_and_units_do_not_matter():
    x, y = noise((30, 30), 0), noise((30, 30), 1)
    assert ms_ssim(x, x, 1.0) == pytest.approx(1)
    assert ms_ssim(1000 * x, 1000 * y, 1000.0) == pytest.approx(ms_ssim(x, y, 1.0), abs=1e-5)


def test_images_turned_inside_out_are_nothing_alike():
    x = noise((30, 30), 0)
    assert ms_ssim(x, 1 - x, 1.0) == 0


def test_few_slices_are_compared_one_by_one():
    x, y = noise((24, 24, 3), 0), noise((24, 24, 3), 1)
    assert ms_ssim(x, y, 1.0) == pytest.approx(np.mean([ms_ssim(x[..., z], y[..., z], 1.0) for z in range(3)]))
