"""Latent diffusion of slices (Rombach et al. 2022), the ground of ControlNet, T2I-Adapter and DiffInfinite.

These are published on Stable Diffusion's weights, learned of billions of photographs. Here autoencoder and U-Net are
learned of the same slices as everything else, so that methods are compared and not their data.
"""

from cardiosynth.autoencoder.discriminators import AdversarialSettings
from cardiosynth.autoencoder.networks import AutoencoderSettings
from cardiosynth.autoencoder.task import AutoencoderStage
from cardiosynth.baselines.latent_diffusion import (
    EVEN,
    LATENT_UNET,
    QUICKLY,
    TINY_LATENT_UNET,
    learned_latents,
    short_training,
    small_autoencoder,
)
from cardiosynth.diffusion.objective import ObjectiveSettings
from cardiosynth.diffusion.process import ProcessSettings
from cardiosynth.diffusion.settings import DiffusionStage
from cardiosynth.diffusion.unet import DenoiserSettings
from cardiosynth.sampling.sampler import SamplerSettings
from cardiosynth.training.settings import TrainingSettings

PROCESS = ProcessSettings(kind="variance_preserving", beta_start=8.5e-4, beta_end=1.2e-2, num_steps=1000)
"""Published: scaled linear, 0.00085 to 0.012, T 1000."""
PAPER_AUTOENCODER = AutoencoderStage(
    network=AutoencoderSettings(
        kind="vqgan", spatial_dims=2, latent_channels=4, compression=8, channels=(128, 256, 512, 512),
        num_res_blocks=(2, 2, 2, 2),
    ),
    loss=EVEN.model_copy(update={"kl": 1e-6}), thin_fraction=0.0, crop=(256, 256),
    adversarial=AdversarialSettings(
        judgement="hinge", norm="batch", adaptive=True, weight=0.5, channels=64, warmup_steps=50_000
    ),
    training=TrainingSettings(
        steps=400_000, batch_size=12, learning_rate=4.5e-6 * 12, betas=(0.5, 0.9), ema_decay=0.0, log_every=100,
        checkpoint_every=2000,
    ),
)  # fmt: skip
"""f8, 4 channels, KL 1e-6, hinge with an adaptive weight of 0.5 from step 50 000 on, 4.5e-6 per example."""
PAPER_STAGE = DiffusionStage(
    denoiser=DenoiserSettings(
        channels=(320, 640, 1280, 1280),  # 320 x (1, 2, 4, 4)
        num_res_blocks=2,  # 2
        attention_levels=(True, True, True, False),  # at f, 2f, 4f
        num_head_channels=40, norm_num_groups=32,
    ),
    process=PROCESS, prediction="epsilon",
    training=TrainingSettings(
        steps=500_000, batch_size=64, learning_rate=1e-4, ema_decay=0.9999, log_every=100, checkpoint_every=2000
    ),
)  # fmt: skip
"""The U-Net of Stable Diffusion 1.5, without its cross-attention to text. Steps and batch are ours for a data set of
slices; its own are 10 000 times the work."""

TINY_AUTOENCODER, DEMO_AUTOENCODER = small_autoencoder(2, 64, 6), small_autoencoder(2, 64, 1500)
SMALL_STAGE = PAPER_STAGE.model_copy(update={"prediction": QUICKLY})
TINY_TRAINING = short_training(5, 4, 3e-3)
TINY_OBJECTIVE = ObjectiveSettings(latents=learned_latents(TINY_TRAINING))
TINY_STAGE = SMALL_STAGE.model_copy(
    update={"denoiser": TINY_LATENT_UNET, "training": TINY_TRAINING, "objective": TINY_OBJECTIVE}
)
DEMO_STAGE = SMALL_STAGE.model_copy(update={"denoiser": LATENT_UNET, "training": short_training(2000, 8, 1e-3)})

PAPER_SAMPLER = SamplerSettings(solver="ddim", steps=50, spacing="time", confidence=None)
DEMO_SAMPLER = PAPER_SAMPLER.model_copy(update={"steps": 20})
TINY_SAMPLER = PAPER_SAMPLER.model_copy(update={"steps": 8})
