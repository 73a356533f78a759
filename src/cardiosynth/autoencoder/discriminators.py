"""The autoencoder's opponent: tells reconstructions from images patch by patch (MAISI, after Isola et al. 2017).

Least squares instead of probabilities (Mao et al. 2017): the opponent draws its answers towards 1 for images and 0 for
reconstructions, the autoencoder draws them towards 1 for reconstructions.
"""

import pydantic
import torch
from jaxtyping import Float
from monai.losses.adversarial_loss import PatchAdversarialLoss
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import Tensor, nn

from cardiosynth.core.config import Settings
from cardiosynth.core.random import named_weights


class AdversarialSettings(Settings):
    """The adversarial term and the network behind it.

    Attributes:
        weight: of the autoencoder's adversarial loss. Published (MAISI) 0.1.
        warmup_steps: finished steps before either player knows of the other. MAISI publishes none.
        channels: features of the first layer, doubled by every further one. Published (MAISI) 32.
        layers: normalized layers, all but the last of which halve the grid. Published (MAISI) 3.
    """

    weight: float = pydantic.Field(default=0.1, gt=0)
    warmup_steps: int = pydantic.Field(default=500, ge=0)
    channels: int = pydantic.Field(default=32, ge=1)
    layers: int = pydantic.Field(default=3, ge=1)

    @property
    def smallest_crop(self) -> int:
        """Voxels per axis below which no patch is left to judge."""
        return 3 * 2**self.layers


def build_discriminator(settings: AdversarialSettings, spatial_dims: int, seed: int = 0) -> PatchDiscriminator:
    """Return a new discriminator (b 1 *grid) -> list of features, the last of them one answer per patch.

    Instance normalization, as MAISI's, knows neither other examples nor other steps, so that several processes
    equal one. The initial weights are drawn from ``seed``.
    """
    with named_weights(seed, "discriminator"):
        return PatchDiscriminator(
            spatial_dims=spatial_dims,
            channels=settings.channels,
            in_channels=1,
            num_layers_d=settings.layers,
            norm="INSTANCE",
        )


LEAST_SQUARES = PatchAdversarialLoss(criterion="least_squares")


def fooling_loss(discriminator: nn.Module, reconstruction: Float[Tensor, "b 1 *grid"]) -> Float[Tensor, ""]:
    """Return what the autoencoder pays for reconstructions that are told from images.

    The discriminator's weights are seen as constants: no gradient reaches them.
    """
    constants = {name: value.detach() for name, value in discriminator.state_dict().items()}
    with _float32(reconstruction.device):
        answers = torch.func.functional_call(discriminator, constants, (reconstruction.float(),))[-1]
        return LEAST_SQUARES(answers, target_is_real=True, for_discriminator=False)


def telling_loss(
    discriminator: nn.Module, reconstruction: Float[Tensor, "b 1 *grid"], image: Float[Tensor, "b 1 *grid"]
) -> Float[Tensor, ""]:
    """Return what the discriminator pays: half for images not known, half for reconstructions not found out.

    No gradient reaches what made the reconstruction.
    """
    with _float32(image.device):
        made, real = discriminator(reconstruction.detach().float())[-1], discriminator(image.float())[-1]
        found_out = LEAST_SQUARES(made, target_is_real=False, for_discriminator=True)
        return 0.5 * (found_out + LEAST_SQUARES(real, target_is_real=True, for_discriminator=True))


def _float32(device: torch.device) -> torch.autocast:
    # torch 2.13's 3D convolutions in bfloat16 on the CPU leave parts of their gradients unwritten where the kernel of 4
    # meets a grid of a few voxels: now and then the weights received what the memory had held before.
    return torch.autocast(device.type, enabled=False)
