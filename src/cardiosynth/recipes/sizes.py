"""FCaS at the size it was published at, and at one that a data-centre GPU trains in 20 minutes.

Every published value, and what stands here for it, is listed in ``recipes/published.py``. Neither recipe has been run
on a GPU yet; ``cardiosynth doctor`` says what they ask for.
"""

from cardiosynth.autoencoder.discriminators import AdversarialSettings
from cardiosynth.autoencoder.losses import ReconstructionSettings
from cardiosynth.autoencoder.networks import AutoencoderSettings
from cardiosynth.autoencoder.released import NETWORK
from cardiosynth.autoencoder.task import AutoencoderStage
from cardiosynth.core.intensity import IntensityScale, Window
from cardiosynth.diffusion.control import ConditionSettings
from cardiosynth.diffusion.layouts import DDPM_CT
from cardiosynth.diffusion.objective import ObjectiveSettings, TimeSettings
from cardiosynth.diffusion.process import ProcessSettings
from cardiosynth.diffusion.settings import ControlStage, DiffusionStage
from cardiosynth.diffusion.unet import DenoiserSettings
from cardiosynth.recipes.fcas import FcasRecipe, GridSettings
from cardiosynth.sampling.confidence import ConfidenceSettings
from cardiosynth.sampling.sampler import SamplerSettings
from cardiosynth.segmentation.networks import SegmenterSettings
from cardiosynth.segmentation.task import SegmentationStage
from cardiosynth.training.settings import TrainingSettings

TRAINING_CASES = 200
"""Of ImageCAS's 1000 (section 4.1.1)."""

EPOCHS = 200
BATCH = 4
STEPS = EPOCHS * TRAINING_CASES // BATCH
"""10 000: 200 epochs of 200 cases in batches of 4 (section 4.1.2). An epoch has every case once as the target."""

_DDPM_CT = DDPM_CT.denoiser.model_copy(update={"residual_leak": False})
"""MAISI's sizes; the leak is for released weights only."""
_GPU_TRAINING = TrainingSettings(steps=STEPS, batch_size=BATCH, learning_rate=1e-5, precision="bf16", log_every=20)

PAPER = FcasRecipe(
    name="fcas/paper",
    grid=GridSettings(shape=(512, 512, 256), spacing_mm=(0.4, 0.4, 0.5)),
    intensity=IntensityScale(window=Window(low=-1000.0, high=1000.0)),
    autoencoder=AutoencoderStage(
        network=NETWORK,
        # MAISI sums the KL term over the latents of a crop: 1e-7 of the sum of 4 x 32^3 values is 0.013 of their mean.
        loss=ReconstructionSettings(l1=1.0, l2=0.0, kl=0.013, heart=0.0, thin_weight=0.0), thin_fraction=0.0,
        adversarial=AdversarialSettings(warmup_steps=0), crop=(128, 128, 128),
        training=_GPU_TRAINING.model_copy(update={"learning_rate": 1e-4, "batch_size": 1, "steps": 40_000}),
    ),
    diffusion=DiffusionStage(denoiser=_DDPM_CT, crop=(512, 512, 128), training=_GPU_TRAINING),
    control=ControlStage(
        condition=ConditionSettings(
            kind="template", encoding="bits", inject="control", template="random", stem="maisi",
            stem_channels=(8, 32, 64),
        ),
        bidirectional=True, freeze_unet=True, crop=(512, 512, 128), training=_GPU_TRAINING,
    ),
    sampler=SamplerSettings(
        solver="ddpm_ancestral", steps=1000, spacing="time", clamp=None, confidence=ConfidenceSettings(interval=100)
    ),
    segmenter=SegmentationStage(
        network=SegmenterSettings(channels=(32, 64, 128, 256, 320), strides=(2, 2, 2, 2), num_res_units=2),
        crop=(128, 128, 128),
        training=_GPU_TRAINING.model_copy(update={"learning_rate": 1e-3, "batch_size": 2, "steps": 250_000}),
    ),
)  # fmt: skip
"""The published sizes, steps and learning rates, with MAISI's values where the paper follows MAISI."""

_QUICK = TrainingSettings(
    steps=1000, batch_size=4, learning_rate=5e-4, schedule="cosine", warmup_steps=50, betas=(0.9, 0.99),
    ema_decay=0.995, precision="bf16", log_every=20,
)  # fmt: skip
_IN_THE_MIDDLE = ObjectiveSettings(
    times=TimeSettings(distribution="logit_normal", uniform_share=0.1), target_weight=1.0, thin_weight=4.0
)

SMALL = FcasRecipe(
    name="fcas/small",
    grid=GridSettings(shape=(160, 160, 160), spacing_mm=(0.8, 0.8, 0.8)),
    autoencoder=AutoencoderStage(
        network=AutoencoderSettings(channels=(48, 128), num_res_blocks=(2, 3)),
        loss=ReconstructionSettings(thin_weight=40.0), thin_fraction=0.85, crop=(64, 64, 64),
        training=_QUICK.model_copy(update={"steps": 6000, "batch_size": 8, "learning_rate": 1e-3}),
    ),
    diffusion=DiffusionStage(
        denoiser=DenoiserSettings(channels=(64, 128, 256), num_res_blocks=2, norm_num_groups=32),
        process=ProcessSettings(kind="rectified_flow"), prediction="x0", objective=_IN_THE_MIDDLE,
        training=_QUICK.model_copy(update={"steps": 600}),
    ),
    control=ControlStage(
        condition=ConditionSettings(template="same_acquisition", intensity_center=0.4, intensity_gain=8.0),
        objective=_IN_THE_MIDDLE, training=_QUICK.model_copy(update={"steps": 3000, "batch_size": 2}),
    ),
    sampler=SamplerSettings(solver="euler", steps=20, confidence=ConfidenceSettings(interval=2)),
    segmenter=SegmentationStage(crop=(96, 96, 96), training=_QUICK.model_copy(update={"steps": 1500})),
)  # fmt: skip
"""The demo's choices with more of everything: 0.8 mm voxels, where coronary arteries are two or more wide."""
