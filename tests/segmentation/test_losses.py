import math

import pytest
import torch
from monai.losses.dice import DiceCELoss

from cardiosynth.core.random import generator
from cardiosynth.segmentation.losses import SMOOTH, ConfidenceWeights, cal_loss, cal_parts, soft_dice

GRIDS = [(6, 5), (6, 5, 4)]


def example(grid, dtype=torch.float32):
    rng = generator(0, "losses", *grid)
    logits = torch.randn(2, 4, *grid, generator=rng, dtype=dtype).requires_grad_()
    target = torch.randint(0, 3, (2, 1, *grid), generator=rng, dtype=torch.uint8)  # class 3 is never there
    return logits, target


def gradient(loss, logits):
    return torch.autograd.grad(loss, logits)[0]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("confidence", [None, 1.0])
def test_confidence_one_is_the_plain_loss_and_gradient(grid, confidence):
    logits, target = example(grid)
    plain = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, smooth_nr=SMOOTH, smooth_dr=SMOOTH)(
        logits, target.long()
    )
    weights = None if confidence is None else torch.full(target.shape, confidence)
    loss = cal_loss(logits, target, weights)
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(gradient(loss, logits), gradient(plain, logits), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("grid", GRIDS)
def test_confidence_zero_lets_nothing_through(grid):
    logits, target = example(grid)
    loss = cal_loss(logits, target, torch.zeros(target.shape))
    assert loss == 0
    assert torch.equal(gradient(loss, logits), torch.zeros_like(logits))


@pytest.mark.parametrize("relative", [False, True])
def test_weights_of_full_confidence_are_the_plain_loss_and_of_none_nothing(relative):
    (logits, target), weights = example(GRIDS[1]), ConfidenceWeights(relative=relative)
    full, none = (weights.floored(torch.full(target.shape, v)) * weights.factor(v) for v in (1.0, 0.0))
    torch.testing.assert_close(cal_loss(logits, target, full), cal_loss(logits, target))
    assert gradient(cal_loss(logits, target, none), logits).abs().max() == 0


def test_a_floor_keeps_what_has_no_confidence_and_relative_weights_forget_the_scale():
    confidence = torch.rand(50, generator=generator(0, "floor"))
    assert ConfidenceWeights(floor=0.3).floored(confidence).min().item() == pytest.approx(0.3)
    weights = ConfidenceWeights(relative=True)
    halves = [c * weights.factor(c.mean().item()) for c in (confidence, confidence / 2)]
    torch.testing.assert_close(halves[0], halves[1])
    assert halves[0].mean().item() == pytest.approx(1)


@pytest.mark.parametrize("grid", GRIDS)
def test_where_confidence_is_zero_neither_label_nor_prediction_matters(grid):
    logits, target = example(grid)
    confidence = torch.rand(target.shape, generator=generator(0, "confidence"))
    confidence[:, :, :3] = 0
    other_target, other_logits = target.clone(), logits.detach().clone()
    other_target[:, :, :3] = 3
    other_logits[:, :, :3] = 0
    other_logits.requires_grad_()
    loss, other = cal_loss(logits, target, confidence), cal_loss(other_logits, other_target, confidence)
    here, there = gradient(loss, logits), gradient(other, other_logits)
    torch.testing.assert_close(loss, other)
    torch.testing.assert_close(here, there)
    assert here[:, :, :3].abs().max() == 0
    assert here[:, :, 3:].abs().min() > 0


def test_cross_entropy_is_the_mean_over_voxels_of_confidence_times_cross_entropy():
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1, 0, 0] = math.log(3)  # probability of class 1: 3/4 there, 1/2 elsewhere
    target = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    target[0, 0, 0, 0] = 1
    confidence = torch.tensor([[[[0.5, 1.0], [0.0, 0.0]]]])
    parts = cal_parts(logits, target, confidence)
    assert parts["cross_entropy"].item() == pytest.approx((0.5 * math.log(4 / 3) + math.log(2)) / 4)
    dice = (2 * 0.5 * 0.75 + 1) / (0.5 * 0.75 + 0.5 + 0.5 + 1)
    assert parts["dice"].item() == pytest.approx(1 - dice)


def test_a_fractional_confidence_is_a_fraction_of_a_voxel():
    """Two voxels alike with weights 0.25 and 0.75 are one voxel of weight 1, in both parts of the sums."""
    probabilities = torch.tensor([[[0.2, 0.2, 0.6], [0.8, 0.8, 0.4]]])
    target = torch.tensor([[[1, 1, 0]]])
    split = soft_dice(probabilities, target, torch.tensor([[[0.25, 0.75, 1.0]]]))
    joined = soft_dice(probabilities[..., 1:], target[..., 1:], torch.ones(1, 1, 2))
    torch.testing.assert_close(split, joined)


def test_a_structure_neither_there_nor_predicted_costs_nothing():
    logits = torch.full((1, 3, 4, 4), -30.0)
    logits[:, 0] = 30.0
    assert cal_loss(logits, torch.zeros(1, 1, 4, 4, dtype=torch.uint8)).item() == pytest.approx(0, abs=1e-6)


def test_the_loss_of_a_batch_is_the_mean_over_its_examples():
    logits, target = example((6, 5, 4))
    confidence = torch.rand(target.shape, generator=generator(0, "confidence"))
    alone = [cal_loss(logits[i : i + 1], target[i : i + 1], confidence[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(cal_loss(logits, target, confidence), (alone[0] + alone[1]) / 2)


def test_half_precision_logits_are_computed_in_float32():
    logits, target = example((6, 5))
    loss = cal_loss(logits.bfloat16(), target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, cal_loss(logits.bfloat16().float(), target))
