"""MAISI (Guo et al. 2024): latent diffusion of volumes, and a ControlNet that is told of the mask alone.

FCaS without its template, so that the difference between the two is what the template brings.
"""

from cardiosynth.autoencoder.discriminators import AdversarialSettings
from cardiosynth.autoencoder.released import NETWORK
from cardiosynth.autoencoder.task import AutoencoderStage
from cardiosynth.baselines.latent_diffusion import (
    EVEN,
    LATENT_UNET,
    QUICKLY,
    SHORT,
    TINY_LATENT_UNET,
    WHOLE_MASK,
    LatentDiffusion,
    learned_latents,
    short_training,
    small_autoencoder,
)
from cardiosynth.baselines.method import Method
from cardiosynth.diffusion.layouts import DDPM_CT
from cardiosynth.diffusion.objective import ObjectiveSettings
from cardiosynth.diffusion.settings import ControlStage, DiffusionStage
from cardiosynth.diffusion.unet import DenoiserSettings
from cardiosynth.sampling.generator import LatentDiffusionStages
from cardiosynth.sampling.sampler import SamplerSettings
from cardiosynth.training.settings import TrainingSettings

CONDITION = WHOLE_MASK.model_copy(update={"encoding": "bits", "inject": "control"})
PAPER_CONDITION = CONDITION.model_copy(update={"stem": "maisi", "stem_channels": (8, 32, 64)})
L1 = ObjectiveSettings(error="absolute")
PAPER_AUTOENCODER = AutoencoderStage(
    network=NETWORK,  # (64, 128, 256), 4 channels, 1/4
    # 1e-7 of the sum over the latents of a crop of 64 x 64 x 64 voxels is 1.6e-3 of their mean.
    loss=EVEN.model_copy(update={"kl": 1.6e-3}), thin_fraction=0.0,
    adversarial=AdversarialSettings(weight=0.1, warmup_steps=0),  # least squares, 0.1
    crop=(64, 64, 64),  # 64 x 64 x 64, then 128 x 128 x 128
    training=TrainingSettings(
        steps=100_000, batch_size=1, learning_rate=1e-4, ema_decay=0.0, log_every=100, checkpoint_every=2000
    ),
)  # fmt: skip
"""The official values, in the comments. Steps are ours: its own are 280 epochs of 58 000 volumes."""
PAPER_STAGE = DiffusionStage(
    denoiser=DDPM_CT.denoiser.model_copy(update={"residual_leak": False}), process=DDPM_CT.process,
    prediction="epsilon", objective=L1,
    training=TrainingSettings(
        steps=100_000, batch_size=1, learning_rate=1e-5, ema_decay=0.0, log_every=100, checkpoint_every=2000
    ),
)  # fmt: skip
"""Told spacing and body region; 1000 steps of DDPM; L1, 1e-5. Steps are ours: its own are 1000 epochs."""
PAPER_SAMPLER = SamplerSettings(solver="ddpm_ancestral", steps=1000, spacing="time", clamp=None, confidence=None)


def _l1(training: TrainingSettings) -> ObjectiveSettings:
    return L1.model_copy(update={"latents": learned_latents(training)})


def _small(
    denoiser: DenoiserSettings, autoencoder: AutoencoderStage, control: ControlStage, steps: int
) -> LatentDiffusionStages:
    rate = 3e-3 if steps < SHORT else 1e-3
    training = short_training(steps, 2, rate)
    values = {"denoiser": denoiser, "training": training, "prediction": QUICKLY, "objective": _l1(training)}
    return LatentDiffusionStages(
        autoencoder=autoencoder, diffusion=PAPER_STAGE.model_copy(update=values), control=control
    )


def _control(changes: dict[str, object], training: TrainingSettings) -> ControlStage:
    condition = CONDITION.model_copy(update=changes)
    return ControlStage(condition=condition, freeze_unet=True, objective=_l1(training), training=training)


METHOD = Method(
    name="maisi",
    title="MAISI",
    citation="Guo et al., WACV 2025; NVIDIA-Medtech/NV-Generate-CTMR (Apache-2.0, weights non-commercial)",
    spatial_dims=3,
    conditional=True,
    footnote="trained from nothing on the same cases in place of its released weights; no perceptual loss, no added "
    "weight of tumors; no addition in place that lets the ControlNet's last residual into the middle block; "
    "tiny and demo predict v, not noise",
    sizes={
        "tiny": LatentDiffusion(
            _small(
                TINY_LATENT_UNET, small_autoencoder(3, 32, 6),
                _control({"features": 16, "stem_channels": (32,)}, short_training(9, 2, 3e-3)), 5,
            ),
            PAPER_SAMPLER.model_copy(update={"steps": 8, "clamp": 5.0}),
        ),
        "demo": LatentDiffusion(
            _small(LATENT_UNET, small_autoencoder(3, 48, 1500), _control({}, short_training(700, 1, 1e-3)), 300),
            PAPER_SAMPLER.model_copy(update={"steps": 50, "clamp": 5.0}),
        ),
        "paper": LatentDiffusion(
            LatentDiffusionStages(
                autoencoder=PAPER_AUTOENCODER, diffusion=PAPER_STAGE,
                control=ControlStage(
                    condition=PAPER_CONDITION, freeze_unet=True, objective=L1,
                    training=PAPER_STAGE.training,  # AdamW 1e-5, batch 1
                ),
            ),
            PAPER_SAMPLER,
        ),
    },
)  # fmt: skip
