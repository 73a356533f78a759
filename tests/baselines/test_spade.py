"""SPADE: what a label means on average passes through, changes stay where they are, and it learns two slices."""

import pytest
import torch

from cardiosynth.baselines.adversarial import AdversarialGenerator, build_game
from cardiosynth.baselines.spade import METHOD, PAPER, SpadeNorm, SpadeSettings
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.random import generator

from .adversaries import boxes, mean_error_hu, stage_of

SETTINGS = SpadeSettings(channels=((8,), (8,)), hidden=4)


@torch.no_grad()
def test_gamma_and_beta_of_one_label_everywhere_pass_through():
    norm = SpadeNorm(8, 3, SETTINGS)
    # Hidden features are the label map's first channel; gamma is 2 there and beta 5.
    norm.modulation.shared.weight.zero_()[0, 0, 1, 1] = 1
    norm.modulation.shared.get_parameter("bias").zero_()
    norm.modulation.gamma_beta.weight[:8, 0, 1, 1] = 2
    norm.modulation.gamma_beta.weight[8:, 0, 1, 1] = 5
    x = torch.randn(2, 8, 6, 6, generator=generator(0, "x"))
    labels = torch.zeros(2, 3, 6, 6)
    labels[:, 0] = 1
    plain = torch.nn.functional.instance_norm(x)
    torch.testing.assert_close(norm(x, labels), 3 * plain + 5)
    torch.testing.assert_close(norm(x, labels).mean((2, 3)), torch.full((2, 8), 5.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(norm(x, 0 * labels), plain)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Two slices, the error of the first step, and the generator after forty."""
    root, stage = tmp_path_factory.mktemp("spade"), stage_of("spade", learning_rate=5e-4, checkpoint_every=1000)
    cases, errors = boxes(root / "data", stage.shape), []
    for steps in (1, 40):
        training = stage.training.model_copy(update={"steps": steps})
        made = AdversarialGenerator(stage.model_copy(update={"training": training}))
        made.fit(cases, root / "run")
        errors.append(mean_error_hu(made, cases))
    return cases, errors, made


def test_it_learns_two_slices(learned):
    _, (first, last), _ = learned
    assert last < 0.4 * first


def test_a_label_that_changes_changes_the_image_there(learned):
    cases, _, made = learned
    mask = cases[0].required_mask().copy()
    mask[mask == 4] = 0
    plain, changed = (
        made.generate(case, cases[0], 0).required_image()[0] for case in (cases[0], cases[0].with_(mask=mask))
    )
    difference, there = abs(plain.astype(float) - changed), cases[0].required_mask()[0] == 4
    assert difference[there].mean() > 100
    assert difference[there].mean() > 2 * difference[~there].mean()


def test_the_published_generator_has_seven_blocks_and_five_doublings():
    game = PAPER.game
    assert isinstance(game, SpadeSettings)
    assert [sum(map(len, game.channels)), len(game.channels)] == [7, 6]
    assert METHOD.spatial_dims == 2


def test_batch_statistics_are_kept_for_images_alone():
    stage = stage_of("spade")
    assert isinstance(stage.game, SpadeSettings)
    batched = stage.model_copy(update={"game": stage.game.model_copy(update={"norm": "batch"})})
    game = build_game(batched, CARDIAC_CT)
    mask = torch.zeros(2, 1, 24, 24, dtype=torch.uint8)
    game.generators_loss({"mask": mask, "image": torch.zeros(2, 1, 24, 24)})
    game.used.eval()
    alone = game.made(mask[:1], generator(0, "alone"))
    together = game.made(mask[:1], generator(0, "together"))
    assert torch.equal(alone, together)
    statistics = [value for name, value in game.used.state_dict().items() if name.endswith("running_mean")]
    assert any(value.abs().max() > 0 for value in statistics)
