import numpy as np
import pydantic
import pytest
import torch

from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.segmentation.networks import Classes, SegmenterSettings, build_segmenter, target_classes

from .cases import LABELS


def test_classes_are_the_targets_by_code_and_surroundings_are_background():
    assert target_classes(LABELS).codes == (0, 3, 7)
    assert target_classes(CARDIAC_CT).codes == tuple(range(9))
    mask = np.array([[0, 3, 7, 40]], np.uint8)
    classes = target_classes(LABELS).from_codes(mask)
    assert classes.tolist() == [[0, 1, 2, 0]]
    assert target_classes(LABELS).to_codes(classes).tolist() == [[0, 3, 7, 0]]


@pytest.mark.parametrize(("dims", "shape"), [(2, (8, 12)), (3, (8, 12, 4))])
def test_a_network_gives_logits_of_every_class_on_the_same_grid(dims, shape):
    settings = SegmenterSettings(spatial_dims=dims, channels=(4, 6, 8), strides=(2, 2))
    network = build_segmenter(settings, Classes(codes=(0, 1, 5)))
    assert network(torch.zeros(2, 1, *shape)).shape == (2, 3, *shape)
    assert settings.multiple == 4


def test_initial_weights_depend_on_the_seed_only():
    settings, classes = SegmenterSettings(channels=(2, 4), strides=(2,)), Classes(codes=(0, 1))
    torch.manual_seed(1)
    first = build_segmenter(settings, classes, 3).state_dict()
    torch.manual_seed(2)
    again, other = (build_segmenter(settings, classes, seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_strides_must_lie_between_channels():
    with pytest.raises(pydantic.ValidationError, match="3 channels need 2 strides"):
        SegmenterSettings(channels=(4, 8, 8), strides=(2,))
