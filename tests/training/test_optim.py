import math

import pytest
import torch
from torch import nn

from cardiosynth.core.errors import InputError
from cardiosynth.training.optim import MovingAverage, build_optimizer, clip_gradients, learning_rate
from cardiosynth.training.settings import TrainingSettings, uses_bfloat16

SETTINGS = TrainingSettings(steps=110, warmup_steps=10, learning_rate=1.0, schedule="cosine")


def test_the_learning_rate_rises_linearly_and_falls_as_half_a_cosine():
    assert [learning_rate(SETTINGS, step) for step in (0, 4, 9, 10)] == [0.1, 0.5, 1.0, 1.0]
    assert learning_rate(SETTINGS, 60) == pytest.approx(0.5)
    assert learning_rate(SETTINGS, 85) == pytest.approx(0.5 * (1 - math.sqrt(0.5)))
    assert 0 < learning_rate(SETTINGS, 109) < 0.001
    constant = SETTINGS.model_copy(update={"schedule": "constant", "warmup_steps": 0})
    assert {learning_rate(constant, step) for step in range(110)} == {1.0}


def test_the_optimizer_is_adamw_with_the_settings():
    settings = TrainingSettings(learning_rate=0.5, weight_decay=0.25, betas=(0.5, 0.75))
    group = build_optimizer([nn.Parameter(torch.ones(1))], settings).param_groups[0]
    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.5, 0.25, (0.5, 0.75))


def test_gradients_are_scaled_down_to_the_norm_and_never_up():
    parameter = nn.Parameter(torch.zeros(2))
    for gradient, expected in (([3.0, 4.0], [0.6, 0.8]), ([0.3, 0.4], [0.3, 0.4])):
        parameter.grad = torch.tensor(gradient)
        norm = clip_gradients([parameter], 1.0, "x")
        assert norm == pytest.approx(math.hypot(*gradient))
        torch.testing.assert_close(parameter.grad, torch.tensor(expected), rtol=1e-5, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_refused(bad):
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([0.0, bad])
    with pytest.raises(InputError, match="'x' at step 7"):
        clip_gradients([parameter], 1.0, "'x' at step 7")


def test_the_average_follows_its_ramp_and_then_its_decay():
    module = nn.BatchNorm1d(1)
    average = MovingAverage(module, decay=0.2)
    with torch.no_grad():
        module.weight.fill_(0.0)
    module.num_batches_tracked.fill_(5)
    expected = 1.0
    for step, decay in enumerate([1 / 10, 2 / 11, 0.2, 0.2]):
        average.update(module, step)
        expected *= decay
        assert average.tensors["weight"].item() == pytest.approx(expected)
    assert average.tensors["num_batches_tracked"] == 5


def test_without_decay_the_average_is_the_weights_themselves():
    module = nn.Linear(3, 3)
    average = MovingAverage(module, decay=0.0)
    with torch.no_grad():
        module.weight.normal_(generator=torch.Generator().manual_seed(0))
    average.update(module, 0)
    average.update(module, 1)
    assert torch.equal(average.tensors["weight"], module.weight)


def test_precision_is_what_is_asked_for():
    cpu = torch.device("cpu")
    assert uses_bfloat16("bf16", cpu)
    assert not uses_bfloat16("fp32", cpu)
    assert uses_bfloat16("auto", cpu) in (True, False)
