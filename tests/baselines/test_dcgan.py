"""DCGAN: shapes, and the intensities of what it makes come to those that it was shown."""

import pytest
import torch

from cardiosynth.baselines.adversarial import AdversarialGenerator, build_game
from cardiosynth.baselines.dcgan import DcganSettings
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.store import read_rows

from .adversaries import boxes, histogram_distance_hu, stage_of


@pytest.mark.parametrize("shape", [(16, 16), (24, 16)])
def test_the_discriminator_mirrors_the_generator_on_every_grid(shape):
    game = DcganSettings(noise=4, channels=(8, 4)).build((), shape)
    made = game.used(torch.randn(3, 4))
    assert made.shape == (3, 1, *shape)
    assert made.abs().max() < 1
    assert game.opponent(made)[-1].shape == (3, 1, 1, 1)


def test_grids_that_it_cannot_halve_are_refused():
    with pytest.raises(InputError, match="dcgan at this size"):
        DcganSettings(noise=4, channels=(8, 4)).build((), (18, 16))


def test_weights_begin_as_published():
    game = build_game(stage_of("dcgan"), CARDIAC_CT)
    kernel = game.used.get_parameter("layers.3.weight")
    assert float(kernel.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert float(game.used.get_parameter("layers.1.weight").detach().mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.slow
def test_intensities_approach_those_of_the_data(tmp_path):
    stage = stage_of("dcgan", learning_rate=1e-3, checkpoint_every=1000)
    cases, distances = boxes(tmp_path / "data", stage.shape), []
    for steps in (1, 150):
        training = stage.training.model_copy(update={"steps": steps})
        made = AdversarialGenerator(stage.model_copy(update={"training": training}))
        made.fit(cases, tmp_path / "run")
        distances.append(histogram_distance_hu(made, cases))
    assert distances[1] < 0.5 * distances[0]
    rows = read_rows(tmp_path / "run" / "adversarial" / "metrics.jsonl")
    for part in ("generator/total", "discriminator/total"):
        values = [row[part] for row in rows]
        assert max(values) - min(values) > 0.1, part
