"""DiffInfinite (Aversa et al. 2023) on slices: one structure's mask at a time, and sampling that stitches them.

Its way to images of any size, patch by patch, is left out: all slices of a comparison have one size.
"""

from cardiosynth.autoencoder.task import AutoencoderStage
from cardiosynth.baselines import stable_diffusion as ground
from cardiosynth.baselines.latent_diffusion import (
    CONCATENATED,
    LATENT_UNET,
    QUICKLY,
    TINY_LATENT_UNET,
    LatentDiffusion,
    learned_latents,
    short_training,
)
from cardiosynth.baselines.method import Method
from cardiosynth.diffusion.objective import ObjectiveSettings
from cardiosynth.diffusion.process import ProcessSettings
from cardiosynth.diffusion.settings import DiffusionStage
from cardiosynth.diffusion.unet import DenoiserSettings
from cardiosynth.sampling.generator import LatentDiffusionStages
from cardiosynth.training.settings import TrainingSettings

PAPER_STAGE = DiffusionStage(
    denoiser=DenoiserSettings(
        channels=(256, 512, 1024),  # 256 x (1, 2, 4)
        num_res_blocks=2, attention_levels=(True, True, True), num_head_channels=32, norm_num_groups=32,
    ),
    condition=CONCATENATED.model_copy(update={"classes": "one"}),  # one random structure's mask
    drop_mask=0.5,  # p 0.5
    process=ProcessSettings(kind="cosine_betas", num_steps=1000),  # cosine, T 1000
    prediction="epsilon",
    training=TrainingSettings(
        steps=250_000,  # 250 000
        batch_size=32,  # 32
        learning_rate=1e-4,  # 1e-4
        weight_decay=0.0, ema_decay=0.995, log_every=100, checkpoint_every=2000,
    ),
)  # fmt: skip
"""The official values, in the comments, on latents of Stable Diffusion's autoencoder."""
GUIDANCE = {"guidance_mask": 2.0}
"""Published: 3, the factor on D(structure) - D(nothing), which is 1 + w here."""


def _small(
    autoencoder: AutoencoderStage, denoiser: DenoiserSettings, training: TrainingSettings
) -> LatentDiffusionStages:
    objective = ObjectiveSettings(latents=learned_latents(training))
    changes = {"denoiser": denoiser, "training": training, "prediction": QUICKLY, "objective": objective}
    stage = PAPER_STAGE.model_copy(update=changes)
    return LatentDiffusionStages(autoencoder=autoencoder, diffusion=stage, control=None)


METHOD = Method(
    name="diffinfinite",
    title="DiffInfinite",
    citation="Aversa et al., NeurIPS Datasets and Benchmarks 2023; marcoaversa/diffinfinite (MIT)",
    spatial_dims=2,
    conditional=True,
    footnote="a structure's mask is concatenated in a channel of its own in place of class embedding and "
    "cross-attention; autoencoder learned of the same slices; no weight standardization; no patches; tiny and demo "
    "predict v, not noise",
    sizes={
        "tiny": LatentDiffusion(
            _small(ground.TINY_AUTOENCODER, TINY_LATENT_UNET, short_training(12, 8, 3e-3)),
            ground.TINY_SAMPLER.model_copy(update=GUIDANCE),
        ),
        "demo": LatentDiffusion(
            _small(ground.DEMO_AUTOENCODER, LATENT_UNET, short_training(3500, 8, 1e-3)),
            ground.DEMO_SAMPLER.model_copy(update=GUIDANCE),
        ),
        "paper": LatentDiffusion(
            LatentDiffusionStages(autoencoder=ground.PAPER_AUTOENCODER, diffusion=PAPER_STAGE, control=None),
            ground.PAPER_SAMPLER.model_copy(update=GUIDANCE),
        ),
    },
)
