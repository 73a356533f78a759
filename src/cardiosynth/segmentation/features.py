"""What a trained segmenter sees in an image, as a distance between two images: a perceptual loss without downloads.

Published autoencoders compare images by features of a network trained on photographs (LPIPS, Zhang et al. 2018). A
segmenter of the same anatomy is at hand, three-dimensional, and its features are about borders of structures.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cardiosynth.segmentation.networks import fast_memory_format

SMALLEST_NORM = 1e-6
"""Added to the norm of a voxel's features, so that no voxel divides by zero."""


def encoder_features(network: nn.Module, image: Float[Tensor, "b 1 *grid"]) -> list[Float[Tensor, "b _ *_"]]:
    """Return the features of every level of a segmenter's encoder, finest first.

    Args:
        network: from ``build_segmenter``: MONAI's U-Net, a nest of (down, skip over the next level, up).
        image: in model units; every axis a multiple of the network's strides.
    """
    level, features = network.get_submodule("model"), []
    x = image.contiguous(memory_format=fast_memory_format(image.ndim - 2))
    while isinstance(level, nn.Sequential) and len(level) == 3:
        x = level[0](x)
        features.append(x)
        level = level[1].get_submodule("submodule")
    return [*features, level(x)]


def feature_distance(
    network: nn.Module, one: Float[Tensor, "b 1 *grid"], other: Float[Tensor, "b 1 *grid"]
) -> Float[Tensor, ""]:
    """Return how differently ``network`` sees two images: 0 for equal ones.

    The squared distance of the features of each voxel, which are scaled to unit length first (as in LPIPS, Eq. 1,
    without learned weights), averaged over voxels and levels. Gradients reach ``one`` only.

    Args:
        network: a frozen segmenter in eval mode.
        one: e.g. reconstructions, in model units.
        other: e.g. what they should be.
    """
    with torch.no_grad():
        wanted = encoder_features(network, other)
    pairs = zip(encoder_features(network, one), wanted, strict=True)
    distances = [(_unit(a.float()) - _unit(b.float())).square().sum(1).mean() for a, b in pairs]
    return torch.stack(distances).mean()


def _unit(features: Tensor) -> Tensor:
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + SMALLEST_NORM)
