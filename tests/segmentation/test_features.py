import pytest
import torch

from cardiosynth.core.random import generator
from cardiosynth.segmentation.features import encoder_features, feature_distance
from cardiosynth.segmentation.networks import Classes, SegmenterSettings, build_segmenter


@pytest.fixture
def network():
    settings = SegmenterSettings(channels=(4, 8, 16), strides=(2, 2))
    return build_segmenter(settings, Classes(codes=(0, 1))).eval().requires_grad_(False)


def images(name):
    return torch.rand(2, 1, 8, 8, 8, generator=generator(0, name))


def test_every_level_of_the_encoder_is_seen(network):
    shapes = [tuple(x.shape) for x in encoder_features(network, images("a"))]
    assert shapes == [(2, 4, 4, 4, 4), (2, 8, 2, 2, 2), (2, 16, 2, 2, 2)]


def test_the_encoder_is_the_network_s_own(network):
    seen = []
    network.model[1].submodule[0].register_forward_hook(lambda module, x, y: seen.append(y))
    network(images("a"))
    assert torch.equal(encoder_features(network, images("a"))[1], seen[0])


def test_equal_images_are_at_no_distance_and_others_at_the_same_both_ways(network):
    one, other = images("a"), images("b")
    assert float(feature_distance(network, one, one)) == 0
    there, back = feature_distance(network, one, other), feature_distance(network, other, one)
    assert float(there) == pytest.approx(float(back))
    assert 0 < float(there) <= 4, "unit vectors are at most 2 apart"


def test_gradients_reach_the_first_image_only(network):
    one, other = images("a").requires_grad_(), images("b").requires_grad_()
    feature_distance(network, one, other).backward()
    assert one.grad is not None
    assert one.grad.abs().max() > 0
    assert other.grad is None
    assert all(parameter.grad is None for parameter in network.parameters())
