"""T2I-Adapter (Mou et al. 2024) on slices: a frozen latent diffusion, and maps of the mask added in its encoder."""

from cardiosynth.baselines import stable_diffusion as ground
from cardiosynth.baselines.latent_diffusion import WHOLE_MASK, LatentDiffusion, learned_latents, short_training
from cardiosynth.baselines.method import Method
from cardiosynth.diffusion.objective import ObjectiveSettings, TimeSettings
from cardiosynth.diffusion.settings import ControlStage
from cardiosynth.sampling.generator import LatentDiffusionStages
from cardiosynth.training.settings import TrainingSettings

PAPER_TRAINING = TrainingSettings(
    steps=50_000, batch_size=4, learning_rate=1e-5, ema_decay=0.0, log_every=100, checkpoint_every=2000
)
"""Published: 1e-5, batch 8, which are four pairs here, 10 epochs of 164 000 images."""


def _control(features: int, widths: tuple[int, ...], training: TrainingSettings) -> ControlStage:
    """Return the second stage: space-to-depth and two levels of channels, then the adapter; cubic times (Eq. 5)."""
    told = {"inject": "adapter", "features": features, "stem_channels": widths}
    times = TimeSettings(distribution="cubic", uniform_share=0)
    return ControlStage(
        condition=WHOLE_MASK.model_copy(update=told),
        freeze_unet=True,
        objective=ObjectiveSettings(times=times, latents=learned_latents(training)),
        training=training,
    )


METHOD = Method(
    name="t2i-adapter",
    title="T2I-Adapter",
    citation="Mou et al., AAAI 2024; TencentARC/T2I-Adapter (Apache-2.0)",
    spatial_dims=2,
    conditional=True,
    footnote="on a latent diffusion that is learned of the same slices in place of Stable Diffusion's weights, without "
    "text; two convolutions between space-to-depth and the first level; maps pass through weights that start at zero; "
    "tiny and demo predict v, not noise",
    sizes={
        "tiny": LatentDiffusion(
            LatentDiffusionStages(
                autoencoder=ground.TINY_AUTOENCODER, diffusion=ground.TINY_STAGE,
                control=_control(32, (32,), short_training(9, 4, 3e-3)),
            ),
            ground.TINY_SAMPLER,
        ),
        "demo": LatentDiffusion(
            LatentDiffusionStages(
                autoencoder=ground.DEMO_AUTOENCODER, diffusion=ground.DEMO_STAGE,
                control=_control(32, (64,), short_training(1500, 4, 1e-3)),
            ),
            ground.DEMO_SAMPLER,
        ),
        "paper": LatentDiffusion(
            LatentDiffusionStages(
                autoencoder=ground.PAPER_AUTOENCODER, diffusion=ground.PAPER_STAGE,
                control=_control(320, (320,), PAPER_TRAINING),
            ),
            ground.PAPER_SAMPLER,
        ),
    },
)  # fmt: skip
