"""Inception v3 (Szegedy et al. 2016) with released weights: those of the published FID, or torchvision's.

Both have the same names. The network of the published FID (TensorFlow's of 2015-12-05) leaves the padding out of the
means that its blocks take, and its last block takes the largest neighbor instead of the mean.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Weights = Mapping[str, Tensor]
Branch = tuple[str | tuple[str, ...], ...]
"""Convolutions one after another; of names in brackets each sees the same, and they are put side by side."""

SIDE = 299
EPSILON = 1e-3
NUM_CLASSES = {1008: "as in FID", 1000: "torchvision"}
"""How many classes the network was trained for -> whose it is."""


def _chain(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}_{i}" for i in range(1, count + 1))


_A: tuple[Branch, ...] = (("branch1x1",), _chain("branch5x5", 2), _chain("branch3x3dbl", 3))
_B: tuple[Branch, ...] = (("branch3x3",), _chain("branch3x3dbl", 3))
_C: tuple[Branch, ...] = (("branch1x1",), _chain("branch7x7", 3), _chain("branch7x7dbl", 5))
_D: tuple[Branch, ...] = (_chain("branch3x3", 2), _chain("branch7x7x3", 4))
_E: tuple[Branch, ...] = (
    ("branch1x1",),
    ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b")),
    ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")),
)
BLOCKS = {
    "5b": _A, "5c": _A, "5d": _A, "6a": _B, "6b": _C, "6c": _C, "6d": _C, "6e": _C, "7a": _D, "7b": _E, "7c": _E,
}  # fmt: skip
HALVING = ("6a", "7a")
"""Blocks whose last convolutions have stride 2 and no padding."""


def inception_features(weights: Weights, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
    """Return the last block's output, averaged over the image: what FID compares (Heusel et al. 2017).

    Args:
        weights: by torchvision's names.
        images: in [-1, 1], of 299 x 299 as published.
    """
    published = weights["fc.weight"].shape[0] == 1008
    x = _unit(weights, "Conv2d_1a_3x3", images, stride=2, padded=False)
    x = _unit(weights, "Conv2d_2b_3x3", _unit(weights, "Conv2d_2a_3x3", x, padded=False))
    x = _unit(weights, "Conv2d_3b_1x1", functional.max_pool2d(x, 3, 2))
    x = functional.max_pool2d(_unit(weights, "Conv2d_4a_3x3", x, padded=False), 3, 2)
    for name, branches in BLOCKS.items():
        x = _block(weights, name, branches, x, published)
    return x.mean((2, 3))


def _block(weights: Weights, name: str, branches: tuple[Branch, ...], x: Tensor, published: bool) -> Tensor:
    found = [_branch(weights, f"Mixed_{name}.", branch, x, name in HALVING) for branch in branches]
    if name in HALVING:
        return torch.cat([*found, functional.max_pool2d(x, 3, 2)], 1)
    if published and name == "7c":
        pooled = functional.max_pool2d(x, 3, 1, 1)
    else:
        pooled = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=not published)
    return torch.cat([*found, _unit(weights, f"Mixed_{name}.branch_pool", pooled)], 1)


def _branch(weights: Weights, block: str, branch: Branch, x: Tensor, halving: bool) -> Tensor:
    for index, step in enumerate(branch, start=1):
        last = halving and index == len(branch)
        names = (step,) if isinstance(step, str) else step
        x = torch.cat([_unit(weights, block + name, x, 2 if last else 1, not last) for name in names], 1)
    return x


def _unit(weights: Weights, name: str, x: Tensor, stride: int = 1, padded: bool = True) -> Tensor:
    """Return a convolution, normalized, without what is below zero."""
    kernel = weights[f"{name}.conv.weight"]
    padding = (kernel.shape[2] // 2, kernel.shape[3] // 2) if padded else (0, 0)
    x = functional.conv2d(x, kernel, None, stride, padding)
    mean, variance, scale, shift = (
        weights[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return functional.batch_norm(x, mean, variance, scale, shift, eps=EPSILON).relu()
