"""Residual networks whose weights others have released: RadImageNet's for slices, MedicalNet's for volumes.

Both are ResNets (He et al. 2016) in evaluation mode, without their heads. They differ from torchvision's and MONAI's of
the same depth, which take the same weights and give other features: RadImageNet's came from Keras (biases, the stride
in a block's first convolution), MedicalNet's last two layers are dilated instead of strided (Chen et al. 2019).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Weights = Mapping[str, Tensor]

DEPTHS: dict[tuple[tuple[int, ...], bool], int] = {
    ((1, 1, 1, 1), False): 10, ((2, 2, 2, 2), False): 18, ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50, ((3, 4, 23, 3), True): 101, ((3, 8, 36, 3), True): 152, ((3, 24, 36, 3), True): 200,
}  # fmt: skip
"""Blocks of each layer, and whether they are bottlenecks -> number of layers, as the networks are called."""


@dataclass(frozen=True)
class Residual:
    """Where released residual networks differ.

    Attributes:
        strides: of each layer's first block.
        dilations: of each layer's wide convolutions.
        biased: whether convolutions have biases.
        stride_first: whether a bottleneck's first convolution has the stride, or its wide one.
        epsilon: of batch normalization.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    biased: bool
    stride_first: bool
    epsilon: float


RADIMAGENET = Residual((1, 2, 2, 2), (1, 1, 1, 1), biased=True, stride_first=True, epsilon=1.001e-5)
MEDICALNET = Residual((1, 2, 1, 1), (1, 1, 2, 4), biased=False, stride_first=False, epsilon=1e-5)


def depth_of(weights: Weights) -> int | None:
    """Return the number of layers of the network that these are the weights of; None where it is none of the known."""
    return DEPTHS.get((_blocks(weights), "layer1.0.conv3.weight" in weights))


def residual_features(weights: Weights, network: Residual, images: Float[Tensor, "n c *grid"]) -> Float[Tensor, "n d"]:
    """Return what the last layer finds, averaged over the image: 512 features, 2048 where blocks are bottlenecks."""
    x = _convolved(weights, network, "conv1", "bn1", images, stride=2).relu()
    x = (functional.max_pool2d if x.ndim == 4 else functional.max_pool3d)(x, 3, 2, 1)
    for layer, count in enumerate(_blocks(weights)):
        for block in range(count):
            stride = network.strides[layer] if block == 0 else 1
            x = _block(weights, network, f"layer{layer + 1}.{block}.", x, (stride, network.dilations[layer]))
    return x.flatten(2).mean(2)


def _block(weights: Weights, network: Residual, name: str, x: Tensor, step: tuple[int, int]) -> Tensor:
    """Return the output of one block; ``step`` is its stride and its dilation."""
    stride, dilation = step
    if f"{name}conv3.weight" in weights:
        strides = (stride, 1, 1) if network.stride_first else (1, stride, 1)
    else:
        strides = (stride, 1)
    out = x
    for index, own in enumerate(strides, start=1):
        out = _convolved(weights, network, f"{name}conv{index}", f"{name}bn{index}", out, own, dilation)
        out = out if index == len(strides) else out.relu()
    return (out + _shortcut(weights, network, name, x, stride, out.shape[1])).relu()


def _shortcut(weights: Weights, network: Residual, name: str, x: Tensor, stride: int, channels: int) -> Tensor:
    if f"{name}downsample.0.weight" in weights:
        return _convolved(weights, network, f"{name}downsample.0", f"{name}downsample.1", x, stride)
    # He et al.'s shortcut A: every stride-th voxel, and zeros for the channels that are new.
    x = x[(..., *(slice(None, None, stride),) * (x.ndim - 2))]
    return torch.cat([x, x.new_zeros(len(x), channels - x.shape[1], *x.shape[2:])], 1)


def _convolved(
    weights: Weights, network: Residual, name: str, norm: str, x: Tensor, stride: int = 1, dilation: int = 1
) -> Tensor:
    """Return a convolution that keeps the size but for its stride, normalized."""
    kernel = weights[f"{name}.weight"]
    bias = weights[f"{name}.bias"] if network.biased else None
    convolve = functional.conv2d if kernel.ndim == 4 else functional.conv3d
    dilation = 1 if kernel.shape[-1] == 1 else dilation
    x = convolve(x, kernel, bias, stride, dilation * (kernel.shape[-1] // 2), dilation)
    mean, variance, scale, shift = (
        weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return functional.batch_norm(x, mean, variance, scale, shift, eps=network.epsilon)


def _blocks(weights: Weights) -> tuple[int, ...]:
    """Return the number of blocks of each layer, as the names of the weights tell."""
    parts = [name.split(".") for name in weights if name.startswith("layer")]
    return tuple(len({block for layer, block, *_ in parts if layer == f"layer{i}"}) for i in range(1, 5))
