"""Medical Diffusion (Khader et al. 2023): diffusion on the latents of a quantized autoencoder of volumes, told nothing.

Latents are taken before they are quantized, with the range of the codes as [-1, 1]; what is drawn is quantized before
it is decoded.
"""

from cardiosynth.autoencoder.codebook import CodebookSettings
from cardiosynth.autoencoder.discriminators import AdversarialSettings
from cardiosynth.autoencoder.networks import AutoencoderSettings
from cardiosynth.autoencoder.task import AutoencoderStage
from cardiosynth.baselines.latent_diffusion import (
    EVEN,
    LATENT_UNET,
    QUICKLY,
    SHORT,
    TINY_LATENT_UNET,
    LatentDiffusion,
    short_training,
)
from cardiosynth.baselines.method import Method
from cardiosynth.diffusion.objective import ObjectiveSettings
from cardiosynth.diffusion.process import ProcessSettings
from cardiosynth.diffusion.settings import DiffusionStage
from cardiosynth.diffusion.unet import DenoiserSettings
from cardiosynth.sampling.generator import LatentDiffusionStages
from cardiosynth.sampling.sampler import SamplerSettings
from cardiosynth.training.settings import TrainingSettings

PAPER_AUTOENCODER = AutoencoderStage(
    network=AutoencoderSettings(
        kind="vqgan", latent_channels=8,  # 8
        compression=4,  # 4, or 8 for the largest volumes
        channels=(16, 32, 64),  # 16 and on
        num_res_blocks=(1, 1, 1), norm_groups=16,
        codebook=CodebookSettings(codes=16_384),  # 16 384, averaged, restarted
    ),
    loss=EVEN.model_copy(update={"l1": 4.0}), thin_fraction=0.0,  # L1 x 4
    adversarial=AdversarialSettings(judgement="hinge", weight=1.0, channels=64, warmup_steps=10_000),  # from 10 000
    crop=(64, 64, 64),
    training=TrainingSettings(
        steps=100_000, batch_size=2, learning_rate=3e-4,  # 100 000, 2, 3e-4
        ema_decay=0.0, log_every=100, checkpoint_every=2000,
    ),
)  # fmt: skip
"""The official values, in the comments."""
PAPER_STAGE = DiffusionStage(
    denoiser=DenoiserSettings(
        channels=(64, 128, 256, 512),  # 64 x (1, 2, 4, 8)
        num_res_blocks=2, attention_levels=(False, False, True, True), num_head_channels=32, norm_num_groups=32,
    ),
    process=ProcessSettings(kind="cosine_betas", num_steps=300),  # cosine, T 300
    prediction="epsilon", normalization="codebook",
    objective=ObjectiveSettings(error="absolute"),  # L1
    training=TrainingSettings(
        steps=150_000, batch_size=40, learning_rate=1e-4,  # 150 000, 40, 1e-4
        weight_decay=0.0, ema_decay=0.995,  # 0.995
        log_every=100, checkpoint_every=2000,
    ),
)  # fmt: skip
"""The official values, in the comments."""
PAPER_SAMPLER = SamplerSettings(solver="ddpm_ancestral", steps=300, spacing="time", clamp=1.0, confidence=None)
"""x_0 is limited to the range of the codes."""


def _autoencoder(codes: int, begin_step: int, crop: int, training: TrainingSettings) -> AutoencoderStage:
    sizes = {"channels": (8, 16), "num_res_blocks": (1, 1)} if training.steps < SHORT else {}
    codebook = CodebookSettings(codes=codes, begin_step=begin_step)
    return AutoencoderStage(
        network=AutoencoderSettings.model_validate({"latent_channels": 8, "codebook": codebook, **sizes}),
        loss=EVEN.model_copy(update={"l1": 4.0}), thin_fraction=0.0, crop=(crop,) * 3, training=training,
    )  # fmt: skip


def _small(
    autoencoder: AutoencoderStage, denoiser: DenoiserSettings, training: TrainingSettings
) -> LatentDiffusionStages:
    changes = {"denoiser": denoiser, "training": training, "prediction": QUICKLY}
    stage = PAPER_STAGE.model_copy(update=changes)
    return LatentDiffusionStages(autoencoder=autoencoder, diffusion=stage, control=None)


METHOD = Method(
    name="medical-diffusion",
    title="Medical Diffusion",
    citation="Khader et al., Scientific Reports 2023; FirasGit/medicaldiffusion (no licence)",
    spatial_dims=3,
    conditional=False,
    footnote="one discriminator of volumes in place of one of slices and one of volumes, no perceptual loss and no "
    "feature matching; MAISI's U-Net blocks in place of attention factorized by axes; "
    "tiny and demo predict v, not noise",
    sizes={
        "tiny": LatentDiffusion(
            _small(
                _autoencoder(32, 2, 32, short_training(8, 2, 2e-3)), TINY_LATENT_UNET, short_training(8, 2, 3e-3)
            ),
            PAPER_SAMPLER.model_copy(update={"steps": 8}),
        ),
        "demo": LatentDiffusion(
            _small(
                _autoencoder(1024, 100, 48, short_training(1500, 4, 2e-3)), LATENT_UNET, short_training(1000, 2, 1e-3)
            ),
            PAPER_SAMPLER.model_copy(update={"steps": 50}),
        ),
        "paper": LatentDiffusion(
            LatentDiffusionStages(autoencoder=PAPER_AUTOENCODER, diffusion=PAPER_STAGE, control=None), PAPER_SAMPLER
        ),
    },
)  # fmt: skip
