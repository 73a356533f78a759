"""HA-GAN: a slab is what the whole holds there, and the intensities of what it makes come to those it was shown."""

import pydantic
import pytest
import torch

from cardiosynth.baselines.adversarial import AdversarialGenerator, build_game
from cardiosynth.baselines.games import NoiseGame
from cardiosynth.baselines.ha_gan import LOW, HaGanGenerator, HaGanSettings, VoxelNorm
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.random import generator

from .adversaries import boxes, histogram_distance_hu, stage_of

SETTINGS = HaGanSettings(noise=4, channels=(8, 8), high=4, low=4, groups=2, judges=(4, 8), slabs=4)
SHAPE = (32, 16, 24)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = HaGanGenerator(SETTINGS, SHAPE)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


@torch.no_grad()
def test_every_slab_is_what_the_whole_holds_there(network):
    noise = torch.randn(2, 4, generator=generator(0, "noise"))
    features, whole = network.features(noise), network(noise)
    assert whole.shape == (2, 1, *SHAPE)
    assert whole.std() > 0.1
    assert network.places == SHAPE[0] // LOW - network.thickness + 1
    for start in range(network.places):
        slab = network.slab_of(features, start)
        assert slab.shape[2:] == network.slab
        torch.testing.assert_close(slab, whole[:, :, LOW * start :][:, :, : network.slab[0]], atol=1e-5, rtol=0)
    places = torch.tensor([0, network.places - 1])
    slabs, low, where = network.make(noise, places)
    torch.testing.assert_close(slabs[1], whole[1, :, -network.slab[0] :], atol=1e-5, rtol=0)
    assert low.shape == (2, 1, *(n // LOW for n in SHAPE))
    assert where.tolist() == [[0.0], [1.0]]


def test_real_volumes_are_shown_in_the_same_way(network):
    image = torch.arange(SHAPE[0]).float()[None, None, :, None, None].expand(2, 1, *SHAPE)
    slabs, low, _ = network.view(image, torch.tensor([0, 2]))
    assert slabs[1, 0, :, 0, 0].tolist() == list(range(2 * LOW, 2 * LOW + network.slab[0]))
    assert low[0, 0, :, 0, 0].tolist() == [LOW * i + 1.5 for i in range(SHAPE[0] // LOW)]


def test_a_voxel_is_normalized_over_its_channels_alone():
    norm = VoxelNorm(4)
    x = torch.randn(2, 4, 3, 3, 3, generator=generator(0, "x"))
    y = norm(x).detach()
    torch.testing.assert_close(y.mean(1), torch.zeros(2, 3, 3, 3), atol=1e-5, rtol=0)
    changed = x.clone()
    changed[:, :, 0] = 7
    assert torch.equal(norm(changed).detach()[:, :, 1:], y[:, :, 1:])


def test_the_answer_is_the_mean_of_slab_and_whole_and_the_place_counts():
    game = SETTINGS.build((), SHAPE)
    assert isinstance(game, NoiseGame)
    judge = game.opponent.eval()
    image = torch.rand(1, 1, *SHAPE)
    slab, low, where = game.used.view(image, torch.tensor([1]))  # pyright: ignore[reportCallIssue]
    answer = judge(slab, low, where)[-1]
    assert answer.shape == (1, 1)
    elsewhere, otherwise = judge(slab, low, where + 0.5)[-1], judge(slab, -low, where)[-1]
    assert not torch.equal(answer, elsewhere)
    assert not torch.equal(answer, otherwise)


def test_grids_and_groups_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="multiples of 16"):
        SETTINGS.build((), (24, 16, 24))
    with pytest.raises(pydantic.ValidationError, match="multiples of groups"):
        HaGanSettings(channels=(12, 8))


@pytest.mark.slow
def test_intensities_approach_those_of_the_data(tmp_path):
    # Raw weights and faster discriminators, as published.
    stage = stage_of("ha-gan", learning_rate=2e-3, ema_decay=0.0, checkpoint_every=1000)
    stage = stage.model_copy(update={"pace": 4.0})
    cases, distances = boxes(tmp_path / "data", stage.shape), []
    for steps in (1, 60):
        training = stage.training.model_copy(update={"steps": steps})
        made = AdversarialGenerator(stage.model_copy(update={"training": training}))
        made.fit(cases, tmp_path / "run")
        distances.append(histogram_distance_hu(made, cases, seeds=1))
    assert distances[1] < 0.6 * distances[0]


def test_slabs_are_drawn_from_all_places():
    game = build_game(stage_of("ha-gan"), CARDIAC_CT)
    places = {int(game.draw(generator(0, index))["place"]) for index in range(100)}
    assert places == set(range(8))
