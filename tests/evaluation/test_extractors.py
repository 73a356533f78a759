"""Released networks with weights made up here, beside the networks that these weights were released for."""

import types
from functools import partial
from pathlib import Path

import pytest
import torch
from monai.networks.nets.resnet import ResNet

from cardiosynth.core.errors import InputError
from cardiosynth.core.torchvision_operators import declare_torchvision_operators
from cardiosynth.evaluation.extractors import KINDS, load_extractor
from cardiosynth.evaluation.inception import inception_features
from cardiosynth.evaluation.residual import MEDICALNET, RADIMAGENET, depth_of, residual_features

NARROW, PUBLISHED = [4, 8, 16, 32], [64, 128, 256, 512]
"""Channels of the layers: features do not ask how many there are, files do."""


def filled(network: torch.nn.Module) -> torch.nn.Module:
    """The network, built without numbers, in evaluation mode with random ones of fitting size."""
    generator = torch.Generator().manual_seed(0)
    network = network.to_empty(device="cpu").eval().requires_grad_(False)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            size = value[0].numel() ** -0.5 if value.ndim > 1 else 0.1
            value.copy_(size * (2 * torch.rand(value.shape, generator=generator) - 1))
            value += name.endswith(("running_var", "bn1.weight", "bn2.weight", "bn3.weight", "bn.weight"))
    return network


def hollow(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights of the network's names and sizes, of one number each: they cost no memory and no disk."""
    return {name: torch.full((), 0.01).expand(value.shape) for name, value in network.state_dict().items()}


def medicalnet(block: str, layers: list[int], shortcut: str = "B", channels: list[int] = NARROW) -> ResNet:
    """MONAI's network as Tencent's: the last two layers dilated by 2 and 4 and not strided."""
    with torch.device("meta"):
        network = ResNet(
            block, layers, channels, n_input_channels=1, conv1_t_stride=2, shortcut_type=shortcut, feed_forward=False,
            bias_downsample=False,
        )  # fmt: skip
    for layer, dilation in ((network.layer3, 2), (network.layer4, 4)):
        for module in layer.modules():
            if isinstance(module, torch.nn.Conv3d):
                wide = module.kernel_size[0] == 3
                module.stride = (1, 1, 1)
                module.dilation = (dilation,) * 3 if wide else (1, 1, 1)
                module.padding = (dilation,) * 3 if wide else (0, 0, 0)
        if isinstance(layer[0].downsample, partial):
            layer[0].downsample.keywords["stride"] = 1
    return network


def radimagenet(channels: list[int] = NARROW) -> ResNet:
    """MONAI's network as Keras's: biases, the stride in a block's first convolution, another epsilon."""
    settings = {"spatial_dims": 2, "n_input_channels": 3, "conv1_t_stride": 2, "feed_forward": False}
    with torch.device("meta"):
        network = ResNet("bottleneck", [3, 4, 6, 3], channels, **settings)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.bias = torch.nn.Parameter(torch.empty(module.out_channels, device="meta"))
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1.001e-5
    for layer in (network.layer2, network.layer3, network.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    return network


def test_radimagenet_is_the_network_that_it_was_converted_for():
    network, images = filled(radimagenet()), torch.rand(2, 3, 48, 64)
    torch.testing.assert_close(residual_features(network.state_dict(), RADIMAGENET, images), network(images))


MEDICALNETS = {
    10: ("basic", [1, 1, 1, 1], "B"), 18: ("basic", [2, 2, 2, 2], "A"), 50: ("bottleneck", [3, 4, 6, 3], "B"),
}  # fmt: skip


@pytest.mark.parametrize("depth", MEDICALNETS)
def test_medicalnet_is_dilated(depth: int):
    network, images = filled(medicalnet(*MEDICALNETS[depth])), torch.rand(1, 1, 32, 24, 40)
    weights = network.state_dict()
    assert depth_of(weights) == depth
    torch.testing.assert_close(residual_features(weights, MEDICALNET, images), network(images), rtol=1e-4, atol=1e-5)


def inception(published: bool):
    """Torchvision's module, and its network for 1008 classes as in FID or for 1000."""
    declare_torchvision_operators()
    models = pytest.importorskip("torchvision.models.inception", reason="torchvision is not installed")
    with torch.device("meta"):
        classes = 1008 if published else 1000
        return models, models.Inception3(num_classes=classes, aux_logits=not published, init_weights=False)


def seen_by(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What reaches the network's head."""
    seen: list[torch.Tensor] = []
    network.fc.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network(images)
    return seen[0]


@pytest.mark.slow
def test_inception_is_torchvisions():
    network, images = filled(inception(published=False)[1]), 2 * torch.rand(1, 3, 107, 83) - 1
    torch.testing.assert_close(inception_features(network.state_dict(), images), seen_by(network, images))


@pytest.mark.slow
def test_inception_of_fid_leaves_the_padding_out_and_ends_with_the_largest(monkeypatch):
    models, network = inception(published=True)
    own = vars(torch.nn.functional) | {"avg_pool2d": partial(torch.nn.functional.avg_pool2d, count_include_pad=False)}
    monkeypatch.setattr(models, "F", types.SimpleNamespace(**own))
    largest = lambda *_: setattr(models.F, "avg_pool2d", torch.nn.functional.max_pool2d)  # noqa: E731
    network.Mixed_7c.register_forward_pre_hook(largest)
    network, images = filled(network), 2 * torch.rand(1, 3, 107, 83) - 1
    torch.testing.assert_close(inception_features(network.state_dict(), images), seen_by(network, images))


@pytest.fixture(scope="module")
def rad() -> dict[str, torch.Tensor]:
    return hollow(radimagenet(PUBLISHED))


@pytest.fixture(scope="module")
def ten() -> dict[str, torch.Tensor]:
    return hollow(medicalnet(*MEDICALNETS[10], PUBLISHED))


def test_features_of_a_file_say_whose_they_are(rad, ten, tmp_path: Path):
    torch.save({"state_dict": {f"module.{name}": value for name, value in ten.items()}}, tmp_path / "resnet_10.pth")
    found = load_extractor(f"medicalnet={tmp_path / 'resnet_10.pth'}")
    assert found.title.startswith("MedicalNet ResNet-10 ")
    assert len(found.fingerprint) == 16
    volumes = torch.rand(2, 1, 16, 16, 16)
    torch.testing.assert_close(found.features(volumes), found.features(0.5 * volumes + 0.2), rtol=1e-3, atol=1e-3)
    torch.save(rad, tmp_path / "rad.pth")
    found = load_extractor(f"radimagenet={tmp_path / 'rad.pth'}")
    assert (found.name, found.spatial_dims) == ("RadImageNet ResNet-50", 2)
    gray = torch.rand(1, 1, 32, 32)
    expected = residual_features(rad, RADIMAGENET, gray - torch.tensor([0.406, 0.456, 0.485]).reshape(1, 3, 1, 1))
    torch.testing.assert_close(found.features(gray), expected)


@pytest.mark.slow
def test_both_inceptions_are_told_apart(tmp_path: Path):
    for published, name in ((True, "Inception v3 (as in FID)"), (False, "Inception v3 (torchvision)")):
        torch.save(hollow(inception(published)[1]), tmp_path / "inception.pth")
        found = load_extractor(f"inception={tmp_path / 'inception.pth'}")
        assert (found.name, found.spatial_dims) == (name, 2)


@pytest.mark.slow
def test_inception_sees_slices_of_any_size_in_its_own(tmp_path: Path):
    weights, gray = hollow(inception(published=True)[1]), torch.rand(1, 1, 40, 50)
    torch.save(weights, tmp_path / "fid.pth")
    large = torch.nn.functional.interpolate(gray, (299, 299), mode="bilinear").expand(-1, 3, -1, -1)
    found = load_extractor(f"inception={tmp_path / 'fid.pth'}").features(gray)
    torch.testing.assert_close(found, inception_features(weights, 2 * large - 1))


def wrong_files(rad: dict, ten: dict) -> dict[str, dict]:
    return {
        "radimagenet": ten, "medicalnet": rad, "inception": rad,
        "radimagenet without biases": {n: v for n, v in rad.items() if not n.endswith("conv1.bias")},
        "radimagenet of another width": hollow(radimagenet()),
        "radimagenet and more": rad | {"layer1.0.conv4.weight": torch.zeros(1)},
        "medicalnet of another depth": {n: v for n, v in ten.items() if not n.startswith("layer4")},
    }  # fmt: skip


def test_nothing_else_is_taken_for_it(rad, ten, tmp_path: Path):
    for case, weights in wrong_files(rad, ten).items():
        torch.save(weights, tmp_path / "file.pth")
        with pytest.raises(InputError, match=f"does not hold the weights of {case.split()[0]}"):
            load_extractor(f"{case.split()[0]}={tmp_path / 'file.pth'}")
    with pytest.raises(InputError, match="not there"):
        load_extractor(f"inception={tmp_path / 'nowhere.pth'}")


@pytest.mark.parametrize("text", ["resnet=file.pth", "inception", "inception="])
def test_a_network_is_given_with_its_kind(text):
    with pytest.raises(InputError, match="radimagenet=FILE or medicalnet=FILE or inception=FILE"):
        load_extractor(text)
    assert set(KINDS) == {"radimagenet", "medicalnet", "inception"}
