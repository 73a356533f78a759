"""Networks that others trained and released, from the user's files: whose features FID, KID and t-SNE compare.

Every kind is known by the names and sizes of its weights, and nothing else is taken for it.

| kind | file | what it sees |
| --- | --- | --- |
| ``radimagenet`` | RadImageNet-ResNet50_notop.pth of Warvito/radimagenet-models (MAISI's FID) | slices |
| ``medicalnet`` | resnet_10.pth to resnet_200.pth of Tencent's MedicalNet (HA-GAN's and WDM's FID) | volumes |
| ``inception`` | pt_inception-2015-12-05 of pytorch-fid, or inception_v3_google of torchvision | slices |
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cardiosynth.core.errors import InputError
from cardiosynth.core.store import file_sha256
from cardiosynth.evaluation.extraction import Extractor
from cardiosynth.evaluation.inception import NUM_CLASSES, SIDE, inception_features
from cardiosynth.evaluation.residual import MEDICALNET, RADIMAGENET, depth_of, residual_features
from cardiosynth.training.released import read_released

PHOTOGRAPHS = (0.406, 0.456, 0.485)
"""Means of photographs by color, blue first."""
SMALLEST_SPREAD = 1e-5
WIDTHS = (512, 2048)
"""Numbers of features of networks of the published widths: of plain blocks, of bottlenecks."""
UNUSED = ("fc.", "AuxLogits.", "conv_seg.")
"""Heads, which give no features."""

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Released:
    """A kind of released network.

    Attributes:
        title: of the network that these are the weights of; empty where they are none of this kind.
        spatial_dims: 2 for slices, 3 for volumes.
        features: of images in [0, 1].
        reading: how the images are given to it, in words.
        source: which files hold it.
    """

    title: Callable[[Weights], str]
    spatial_dims: Literal[2, 3]
    features: Callable[[Weights, Float[Tensor, "n 1 *grid"]], Float[Tensor, "n d"]]
    reading: str
    source: str


class _Noted(dict[str, Tensor]):
    """Weights that note which of them are asked for."""

    def __init__(self, weights: Weights):
        super().__init__({name: value.to("meta") for name, value in weights.items()})
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.used.add(name)
        return super().__getitem__(name)


def load_extractor(text: str, device: str = "cpu") -> Extractor:
    """Return the network that ``KIND=FILE`` names, called after its kind and the hash of the file.

    Raises:
        InputError: no such kind, or a file that cannot be read or holds another network.
    """
    kind, _, name = text.partition("=")
    if kind not in KINDS or not name:
        known = " or ".join(f"{known}=FILE" for known in KINDS)
        raise InputError(f"--extractor {text}: write {known}.")
    file, released = Path(name), KINDS[kind]
    stored, _ = read_released(file, "state_dict")
    weights = {name.removeprefix("module."): value.to(device) for name, value in stored.items()}
    title = _title(released, weights)
    if not title:
        raise InputError(f"{file} does not hold the weights of {kind}; give {released.source}.")
    return Extractor(
        name=title, fingerprint=file_sha256(file)[:16], spatial_dims=released.spatial_dims,
        features=partial(_on_device, released, weights, torch.device(device)), reading=released.reading,
    )  # fmt: skip


def _title(released: Released, weights: Weights) -> str:
    """Return what the weights are of; empty where the network cannot be made of them, or some would be left over."""
    title, noted = released.title(weights), _Noted(weights)
    if not title:
        return ""
    try:
        # Tensors of the device "meta" have names and sizes alone, so that this costs nothing.
        found = released.features(noted, torch.zeros((1, 1, *(32,) * released.spatial_dims), device="meta"))
    except (KeyError, RuntimeError):
        return ""
    if found.shape[1] not in WIDTHS:
        return ""
    left = {name for name in weights.keys() - noted.used if not name.endswith("num_batches_tracked")}
    return "" if any(not name.startswith(UNUSED) for name in left) else title


def _on_device(
    released: Released, weights: Weights, device: torch.device, images: Float[Tensor, "n 1 *grid"]
) -> Float[Tensor, "n d"]:
    return released.features(weights, images.to(device))


def _radimagenet(weights: Weights, images: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n d"]:
    mean = torch.tensor(PHOTOGRAPHS, device=images.device).reshape(1, 3, 1, 1)
    return residual_features(weights, RADIMAGENET, images - mean)


def _medicalnet(weights: Weights, images: Float[Tensor, "n 1 x y z"]) -> Float[Tensor, "n d"]:
    spread, mean = torch.std_mean(images, (2, 3, 4), keepdim=True)
    return residual_features(weights, MEDICALNET, (images - mean) / (spread + SMALLEST_SPREAD))


def _inception(weights: Weights, images: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n d"]:
    resized = functional.interpolate(images, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return inception_features(weights, 2 * resized.expand(-1, 3, -1, -1) - 1)


def _radimagenet_title(weights: Weights) -> str:
    return "RadImageNet ResNet-50" if depth_of(weights) == 50 else ""


def _medicalnet_title(weights: Weights) -> str:
    depth = depth_of(weights)
    return f"MedicalNet ResNet-{depth}" if depth else ""


def _inception_title(weights: Weights) -> str:
    head = weights.get("fc.weight")
    owner = None if head is None else NUM_CLASSES.get(head.shape[0])
    return f"Inception v3 ({owner})" if owner else ""


KINDS = {
    "radimagenet": Released(
        _radimagenet_title, 2, _radimagenet,
        "Slices at their own size, in three equal channels less the means of photographs (0.406, 0.456, 0.485).",
        "RadImageNet-ResNet50_notop.pth of Warvito/radimagenet-models",
    ),
    "medicalnet": Released(
        _medicalnet_title, 3, _medicalnet,
        "Volumes at their own size, less their mean and divided by their standard deviation.",
        "a file of Tencent's MedicalNet such as resnet_50.pth",
    ),
    "inception": Released(
        _inception_title, 2, _inception,
        "Slices resized to 299 x 299 pixels (bilinear), in three equal channels from -1 to 1.",
        "pt_inception-2015-12-05-6726825d.pth of pytorch-fid or torchvision's inception_v3_google-0cc3c7bd.pth",
    ),
}  # fmt: skip
"""Kind, as users name it -> the network."""
