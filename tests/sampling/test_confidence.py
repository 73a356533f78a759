"""Skip-Sampling Variance: its moments, its normalization, and why the printed sum says nothing."""

import numpy as np
import pytest
import torch

from cardiosynth.core.random import numpy_generator
from cardiosynth.sampling.confidence import (
    ConfidenceSettings,
    Dispersion,
    SkipSamplingVariance,
    confidence_map,
    moved_mask,
    normalized_confidence,
    on_grid,
    smoothed,
)

IMAGES = numpy_generator(0, "images").normal(100.0, 20.0, (5, 1, 6, 6, 6)).astype(np.float32)


def watched(settings, images):
    """Feed a sampler's steps whose decoded images are known."""
    watcher = SkipSamplingVariance(settings, len(images), lambda z, _: images[int(z.flatten()[0])])
    for step in range(len(images)):
        denoised = torch.full((1, 1, 1, 1, 1), float(step))
        watcher(step, (len(images) - 1) - denoised, torch.tensor(0.5), denoised)
    return confidence_map(watcher.dispersion, settings, images.shape[2:])


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


def plain_confidence(images):
    spread = images.std(0, ddof=1)
    return 1 - (spread - spread.min()) / (spread.max() - spread.min())


@pytest.mark.parametrize(
    ("changes", "used"),
    [
        ({"interval": 1}, [0, 1, 2, 3, 4]),
        ({"interval": 2}, [0, 2, 4]),
        ({"interval": 3}, [0, 3]),
        ({"interval": 4}, [0, 4]),
        ({"interval": 1, "steps": "last_half"}, [2, 3, 4]),
        ({"interval": 2, "steps": "last_half"}, [2, 4]),
        ({"interval": 3, "kind": "raw"}, [4, 1]),
    ],
)
def test_every_kth_step_is_decoded(changes, used):
    settings = ConfidenceSettings(**changes, box=1, percentiles=(0.0, 100.0))
    confidence, facts = watched(settings, IMAGES)
    np.testing.assert_allclose(confidence, plain_confidence(IMAGES[used]), atol=1e-4)
    assert (facts["images"], facts["divisor"]) == (len(used), len(used) - 1)
    assert settings.num_images(len(IMAGES)) == settings.num_decodes(len(IMAGES)) == len(used)


def test_latents_are_compared_without_decoding_and_averaged_over_channels():
    latents = torch.from_numpy(numpy_generator(0, "latents").normal(size=(3, 1, 2, 4, 4, 4)).astype(np.float32))
    settings = ConfidenceSettings(kind="latent", interval=1, box=1, percentiles=(0.0, 100.0))

    def never(z, number):
        raise AssertionError("latents are not decoded")

    watcher = SkipSamplingVariance(settings, 3, never)
    for step, latent in enumerate(latents):
        watcher(step, latent, torch.tensor(0.5), latent)
    spread = latents[:, 0].std(0).mean(0, keepdim=True).numpy()
    np.testing.assert_allclose(watcher.dispersion.std().mean(0, keepdims=True), spread, rtol=1e-5)
    confidence, facts = confidence_map(watcher.dispersion, settings, (8, 8, 8))
    np.testing.assert_allclose(confidence, normalized_confidence(on_grid(spread, (8, 8, 8)), (0, 100))[0], atol=1e-5)
    assert (facts["kind"], settings.num_decodes(3)) == ("latent", 0)


def test_a_ramp_of_latents_is_a_ramp_on_the_grid():
    ramp = np.broadcast_to(np.arange(4, dtype=np.float32)[:, None, None], (2, 4, 4, 4))
    inner = on_grid(np.ascontiguousarray(ramp), (16, 16, 16))[0, 2:-2]
    np.testing.assert_allclose(np.diff(inner, axis=0), 0.25, atol=1e-6)


def test_the_change_that_a_moved_mask_makes_is_added_with_its_weight():
    told, settings = [], ConfidenceSettings(interval=2, mask_shift=1, mask_weight=3.0, percentiles=(0.0, 100.0))

    def again(x, t, number):
        told.append((float(x.flatten()[0]), number))
        return x + 1

    watcher = SkipSamplingVariance(settings, 5, lambda z, _: IMAGES[int(z.flatten()[0])], again)
    for step in range(5):
        state = torch.full((1, 1, 1, 1, 1), step / 2)
        watcher(step, state, torch.tensor(0.5), torch.zeros(1, 1, 1, 1, 1))
    assert told == [(0, 0), (1, 1), (2, 2)]
    spread = 3 * np.mean([abs(IMAGES[i + 1] - IMAGES[0]) for i in range(3)], axis=0)
    confidence, facts = watcher.confidence((6, 6, 6))
    np.testing.assert_allclose(confidence, normalized_confidence(spread, (0.0, 100.0))[0], atol=1e-4)
    assert (facts["mask_shift"], facts["mask_weight"]) == (1, 3.0)
    assert (settings.num_decodes(5), settings.num_embeddings(5), settings.num_steps(5)) == (6, 3, 3)


def test_what_an_ensemble_asks_for():
    whole, short = (ConfidenceSettings(kind="ensemble", members=5, member_steps=n) for n in (None, 3))
    assert [s.num_steps(20) for s in (whole, short)] == [80, 12]
    assert (whole.num_images(20), whole.num_decodes(20), whole.num_embeddings(20)) == (5, 4, 4)
    assert not whole.watched(20)


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
    assert facts["spread_at_confidence_0"] == 0


def test_percentiles_are_robust_and_scale_does_not_matter():
    spread = numpy_generator(0, "spread").gamma(2.0, 1.0, (1, 10, 10, 10)).astype(np.float32)
    plain, _ = normalized_confidence(spread, (1.0, 99.0))
    scaled, (low, high) = normalized_confidence(spread * 7, (1.0, 99.0))
    np.testing.assert_allclose(plain, scaled, atol=1e-5)
    assert (low, high) == pytest.approx(tuple(np.percentile(spread * 7, (1, 99))))
    assert plain.min() == 0
    assert plain.max() == 1


MASK = numpy_generator(0, "mask").integers(0, 9, (1, 5, 6, 7), dtype=np.uint8)


def test_masks_move_along_every_axis_forth_and_back_and_forth_again():
    inner = (0, slice(1, -1), slice(1, -1), slice(1, -1))
    for number in range(8):
        axis, step = 1 + number % 3, -1 if number // 3 == 1 else 1
        np.testing.assert_array_equal(moved_mask(MASK, 1, number)[inner], np.roll(MASK, step, axis)[inner])


def test_the_border_is_repeated_where_the_mask_moved_away():
    np.testing.assert_array_equal(moved_mask(MASK, 2, 0)[:, :3], np.repeat(MASK[:, :1], 3, axis=1))
    np.testing.assert_array_equal(moved_mask(MASK[..., 0], 1, 3)[:, :, -1], MASK[:, :, -1, 0])


def test_smoothing_keeps_constants_also_at_the_border():
    np.testing.assert_allclose(smoothed(np.full((1, 5, 5, 5), 2.0, np.float32), 3), 2.0, rtol=1e-6)
    point = np.zeros((1, 5, 5, 5), np.float32)
    point[0, 2, 2, 2] = 27
    np.testing.assert_allclose(smoothed(point, 3)[0, 1:4, 1:4, 1:4], 1.0, rtol=1e-6)


@pytest.mark.parametrize("changes", [{"box": 2}, {"percentiles": (99.0, 1.0)}, {"mask_shift": 1, "kind": "raw"}])
def test_settings_that_make_no_sense_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        ConfidenceSettings(**changes)
