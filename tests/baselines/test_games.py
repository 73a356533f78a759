"""Pieces of adversarial games against closed forms."""

import pytest
import torch
from torch import nn

from cardiosynth.autoencoder.losses import Perceptual
from cardiosynth.baselines.games import (
    PatchSettings,
    TranslationGame,
    TranslationLosses,
    check_multiple,
    feature_matching,
    label_map,
    pyramid,
    with_spectral_norm,
)
from cardiosynth.core.errors import InputError
from cardiosynth.training.processes import ALONE


def test_a_label_map_has_one_channel_per_label_and_one_for_the_background():
    mask = torch.tensor([[[[0, 3], [7, 3]]]], dtype=torch.uint8)
    labels = label_map(mask, (3, 7))
    assert labels[0].tolist() == [[[1, 0], [0, 0]], [[0, 1], [0, 1]], [[0, 0], [1, 0]]]


def test_feature_matching_sums_the_mean_differences_of_layers_and_holds_the_real_ones_still():
    made = [torch.zeros(2, 3, requires_grad=True), torch.ones(4, requires_grad=True)]
    real = [torch.full((2, 3), 0.5, requires_grad=True), torch.full((4,), -1.0)]
    cost = feature_matching(made, real)
    cost.backward()
    assert float(cost.detach()) == 0.5 + 2.0
    assert made[0].grad is not None
    assert real[0].grad is None


def test_each_scale_averages_three_voxels_and_does_not_count_what_lies_beyond():
    x = torch.tensor([0.0, 3, 6, 9]).expand(1, 1, 4, 4)
    whole, half = pyramid(x, 2)
    assert torch.equal(whole, x)
    assert half[0, 0, 0].tolist() == [1.5, 6]
    assert pyramid(torch.ones(1, 2, 8, 8, 8), 3)[2].unique().tolist() == [1]


def test_spectral_norm_leaves_the_largest_gain_at_one():
    layer = nn.Linear(6, 4)
    with_spectral_norm(nn.Sequential(layer))
    for _ in range(50):
        layer(torch.zeros(1, 6))
    assert float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("shape", [(24, 20), (8, 16)])
def test_grids_that_a_network_cannot_halve_are_refused(shape):
    check_multiple((16, 24), 8, "spade", least=2)
    with pytest.raises(InputError, match="multiples of 8 voxels, at least 16"):
        check_multiple(shape, 8, "spade", least=2)


def test_the_smallest_grid_is_the_smallest_whose_last_scale_can_be_judged():
    settings = PatchSettings(scales=2, channels=2, layers=2)
    judges = settings.build(1, (24, 24), "spade")
    answers = [judge(x)[-1] for judge, x in zip(judges, pyramid(torch.rand(1, 1, 24, 24), 2), strict=True)]
    assert answers[1].shape == (1, 1, 1, 1)
    with pytest.raises(InputError, match="at least 24"):
        settings.build(1, (22, 24), "spade")


class Constant(nn.Module):
    """Makes the same image of any map."""

    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(0.5))

    def forward(self, labels):
        return self.value.expand(len(labels), 1, *labels.shape[2:])


class Pixels(nn.Module):
    """Takes the image for its feature and its mean for its answer; sees label map ++ image."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return [self.gain * x[:, -1:], self.gain * x[:, -1:].mean((1, 2, 3))]


def batch():
    return {"mask": torch.zeros(2, 1, 4, 4, dtype=torch.uint8), "image": torch.full((2, 1, 4, 4), -0.5)}


def game(perceptual: float = 0.0, **weights):
    losses = TranslationLosses(perceptual=perceptual, **weights)
    distance = Perceptual(lambda ours, theirs: (ours - theirs).abs().mean(), "0") if perceptual else None
    return TranslationGame(Constant(), nn.ModuleList([Pixels(), Pixels()]), losses, (1,), distance)


def test_a_translation_pays_what_its_weights_say():
    played = game(l1=3.0, features=10.0, perceptual=2.0)
    parts = {name: float(part.detach()) for name, part in played.generators_loss(batch()).items()}
    assert parts == {"adversarial": -0.5, "l1": 1, "features": 1, "perceptual": 0.5, "total": -0.5 + 3 + 10 + 2 * 0.5}
    assert set(game().generators_loss(batch())) == {"adversarial", "total"}


def test_discriminators_judge_what_was_just_made_and_each_side_moves_alone():
    played, given = game(), batch()
    played.generators_loss(given)["total"].backward()
    makers, judges = played.sides()
    assert all(p.grad is not None for p in makers)
    assert all(p.grad is None for p in judges)
    makers[0].grad = None
    played.follow(given, ALONE)
    cost = played.discriminators_loss(given)["total"]
    cost.backward()
    assert float(cost.detach()) == 0.5 * (1.5 + 1.5)
    assert makers[0].grad is None
    assert all(p.grad is not None for p in judges)
    with pytest.raises(AssertionError, match="generators move first"):
        played.discriminators_loss(batch())


def test_a_perceptual_weight_without_a_distance_is_refused():
    losses = TranslationLosses(perceptual=1.0)
    with pytest.raises(InputError, match="give both or neither"):
        TranslationGame(Constant(), nn.ModuleList([Pixels()]), losses, (1,))
