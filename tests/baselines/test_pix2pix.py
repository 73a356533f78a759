"""pix2pix-3D: its patches, its levels, and two phantoms learned."""

import torch

from cardiosynth.autoencoder.discriminators import fooling_cost
from cardiosynth.baselines.adversarial import AdversarialGenerator, build_game
from cardiosynth.baselines.games import PatchSettings
from cardiosynth.baselines.pix2pix import PAPER, Pix2PixSettings
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.random import generator

from .adversaries import boxes, mean_error_hu, stage_of


def test_a_patch_is_seventy_voxels_wide():
    judge = PatchSettings(channels=1).build(1, (96, 96), "pix2pix-3d")[0]
    width = 1
    for layer in reversed([module for module in judge.modules() if isinstance(module, torch.nn.Conv2d)]):
        width = (width - 1) * layer.stride[0] + layer.kernel_size[0]
    assert width == 70


def test_levels_end_where_two_voxels_are_left():
    settings = Pix2PixSettings(channels=(2, 2, 2, 2, 2, 2), discriminators=PatchSettings(channels=2, layers=1))
    game = settings.build((1,), (8, 8, 8))
    widths: list[int] = []
    for layer in game.used.modules():
        if isinstance(layer, torch.nn.Conv3d):
            layer.register_forward_hook(lambda _, __, out: widths.append(out.shape[2]))
    game.made(torch.zeros(1, 1, 8, 8, 8, dtype=torch.uint8), generator(0, "noise"))
    assert min(widths) == 2


def test_what_it_pays_is_cross_entropy_and_a_hundred_times_the_error():
    stage = stage_of("pix2pix-3d")
    game = build_game(stage, CARDIAC_CT)
    mask = torch.zeros(1, 1, 16, 16, 16, dtype=torch.uint8)
    image = torch.full((1, 1, 16, 16, 16), 0.25)
    parts = game.generators_loss({"mask": mask, "image": image})
    made = game.made(mask, generator(0, "noise"))
    torch.testing.assert_close(parts["l1"], (made - image).abs().mean())
    torch.testing.assert_close(parts["total"], parts["adversarial"] + 100 * parts["l1"])
    labels = torch.zeros(1, 18, 16, 16, 16)
    labels[:, 0] = 1
    answers = game.opponent[0](torch.cat((labels, made), 1))[-1]  # pyright: ignore[reportIndexIssue]
    torch.testing.assert_close(parts["adversarial"], fooling_cost(answers, "cross_entropy"))


def test_it_learns_two_phantoms_and_shows_the_mask_it_is_given(tmp_path):
    stage = stage_of("pix2pix-3d", learning_rate=2e-3, checkpoint_every=1000)
    cases, errors = boxes(tmp_path / "data", stage.shape), []
    for steps in (1, 60):
        training = stage.training.model_copy(update={"steps": steps})
        made = AdversarialGenerator(stage.model_copy(update={"training": training}))
        made.fit(cases, tmp_path / "run")
        errors.append(mean_error_hu(made, cases))
    assert errors[1] < 0.4 * errors[0]
    one, other = (made.generate(case, cases[0], 0).required_image().astype(float) for case in cases)
    differs = cases[0].required_mask() != cases[1].required_mask()
    assert abs(one - other)[differs].mean() > 2 * abs(one - other)[~differs].mean()


def test_the_published_u_net_halves_as_often_as_the_grid_allows():
    game = PAPER.game
    assert isinstance(game, Pix2PixSettings)
    assert (game.channels[0], game.channels[-1], game.losses.l1) == (64, 512, 100)
