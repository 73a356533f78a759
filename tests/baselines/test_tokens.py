"""Generators of codes: whole cases, the same bits for the same seed, masks that are followed where they change."""

import numpy as np
import pytest

from cardiosynth.baselines.method import Terms
from cardiosynth.baselines.tokens import TokenGenerator, TokenStages
from cardiosynth.baselines.transformer import TransformerSettings
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.store import read_rows
from cardiosynth.sampling.generator import Generator

from .slices import SIZE, STAGES, TRAINING, slice_case, slices


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A generator, the run that it was trained in and its slices."""
    root = tmp_path_factory.mktemp("tokens")
    cases, made = slices(root / "data"), TokenGenerator(STAGES, IntensityScale())
    made.fit(cases, root / "run")
    return made, root / "run", cases


def test_a_case_comes_out_complete(trained):
    generator = trained[0]
    made = generator.generate(slice_case(0, image=None), slice_case(1, provenance={"licence": "own"}), 5)
    assert isinstance(generator, Generator)
    assert made.required_image().dtype == np.int16
    assert made.required_image().shape == (1, SIZE, SIZE)
    assert set(np.unique(made.required_mask())) == {0, 4}
    assert made.provenance["checkpoints"].keys() == {"autoencoder", "prior"}
    assert made.provenance["sampler"]["temperature"] == 1
    assert made.provenance["seed"] == 5
    assert made.provenance["licence"] == "CC0-1.0; own"


def test_seeds_reproduce_in_another_process_as_well(trained):
    generator, run, cases = trained
    pair = (slice_case(0), slice_case(1))
    first, other = generator.generate(*pair, 0), generator.generate(*pair, 1)
    again = TokenGenerator(STAGES, IntensityScale())
    again.fit(cases, run)  # finished: it loads
    np.testing.assert_array_equal(again.generate(*pair, 0).required_image(), first.required_image())
    assert not np.array_equal(other.required_image(), first.required_image())


def test_one_that_is_told_nothing_shows_no_mask_and_looks_at_none(trained, tmp_path):
    _, run, cases = trained
    (tmp_path / "autoencoder").symlink_to(run / "autoencoder")
    stages = STAGES.model_copy(update={"prior": STAGES.prior.model_copy(update={"conditional": False})})
    generator = TokenGenerator(stages, IntensityScale())
    generator.fit(cases, tmp_path)
    one, other = (generator.generate(slice_case(k, case_id="same"), slice_case(1), 0) for k in (0, 1))
    assert one.mask is None
    np.testing.assert_array_equal(one.required_image(), other.required_image())


def test_what_does_not_suit_is_refused(trained):
    with pytest.raises(InputError, match="not trained"):
        TokenGenerator(STAGES, IntensityScale()).generate(slice_case(0), slice_case(1), 0)
    with pytest.raises(InputError, match="grid"):
        trained[0].generate(slice_case(0, 2 * SIZE), slice_case(1, 2 * SIZE), 0)
    with pytest.raises(InputError, match="codebook"):
        parse_settings(TokenStages, {"autoencoder": {}}, "test")


def test_both_stages_share_the_steps_and_no_crop_is_larger_than_a_case():
    terms = Terms((8, SIZE), IntensityScale(), steps=10, seed=3)
    stages = STAGES.under(terms)
    assert stages.autoencoder.training.steps + stages.prior.training.steps == 10
    assert stages.autoencoder.training.seed == stages.prior.training.seed == 3
    assert stages.autoencoder.crop == (8, SIZE)


@pytest.mark.slow
def test_it_overfits_two_slices_and_follows_a_mask_where_it_changes(tmp_path):
    size, steps = 64, 200
    training = TRAINING.model_copy(update={"steps": steps, "checkpoint_every": steps, "log_every": steps})
    network = STAGES.autoencoder.network.model_copy(update={"channels": (16, 32)})
    autoencoder = STAGES.autoencoder.model_copy(update={"crop": (size, size), "training": training, "network": network})
    prior = STAGES.prior.model_copy(update={
        "transformer": TransformerSettings(layers=2, heads=2, width=32), "training": training
    })  # fmt: skip
    generator = TokenGenerator(TokenStages(autoencoder=autoencoder, prior=prior), IntensityScale())
    cases = slices(tmp_path / "data", 2, size)
    generator.fit(cases, tmp_path / "run")
    losses = [row["prior/total"] for row in read_rows(tmp_path / "run" / "prior" / "metrics.jsonl")]
    assert losses[-1] < 0.1 * np.log(8)
    first, second = (slice_case(index, size) for index in (0, 1))
    made = [generator.generate(mask, first, 0).required_image().astype(float) for mask in (first, second)]
    for image, target in zip(made, (first, second), strict=True):
        own = np.abs(image - target.required_image()).mean()
        spread = np.abs(target.required_image() - target.required_image().mean()).mean()
        assert own < 0.3 * spread
    changed = first.required_mask() != second.required_mask()
    difference = np.abs(made[0] - made[1])
    assert difference[changed].mean() > 300
    assert difference[~changed].mean() < 30
