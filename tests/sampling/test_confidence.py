"""Skip-Sampling Variance: its moments, its normalization, and why the printed sum says nothing."""

import numpy as np
import pytest
import torch

from cardiosynth.core.random import numpy_generator
from cardiosynth.sampling.confidence import (
    ConfidenceSettings,
    Dispersion,
    SkipSamplingVariance,
    normalized_confidence,
    smoothed,
)

IMAGES = numpy_generator(0, "images").normal(100.0, 20.0, (5, 1, 6, 6, 6)).astype(np.float32)


def watched(settings, images):
    """Feed a sampler's steps whose decoded images are known."""
    watcher = SkipSamplingVariance(settings, lambda z: images[int(z.flatten()[0])])
    for step in range(len(images)):
        denoised = torch.full((1, 1, 1, 1, 1), float(step))
        watcher(step, denoised.flip(0), torch.tensor(0.5), denoised)
    return watcher.confidence()


def test_streamed_dispersion_is_the_standard_deviation_with_the_printed_divisor():
    dispersion = Dispersion()
    for image in IMAGES:
        dispersion.add(image)
    np.testing.assert_allclose(dispersion.std(), IMAGES.std(0, ddof=1), rtol=1e-5)


def test_dispersion_stays_exact_and_in_float32_over_a_thousand_images_far_from_zero():
    rng = numpy_generator(0, "many")
    images = rng.normal(1500.0, 3.0, (1000, 1, 4, 4, 4)).astype(np.float32)
    dispersion = Dispersion()
    for image in images:
        dispersion.add(image)
    assert dispersion.std().dtype == np.float32
    np.testing.assert_allclose(dispersion.std(), images.std(0, ddof=1, dtype=np.float64), rtol=1e-4)


def test_one_image_has_no_dispersion():
    dispersion = Dispersion()
    with pytest.raises(AssertionError, match="needs two images"):
        dispersion.std()
    dispersion.add(IMAGES[0])
    with pytest.raises(AssertionError, match="needs two images"):
        dispersion.std()


def test_the_printed_signed_sum_is_zero_for_any_images():
    r = len(IMAGES) - 1
    printed = (IMAGES.astype(np.float64) - IMAGES.mean(0, dtype=np.float64)).sum(0) / r
    assert np.abs(printed).max() < 1e-10


@pytest.mark.parametrize(("interval", "used"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3]), (4, [0, 4])])
def test_every_kth_step_is_decoded(interval, used):
    settings = ConfidenceSettings(interval=interval, box=1, percentiles=(0.0, 100.0))
    confidence, facts = watched(settings, IMAGES)
    spread = IMAGES[used].std(0, ddof=1)
    expected = 1 - (spread - spread.min()) / (spread.max() - spread.min())
    np.testing.assert_allclose(confidence, expected, atol=1e-4)
    assert (facts["images"], facts["divisor"]) == (len(used), len(used) - 1)
    assert settings.num_images(len(IMAGES)) == len(used)


def test_confidence_is_lowest_where_the_image_moves_most():
    images = np.zeros((4, 1, 8, 8, 8), np.float32)
    images[:, :, 4:] += 10 * np.arange(4, dtype=np.float32)[:, None, None, None, None]
    confidence, _ = watched(ConfidenceSettings(interval=1), images)
    assert confidence[0, 0].min() == 1
    assert confidence[0, -1].max() == 0
    assert confidence.dtype == np.float32


def test_a_sampler_that_never_moves_is_trusted_everywhere():
    confidence, facts = watched(ConfidenceSettings(interval=1), np.ones((3, 1, 4, 4, 4), np.float32))
    assert (confidence == 1).all()
    assert facts["std_at_confidence_0"] == 0


def test_percentiles_are_robust_and_scale_does_not_matter():
    spread = numpy_generator(0, "spread").gamma(2.0, 1.0, (1, 10, 10, 10)).astype(np.float32)
    plain, _ = normalized_confidence(spread, (1.0, 99.0))
    scaled, (low, high) = normalized_confidence(spread * 7, (1.0, 99.0))
    np.testing.assert_allclose(plain, scaled, atol=1e-5)
    assert (low, high) == pytest.approx(tuple(np.percentile(spread * 7, (1, 99))))
    assert plain.min() == 0
    assert plain.max() == 1


def test_smoothing_keeps_constants_also_at_the_border():
    np.testing.assert_allclose(smoothed(np.full((1, 5, 5, 5), 2.0, np.float32), 3), 2.0, rtol=1e-6)
    point = np.zeros((1, 5, 5, 5), np.float32)
    point[0, 2, 2, 2] = 27
    np.testing.assert_allclose(smoothed(point, 3)[0, 1:4, 1:4, 1:4], 1.0, rtol=1e-6)


@pytest.mark.parametrize("changes", [{"box": 2}, {"percentiles": (99.0, 1.0)}])
def test_settings_that_make_no_sense_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        ConfidenceSettings(**changes)
