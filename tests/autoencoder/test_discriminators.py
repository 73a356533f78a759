import pytest
import torch
from torch import nn

from cardiosynth.autoencoder.discriminators import AdversarialSettings, build_discriminator, fooling_loss, telling_loss


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


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_smallest_crop_is_the_smallest_that_can_be_judged(layers, dims):
    settings = AdversarialSettings(channels=4, layers=layers)
    network, side = build_discriminator(settings, dims), settings.smallest_crop
    assert network(torch.rand(1, 1, *[side] * dims))[-1].shape == (1, 1, *[1] * dims)
    with pytest.raises((RuntimeError, ValueError)):
        network(torch.rand(1, 1, *[side - 2] * dims))


def test_initial_weights_are_a_function_of_the_seed():
    settings = AdversarialSettings(channels=4, layers=1)
    one, same, other = (
        build_discriminator(settings, 2, seed).get_parameter("final_conv.conv.weight") for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
