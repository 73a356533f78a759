import numpy as np
import pydantic
import pytest
import torch
from monai.losses.dice import DiceCELoss
from monai.networks.nets.unet import UNet

from cardiosynth.core.config import parse_settings
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.random import generator, named_weights
from cardiosynth.segmentation.losses import SMOOTH, cal_loss
from cardiosynth.segmentation.networks import (
    Classes,
    SegmenterSettings,
    SegResNetSettings,
    SwinUNETRSettings,
    build_segmenter,
    target_classes,
)
from cardiosynth.segmentation.swin_unet import SwinUNetSettings

from .cases import LABELS, stage

SMALL = {
    "unet": SegmenterSettings(channels=(4, 6), strides=(2,)),
    "unet 2D": SegmenterSettings(spatial_dims=2, channels=(4, 6), strides=(2,)),
    "swin_unet": SegmenterSettings(
        kind="swin_unet", spatial_dims=2,
        swin_unet=SwinUNetSettings(features=6, depths=(1, 2), heads=(1, 2), window=2, patch=2, drop_path=0),
    ),
    "segresnet": SegmenterSettings(
        kind="segresnet", segresnet=SegResNetSettings(features=8, blocks_down=(1, 1), blocks_up=(1,))
    ),
    "swin_unetr": SegmenterSettings(
        kind="swin_unetr", spatial_dims=2, swin_unetr=SwinUNETRSettings(features=12, depths=(1, 1, 1, 1), window=2)
    ),
}  # fmt: skip


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


def test_the_u_net_of_older_runs_is_the_same_to_the_bit():
    """Its settings as recorded before there were other kinds, its weights as drawn then."""
    recorded = {"spatial_dims": 3, "channels": [2, 4], "strides": [2], "num_res_units": 1, "dropout": 0.0}
    network = build_segmenter(parse_settings(SegmenterSettings, recorded, "record.json"), Classes(codes=(0, 1)), 3)
    with named_weights(3, "segmenter"):
        before = UNet(3, 1, 2, (2, 4), (2,), num_res_units=1, norm="instance").state_dict()
    assert list(network.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def example(settings: SegmenterSettings):
    rng, multiple = generator(0, "example"), settings.multiple
    grid = (2 * multiple, *(multiple,) * (settings.spatial_dims - 1))
    image = torch.rand(2, 1, *grid, generator=rng)
    target = torch.randint(0, 3, (2, 1, *grid), generator=rng)
    return build_segmenter(settings, Classes(codes=(0, 1, 2))), image, target


def gradients(network, loss) -> list[torch.Tensor]:
    parameters = list(network.parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


@pytest.mark.parametrize("kind", SMALL)
def test_of_every_network_confidence_one_is_the_plain_loss_and_its_gradient(kind):
    network, image, target = example(SMALL[kind])
    logits = network(image)
    assert logits.shape == (2, 3, *image.shape[2:])
    plain = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, smooth_nr=SMOOTH, smooth_dr=SMOOTH)(
        logits, target
    )
    loss = cal_loss(network(image), target, torch.ones_like(image))
    torch.testing.assert_close(loss, plain)
    for ours, theirs in zip(gradients(network, loss), gradients(network, plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", SMALL)
def test_of_every_network_labels_without_confidence_change_no_gradient(kind):
    network, image, target = example(SMALL[kind])
    confidence = torch.rand(image.shape, generator=generator(0, "confidence"))
    confidence[:, :, : image.shape[2] // 2] = 0
    scrambled = torch.where(confidence == 0, (target + 1) % 3, target)
    assert not torch.equal(scrambled, target)
    one, other = (gradients(network, cal_loss(network(image), t, confidence)) for t in (target, scrambled))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert any(gradient.abs().max() > 0 for gradient in one)


@pytest.mark.parametrize("kind", SMALL)
def test_every_network_can_be_built_to_be_counted(kind):
    classes = Classes(codes=(0, 1))
    with torch.device("meta"):
        counted = build_segmenter(SMALL[kind], classes)
    built = build_segmenter(SMALL[kind], classes).state_dict()
    assert {name: value.shape for name, value in counted.state_dict().items()} == {n: v.shape for n, v in built.items()}


@pytest.mark.parametrize(
    ("network", "crop", "message"),
    [
        (SMALL["swin_unet"], (6, 6), "multiples of 4, which network.kind swin_unet takes"),
        (SMALL["segresnet"], (8, 8, 7), "multiples of 2, which network.kind segresnet takes"),
        (SMALL["swin_unetr"], (48, 48), "multiples of 32, which network.kind swin_unetr takes"),
        (SMALL["swin_unetr"], (32, 32), "a single voxel at its deepest level"),
        (SMALL["unet"], (2, 2, 2), "make an axis 4 or more"),
    ],
)
def test_a_crop_that_a_network_cannot_take_is_refused(network, crop, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        stage(network=network, crop=crop)


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        (SegmenterSettings, {"kind": "swin_unet"}, "set spatial_dims to 2"),
        (SegResNetSettings, {"blocks_up": (1, 1)}, "4 blocks_down need 3 blocks_up"),
        (SwinUNETRSettings, {"heads": (5, 6, 12, 24)}, "24 features cannot be shared by 5 heads"),
    ],
)
def test_sizes_that_no_network_has_are_refused(settings, change, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        settings(**change)
