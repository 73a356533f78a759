"""ControlNet (Zhang et al. 2023) on slices: a frozen latent diffusion, and a copy of its encoder told of the mask."""

from cardiosynth.baselines import stable_diffusion as ground
from cardiosynth.baselines.latent_diffusion import WHOLE_MASK, LatentDiffusion, learned_latents, short_training
from cardiosynth.baselines.method import Method
from cardiosynth.diffusion.control import ConditionSettings
from cardiosynth.diffusion.objective import ObjectiveSettings
from cardiosynth.diffusion.settings import ControlStage
from cardiosynth.sampling.generator import LatentDiffusionStages
from cardiosynth.training.settings import TrainingSettings

CONDITION = WHOLE_MASK.model_copy(update={"inject": "control"})
PAPER_CONDITION = CONDITION.model_copy(update={"stem": "maisi", "stem_channels": (16, 32, 96, 256)})
"""Published: convolutions of 16, 16, 32, 32, 96, 96 and 256 channels from image to latent grid."""
PAPER_TRAINING = TrainingSettings(
    steps=50_000, batch_size=2, learning_rate=1e-5, ema_decay=0.0, log_every=100, checkpoint_every=2000
)
"""Published: AdamW 1e-5, batch 4, which are two pairs here; steps by the data set, 50 000 for some 80 000 images."""


def _control(condition: ConditionSettings, training: TrainingSettings) -> ControlStage:
    objective = ObjectiveSettings(latents=learned_latents(training))
    return ControlStage(condition=condition, freeze_unet=True, objective=objective, training=training)


METHOD = Method(
    name="controlnet",
    title="ControlNet",
    citation="Zhang et al., ICCV 2023; lllyasviel/ControlNet (Apache-2.0)",
    spatial_dims=2,
    conditional=True,
    footnote="on a latent diffusion that is learned of the same slices in place of Stable Diffusion's weights, without "
    "text; tiny and demo predict v, not noise; one channel per structure in place of a color picture",
    sizes={
        "tiny": LatentDiffusion(
            LatentDiffusionStages(
                autoencoder=ground.TINY_AUTOENCODER, diffusion=ground.TINY_STAGE,
                control=_control(
                    CONDITION.model_copy(update={"features": 16, "stem_channels": (32,)}), short_training(9, 4, 3e-3)
                ),
            ),
            ground.TINY_SAMPLER,
        ),
        "demo": LatentDiffusion(
            LatentDiffusionStages(
                autoencoder=ground.DEMO_AUTOENCODER, diffusion=ground.DEMO_STAGE,
                control=_control(CONDITION, short_training(1500, 4, 1e-3)),
            ),
            ground.DEMO_SAMPLER,
        ),
        "paper": LatentDiffusion(
            LatentDiffusionStages(
                autoencoder=ground.PAPER_AUTOENCODER, diffusion=ground.PAPER_STAGE,
                control=_control(PAPER_CONDITION, PAPER_TRAINING),
            ),
            ground.PAPER_SAMPLER,
        ),
    },
)  # fmt: skip
