"""What a decoder is told of a mask beside the latents. Beyond the paper: published decoders see latents alone.

A vessel of one voxel is lost in latents of four voxels, and what the autoencoder loses no sampler brings back. In
synthesis the mask is known exactly: told where a vessel is, a decoder needs of the latents only how bright it is.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cardiosynth.autoencoder.folds import space_to_depth
from cardiosynth.core.labels import LabelTable

SLAB_VOXELS = 2**20
"""Image voxels whose channels exist at once: 34 MB for eight structures in float32."""


class MaskStem(nn.Module):
    """Space-to-depth by the compression, then 1x1 and 3x3 convolutions: nothing runs at image resolution.

    Its features join the latents before the decoder's first layer, so that a decoder stays one chain of layers. As long
    as ``features`` is at most a third of the voxels in a latent's block, 21 of 64, it takes no more memory than latents
    and image do, so that a budget for decoding holds, but for the latents and the mask that it is given.

    Args:
        labels: the label table of the masks; the decoder is told of target structures, surroundings are left out.
        compression: image voxels per latent voxel along each axis.
        dims: 2 or 3.
        features: channels that it gives.
    """

    def __init__(self, labels: LabelTable, compression: int, dims: int, features: int):
        super().__init__()
        self.labels, self.compression = labels, compression
        conv = nn.Conv3d if dims == 3 else nn.Conv2d
        self.enter = conv(len(labels.target_codes) * compression**dims, 2 * features, 1)
        self.mix = conv(2 * features, features, 3, padding=1)

    def forward(self, mask: UInt8[Tensor, "b 1 *grid"]) -> Float[Tensor, "b f *latent"]:
        """Return features at latent resolution; the first layer, which sees one latent at a time, works in slabs."""
        layers = mask.numel() // mask.shape[2] * self.compression
        thickness = self.compression * max(1, SLAB_VOXELS // layers)
        entered = torch.cat([self.enter(self._channels(slab)) for slab in mask.split(thickness, 2)], 2)
        return self.mix(F.silu(entered, inplace=not torch.is_grad_enabled()))

    def _channels(self, mask: UInt8[Tensor, "b 1 *grid"]) -> Float[Tensor, "b _ *latent"]:
        """Return one channel per target structure and voxel of a latent's block."""
        blocks, dtype = space_to_depth(mask, self.compression), self.enter.weight.dtype
        return torch.cat([(blocks == code).to(dtype) for code in self.labels.target_codes], 1)
