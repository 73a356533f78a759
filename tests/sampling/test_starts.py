"""Where sampling starts: from noise, from an encoded image, or not at all; and what the result says of it."""

import numpy as np
import pytest
import torch
from diffusion.test_label_stage import AUTOENCODER, SCALE, STAGE, cut

from cardiosynth.core.errors import InputError
from cardiosynth.core.random import generator
from cardiosynth.data.dataset import write_dataset
from cardiosynth.diffusion.process import Cosine, VariancePreserving
from cardiosynth.sampling.confidence import ConfidenceSettings
from cardiosynth.sampling.generator import Generator, LatentDiffusionGenerator, LatentDiffusionStages, load_generator
from cardiosynth.sampling.sampler import SamplerSettings, draw_latent

SAMPLER = SamplerSettings(
    solver="ddpm_ancestral", steps=4, spacing="time", precision="fp32", confidence=ConfidenceSettings(interval=2)
)
# Three layers begin at zero on the label's way out of the network: it takes as many steps for the label to be heard.
LONGER = STAGE.model_copy(update={"training": STAGE.training.model_copy(update={"steps": 6}), "drop_mask": 0.0})
STAGES = LatentDiffusionStages(intensity=SCALE, autoencoder=AUTOENCODER, diffusion=LONGER, control=None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    LatentDiffusionGenerator(STAGES, SAMPLER).fit(
        write_dataset([cut(index) for index in range(4)], root / "data"), root
    )
    return root


def maker(run, **changes):
    return load_generator(run, sampler=SAMPLER.model_copy(update=changes))


def test_a_slice_comes_out_complete(run):
    loaded = maker(run)
    made = loaded.generate(cut(0).with_(image=None), cut(1), 5)
    assert isinstance(loaded, Generator)
    assert loaded.stages == STAGES
    assert made.image.shape == made.mask.shape == made.confidence.shape == (1, 16, 16)
    assert made.intensity_unit == "mr"
    facts = made.provenance
    assert facts["checkpoints"].keys() == {"autoencoder", "diffusion"}
    assert facts["parents"] == ["small-0"]
    assert "source_image" not in facts
    assert "start" not in facts["sampler"]


def test_from_noise_mask_and_seed_matter_and_the_templates_image_does_not(run):
    loaded, other = maker(run), cut(1)
    first = loaded.generate(cut(0), other, 0).image
    np.testing.assert_array_equal(first, maker(run).generate(cut(0), other, 0).image)
    # Shuffled, an image has the same window.
    shuffled = np.random.default_rng(0).permutation(other.image.ravel()).reshape(other.image.shape)
    np.testing.assert_array_equal(first, loaded.generate(cut(0), other.with_(image=shuffled), 0).image)
    assert (first != loaded.generate(cut(0), other, 1).image).any()
    assert (first != loaded.generate(cut(2).with_(case_id="small-0"), other, 0).image).any()


def test_a_reconstruction_is_what_the_autoencoder_keeps_and_names_its_image(run):
    loaded = maker(run, start="reconstruction")
    made, source = loaded.generate(cut(0), cut(0), 3), cut(0)
    np.testing.assert_array_equal(made.image, loaded.model.codec.reconstruct(source).astype(np.float32))
    assert made.confidence is None
    assert made.provenance["source_image"] == "small-0"
    assert made.provenance["sampler"]["start"] == "reconstruction"
    with pytest.raises(InputError, match="shows its own structures"):
        loaded.generate(cut(1), cut(0), 3)


def test_what_started_from_an_image_names_it_among_its_parents(run):
    made = maker(run, start="image", strength=0.5).generate(cut(0), cut(1), 0)
    assert made.provenance["parents"] == ["small-0", "small-1"]
    assert made.provenance["source_image"] == "small-1"
    assert made.provenance["sampler"]["strength"] == 0.5
    assert made.confidence is not None


def test_the_less_an_image_is_noised_the_more_of_it_stays(run):
    source = cut(0)
    kept = maker(run, start="reconstruction").generate(source, source, 0).image
    far = [
        np.abs(maker(run, start="image", strength=strength).generate(source, source, 0).image - kept).mean()
        for strength in (1e-4, 0.2, 1.0)
    ]
    assert far[0] < 0.02 * (kept.max() - kept.min())
    assert far[0] < far[1] < far[2]


@pytest.mark.parametrize(
    "process", [Cosine(), VariancePreserving(1e-3, 0.2, 100, linear=True)], ids=["cosine", "linear"]
)
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_an_image_is_noised_to_the_level_of_its_strength(process, strength):
    """Of unit variance, it keeps alpha^2 of it: what the first step sees, and what strength is defined by."""
    rng, seen = generator(0, "levels"), []
    encoded, noise = (torch.randn(1, 4, 64, 64, generator=rng) for _ in range(2))
    settings = SamplerSettings(start="image", strength=strength, solver="ddim", steps=2, confidence=None)

    def denoiser(x, t, condition):
        seen.append((float(t), x))
        return encoded

    out = draw_latent(settings, denoiser, process, noise, None, rng=rng, encoded=encoded)
    torch.testing.assert_close(out, encoded)
    t, x = seen[0]
    assert t == pytest.approx(strength)
    level = float(process.alpha(torch.tensor(strength, dtype=torch.float64)))
    assert float((x * encoded).mean() / encoded.square().mean()) == pytest.approx(level, abs=0.03)
    assert float(x.square().mean()) == pytest.approx(1, abs=0.05)


def test_the_papers_schedule_is_the_cosines_at_the_stated_strength():
    papers = VariancePreserving(1e-4, 0.02, 100, linear=True).alpha(torch.ones((), dtype=torch.float64)) ** 2
    ours = Cosine().alpha(torch.tensor(0.588, dtype=torch.float64)) ** 2
    assert float(ours) == pytest.approx(float(papers), abs=1e-3)
