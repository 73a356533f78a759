import math

import numpy as np
import pytest
import torch
from torch import nn

from cardiosynth.autoencoder.discriminators import (
    AdversarialSettings,
    build_discriminator,
    canny_edges,
    fooling_cost,
    fooling_loss,
    telling_cost,
    telling_loss,
)
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError


class Echo(nn.Module):
    """Answers with what it sees."""

    def forward(self, x):
        return [x]


def images(value, side=4):
    return torch.full((2, 1, side, side, side), value)


@pytest.fixture
def discriminator():
    return build_discriminator(AdversarialSettings(channels=4, layers=1), 3)


def test_least_squares_draw_reconstructions_to_one_and_away_again():
    assert float(fooling_loss(Echo(), images(1.0))) == 0
    assert float(fooling_loss(Echo(), images(0.25))) == pytest.approx(0.75**2)
    assert float(telling_loss(Echo(), images(0.0), images(1.0))) == 0
    assert float(telling_loss(Echo(), images(0.5), images(0.2))) == pytest.approx(0.5 * (0.5**2 + 0.8**2))


def test_the_hinge_asks_for_a_margin_and_no_more():
    assert float(fooling_loss(Echo(), images(0.25), judgement="hinge")) == -0.25
    assert float(telling_loss(Echo(), images(-1.5), images(2.0), judgement="hinge")) == 0
    found = telling_loss(Echo(), images(0.5), images(0.2), judgement="hinge")
    assert float(found) == pytest.approx(0.5 * (0.8 + 1.5))


def test_cross_entropy_takes_answers_for_log_odds():
    odds = torch.tensor([3.0, 0.25])
    assert float(fooling_cost(odds.log(), "cross_entropy")) == pytest.approx(-math.log(0.75 * 0.2) / 2)
    chance = torch.zeros(3)
    assert float(telling_cost(chance, chance, "cross_entropy")) == pytest.approx(math.log(2)), "it cannot tell"
    told = telling_cost(torch.tensor([math.log(0.25)]), torch.tensor([math.log(3.0)]), "cross_entropy")
    assert float(told) == pytest.approx(-math.log(0.8 * 0.75) / 2)


def test_squares_count_below_zero_as_above_and_monais_least_squares_do_not():
    answers = torch.tensor([-1.0])
    assert float(fooling_cost(answers, "squares")) == 4
    assert float(fooling_cost(answers, "least_squares")) == pytest.approx(1.05**2)
    assert float(telling_cost(answers, torch.tensor([0.5]), "squares")) == pytest.approx(0.5 * (1 + 0.25))


DUAL = AdversarialSettings(kind="dual", judgement="hinge", norm="batch", channels=4, layers=2, edge_blocks=2)


def test_the_dual_one_sees_the_image_twice_and_the_edges_beside_it():
    network = build_discriminator(DUAL, 2)
    x, edges = torch.rand(2, 1, 24, 24), (torch.rand(2, 1, 24, 24) > 0.8).float()
    answers = network(torch.cat((x, edges), 1))[-1]
    patch = build_discriminator(DUAL.model_copy(update={"kind": "patch"}), 2)
    assert answers.shape == patch(x)[-1].shape
    assert not torch.equal(network(torch.cat((x, 1 - edges), 1))[-1], answers), "edges matter"
    made = x.clone().requires_grad_()
    trunk_only = {name: torch.zeros_like(p) for name, p in network.named_parameters() if name.startswith("trunk")}
    torch.func.functional_call(network, trunk_only, (torch.cat((made, edges), 1),))[-1].sum().backward()
    assert made.grad is not None
    assert made.grad.abs().max() > 0, "the edge branch tells the image what to change"


def test_both_passes_see_the_edges_of_the_real_image():
    edges = torch.rand(2, 1, 4, 4)

    class OfEdges(nn.Module):
        def forward(self, x):
            assert torch.equal(x[:, 1:], edges)
            return [x[:, 1:]]

    made = torch.rand(2, 1, 4, 4)
    assert float(fooling_loss(OfEdges(), made, edges, "hinge")) == pytest.approx(-float(edges.mean()))
    found = telling_loss(OfEdges(), made, 1 - made, edges, "hinge")
    assert float(found) == pytest.approx(0.5 * float((1 - edges).mean() + (1 + edges).mean()))


def test_a_step_leaves_nothing_but_gradients_in_a_batch_normalized_one():
    network = build_discriminator(DUAL, 2)
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x, edges = torch.rand(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    fooling_loss(network, x, edges, "hinge")
    telling_loss(network, x, 1 - x, edges, "hinge")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_edges_lie_where_the_image_steps():
    step = np.zeros((1, 20, 16), np.float32)
    step[:, 10:] = 0.8
    edges = canny_edges(step, 1.0)
    rows = np.flatnonzero(edges[0].any(1))
    assert set(rows.tolist()) <= {9, 10}
    assert edges[0, rows[0], 3:-3].all()
    assert not canny_edges(np.full_like(step, 0.5), 1.0).any()


def test_an_edge_branch_of_one_channel_is_refused():
    with pytest.raises(InputError, match="at least 2"):
        parse_settings(AdversarialSettings, {"kind": "dual", "channels": 1}, "test")


def test_each_loss_moves_its_own_player_only(discriminator):
    made = images(0.3, 8).requires_grad_()
    fooling_loss(discriminator, made).backward()
    assert made.grad is not None
    assert made.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    made.grad = None
    telling_loss(discriminator, made, torch.rand(2, 1, 8, 8, 8)).backward()
    assert made.grad is None
    assert all(parameter.grad is not None for parameter in discriminator.parameters())


@pytest.mark.parametrize("loss", [fooling_loss, lambda d, made: telling_loss(d, made, 1 - made)])
def test_autocast_changes_nothing(discriminator, loss):
    made = torch.rand(2, 1, 8, 8, 8)
    plain = loss(discriminator, made)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(discriminator, made), plain)


@pytest.mark.parametrize(("kind", "dims"), [("patch", 2), ("patch", 3), ("dual", 2)])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_smallest_crop_is_the_smallest_that_can_be_judged(layers, kind, dims):
    settings = AdversarialSettings(kind=kind, channels=4, layers=layers)
    network, side = build_discriminator(settings, dims), settings.smallest_crop
    seen = 1 if kind == "patch" else 2
    assert network(torch.rand(1, seen, *[side] * dims))[-1].shape == (1, 1, *[1] * dims)
    with pytest.raises((RuntimeError, ValueError)):
        network(torch.rand(1, seen, *[side - 2] * dims))


def test_initial_weights_are_a_function_of_the_seed():
    settings = AdversarialSettings(channels=4, layers=1)
    one, same, other = (
        build_discriminator(settings, 2, seed).get_parameter("final_conv.conv.weight") for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
