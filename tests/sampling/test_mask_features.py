"""A generator whose decoder is told of the mask: every latent is decoded with the mask that made it."""

import numpy as np
import pytest
from diffusion.small import AUTOENCODER, CONTROL, DIFFUSION, case, dataset

from cardiosynth.autoencoder.codec import Codec
from cardiosynth.sampling.confidence import ConfidenceSettings, moved_mask
from cardiosynth.sampling.generator import LatentDiffusionGenerator, LatentDiffusionStages, load_generator
from cardiosynth.sampling.sampler import SamplerSettings

NETWORK = AUTOENCODER.network.model_copy(update={"mask_features": 3})
STAGES = LatentDiffusionStages(
    autoencoder=AUTOENCODER.model_copy(update={"network": NETWORK}), diffusion=DIFFUSION, control=CONTROL
)
SAMPLER = SamplerSettings(
    steps=4, solver="euler", precision="fp32", confidence=ConfidenceSettings(interval=2, mask_shift=1)
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("told")
    LatentDiffusionGenerator(STAGES, SAMPLER).fit(dataset(root / "data"), root)
    return root


def test_every_decoding_is_told_the_mask_that_the_denoiser_was_told(run, monkeypatch):
    told, decode = [], Codec.decode
    monkeypatch.setattr(Codec, "decode", lambda *given: told.append(given[-1]) or decode(*given))
    made = load_generator(run, sampler=SAMPLER).generate(case(0), case(1), 0)
    assert made.confidence is not None
    own = case(0).mask
    expected = [own, moved_mask(own, 1, 0), own, moved_mask(own, 1, 1), own]
    for found, mask in zip(told, expected, strict=True):
        np.testing.assert_array_equal(found, mask)


def test_the_decoder_shows_the_reference_and_not_the_template(run, monkeypatch):
    """With latents that are always the same, the mask alone makes the difference."""
    plain = load_generator(run, sampler=SAMPLER.model_copy(update={"confidence": None}))
    latent, _ = plain.model.codec.encode_case(case(3))
    monkeypatch.setattr(plain, "_latent", lambda *given, **named: latent[None])
    first = plain.generate(case(0), case(1), 0).image
    assert (first != plain.generate(case(2), case(1), 0).image).any()
    np.testing.assert_array_equal(first, plain.generate(case(0), case(3), 0).image)


def test_an_image_that_is_only_decoded_again_is_told_its_own_mask(run):
    sampler = SamplerSettings(start="reconstruction", precision="fp32")
    again = load_generator(run, sampler=sampler)
    made = again.generate(case(0), case(0), 0)
    np.testing.assert_allclose(made.image, again.model.codec.reconstruct(case(0)), atol=0.51)
