"""Autoencoders that nothing is learned of: images as they are, and their Haar wavelets, behind the one contract.

Diffusion on voxels (DDPM, Med-DDPM) and on wavelets (WDM, Friedrich et al. 2024) is then latent diffusion with one of
these, so that records, latents on disk, crops, solvers and decoding are those of every other network.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cardiosynth.autoencoder.chain import Chain
from cardiosynth.autoencoder.folds import DepthToSpace, SpaceToDepth
from cardiosynth.autoencoder.layers import Count, Layer, Scale, Shape, Sizes
from cardiosynth.autoencoder.networks import Autoencoder, AutoencoderSettings
from cardiosynth.core.store import checkpoints, save_checkpoint
from cardiosynth.training.log import keep_config
from cardiosynth.training.processes import Processes

MEAN_GAIN = {2: 1 / 2, 3: 1 / 3}
"""Factor on the band of means by spatial axes: where an image is -1 or 1 everywhere, that of three axes is 2.8 times
as large as the image. Published (WDM) 1/3."""


def fixed_settings(kind: str, spatial_dims: int) -> AutoencoderSettings:
    """Return the settings of an autoencoder of kind ``identity`` or ``haar``, which has no sizes to choose."""
    factor = AutoencoderSettings.FIXED[kind]
    values = {
        "kind": kind, "spatial_dims": spatial_dims, "compression": factor, "latent_channels": factor**spatial_dims,
        "channels": (), "num_res_blocks": (),
    }  # fmt: skip
    return AutoencoderSettings.model_validate(values)


def haar_matrix(dims: int) -> Float[Tensor, "n n"]:
    """Return the Haar transform of a block of two voxels per axis, the last axis fastest; orthonormal, float64.

    The first row is the band of means; in the others a factor of the product takes differences instead.
    """
    one, found = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / 2**0.5, torch.ones(1, 1)
    for _ in range(dims):
        found = torch.kron(found.double(), one)
    return found


@dataclass(frozen=True, eq=False)
class Mix(Layer):
    """The channels of every voxel times a matrix, in float32 or better whatever convolutions are computed in."""

    matrix: Float[Tensor, "d c"]

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed channels."""
        x = x if x.dtype == torch.float64 else x.float()
        with torch.autocast(x.device.type, enabled=False):
            return torch.einsum("dc,bc...->bd...", self.matrix.to(x.dtype), x)

    def shape(self, shape: Shape) -> Shape:
        """Return the grid with the matrix's rows as channels."""
        return (self.matrix.shape[0], *shape[1:])

    def scratch(self, size: Sizes) -> Count | float:
        """Return the input with its channels stored last, as the product takes it."""
        return size.x * size.item

    def itemsize(self, x: int, low: int) -> int:
        """Return four, or eight."""
        return max(4, x)

    def flops(self) -> int:
        """Return two per entry."""
        return 2 * self.matrix.numel()


class FixedAutoencoder(Autoencoder):
    """Images in [-1, 1], or the Haar wavelets of blocks of two voxels per axis; decoding undoes it to float error.

    Attributes:
        matrix: from a block's voxels to its bands; of one voxel the identity. A buffer, so that a checkpoint tells the
            transform.
        inverse: undoes it.
    """

    LOG_VARIANCE = (0.0, 0.0)
    matrix: Tensor
    inverse: Tensor

    def __init__(self, settings: AutoencoderSettings):
        super().__init__(settings)
        matrix = haar_matrix(settings.spatial_dims if settings.kind == "haar" else 0)
        gain = torch.ones(len(matrix), 1, dtype=torch.float64)
        gain[0] = MEAN_GAIN[settings.spatial_dims] if settings.kind == "haar" else 1
        self.register_buffer("matrix", (gain * matrix).float())
        self.register_buffer("inverse", (matrix.T / gain.T).float())

    def encoding(self) -> Chain:
        """Return the layers from images to bands; the grid must be a multiple of ``compression``."""
        fold = [SpaceToDepth("blocks")] if self.compression == 2 else []
        return Chain((Scale("to [-1, 1]", 2, -1), *fold, Mix("to bands", self.matrix)))

    def decoding(self) -> Chain:
        """Return the layers from bands to images."""
        unfold = [DepthToSpace("blocks")] if self.compression == 2 else []
        return Chain((Mix("from bands", self.inverse), *unfold, Scale("to [0, 1]", 0.5, 0.5)))


def keep_fixed(autoencoder: Autoencoder, folder: Path, record: dict[str, Any], processes: Processes) -> Path:
    """Write the checkpoint of an autoencoder that is not trained, where ``folder`` does not hold it, and return it.

    Raises:
        InputError: the folder holds another one.
    """
    with processes.writer_first():
        found = checkpoints(folder)
        if processes.writes:
            keep_config(folder, record, resumes=bool(found), writes=True)
            if not found:
                save_checkpoint(folder, 0, autoencoder.state_dict(), {}, record)
    return checkpoints(folder)[-1]
