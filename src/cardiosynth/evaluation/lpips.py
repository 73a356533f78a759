"""LPIPS: how differently a network trained on photographs sees two images, with the published weights from a file.

Nothing stands in for these weights under this name. Both published networks are known by the names of the weights:
AlexNet and VGG16, each with the learned weights of its features (Zhang et al. 2018, version 0.1). The file is what
``lpips.LPIPS(net=...).state_dict()`` holds, as ``torch.save`` or safetensors wrote it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cardiosynth.core.errors import InputError
from cardiosynth.core.store import file_sha256
from cardiosynth.training.released import read_released

MEAN, SPREAD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of photographs in [-1, 1], by color: the published scaling."""
SMALLEST_NORM = 1e-10
SLICES_AT_ONCE = 16

Weights = Mapping[str, Tensor]
Layer = tuple[int, int, int, bool]
"""Number of a convolution, its stride and padding, and whether the largest of neighbors are taken before it."""


@dataclass(frozen=True)
class Architecture:
    """Where a network's weights are and what lies between them.

    Attributes:
        name: as users call it.
        stages: convolutions by the five places where features are compared.
        pool: side of the neighborhood of which the largest is taken, every second.
        smallest: voxels along each axis that an image needs.
    """

    name: str
    stages: tuple[tuple[Layer, ...], ...]
    pool: int
    smallest: int


def _plain(*numbers: int) -> tuple[Layer, ...]:
    return tuple((number, 1, 1, index == 0) for index, number in enumerate(numbers))


ALEXNET = Architecture(
    "AlexNet", (((0, 4, 2, False),), ((3, 1, 2, True),), _plain(6), ((8, 1, 1, False),), ((10, 1, 1, False),)), 3, 31
)
VGG16 = Architecture(
    "VGG16",
    (((0, 1, 1, False), (2, 1, 1, False)), _plain(5, 7), _plain(10, 12, 14), _plain(17, 19, 21), _plain(24, 26, 28)),
    2,
    16,
)


@dataclass(frozen=True, eq=False)
class Lpips:
    """LPIPS with weights from a file.

    Attributes:
        title: network and fingerprint of the file.
        smallest: voxels along each axis that an image needs.
        distance: pairs of images in [0, 1] -> one number each.
    """

    title: str
    smallest: int
    distance: Callable[[Float[Tensor, "n 1 h w"], Float[Tensor, "n 1 h w"]], Float[Tensor, "n"]]


def load_lpips(file: Path) -> Lpips:
    """Load published weights.

    Raises:
        InputError: the file cannot be read, or is not LPIPS of AlexNet or VGG16.
    """
    weights, _ = read_released(file, "state_dict")
    fitting = [one for one in (ALEXNET, VGG16) if _names(one) <= weights.keys()]
    if not fitting:
        raise InputError(
            f"{file} holds no weights of LPIPS with AlexNet or VGG16; save lpips.LPIPS(net='vgg').state_dict() there."
        )
    title = f"LPIPS {fitting[0].name} {file_sha256(file)[:16]}"
    return Lpips(title, fitting[0].smallest, partial(_distance, fitting[0], weights))


def slice_lpips(lpips: Lpips, x: Float[np.ndarray, "*grid"], y: Float[np.ndarray, "*grid"]) -> float:
    """Return LPIPS of two images in [0, 1], 0 or more: the mean over all slices of each plane, then over planes.

    Planes whose slices are too small for the network are left out; NaN where all are.

    Args:
        lpips: with its weights.
        x: one image, (X, Y, Z) or (X, Y).
        y: the other.
    """
    if x.ndim == 2:
        x, y = x[..., None], y[..., None]
    axes = [axis for axis in range(3) if min(n for i, n in enumerate(x.shape) if i != axis) >= lpips.smallest]
    return float(np.mean([_plane(lpips, x, y, axis) for axis in axes])) if axes else float("nan")


@torch.inference_mode()
def _plane(lpips: Lpips, x: np.ndarray, y: np.ndarray, axis: int) -> float:
    slices = [torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, axis, 0)[:, None])) for image in (x, y)]
    parts = zip(*(image.float().split(SLICES_AT_ONCE) for image in slices), strict=True)
    return float(torch.cat([lpips.distance(a, b) for a, b in parts]).mean())


def _distance(
    network: Architecture, weights: Weights, x: Float[Tensor, "n 1 h w"], y: Float[Tensor, "n 1 h w"]
) -> Float[Tensor, "n"]:
    """Return Zhang et al., Eq. 1: squared differences of unit features, weighed by channel, averaged over the image."""
    total = torch.zeros(len(x))
    for index, (a, b) in enumerate(zip(*(_features(network, weights, image) for image in (x, y)), strict=True)):
        difference = (_unit(a) - _unit(b)).square()
        total = total + functional.conv2d(difference, weights[_linear(index)]).mean((1, 2, 3))
    return total


def _features(network: Architecture, weights: Weights, image: Float[Tensor, "n 1 h w"]) -> list[Tensor]:
    mean, spread = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, SPREAD))
    x, found = (2 * image - 1 - mean) / spread, []
    for stage, layers in enumerate(network.stages, start=1):
        for number, stride, padding, pooled in layers:
            x = functional.max_pool2d(x, network.pool, 2) if pooled else x
            name = f"net.slice{stage}.{number}"
            x = functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, padding).relu()
        found.append(x)
    return found


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt() + SMALLEST_NORM)


def _linear(index: int) -> str:
    return f"lin{index}.model.1.weight"


def _names(network: Architecture) -> set[str]:
    convolutions = [f"net.slice{i}.{layer[0]}" for i, layers in enumerate(network.stages, 1) for layer in layers]
    parts = {f"{name}.{part}" for name in convolutions for part in ("weight", "bias")}
    return parts | {_linear(index) for index in range(len(network.stages))}
