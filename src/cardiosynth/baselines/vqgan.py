"""VQGAN (Esser et al. 2021) on slices: a quantized autoencoder against patches, and a GPT that draws its codes."""

from cardiosynth.autoencoder.codebook import CodebookSettings
from cardiosynth.autoencoder.discriminators import AdversarialSettings
from cardiosynth.autoencoder.networks import AutoencoderSettings
from cardiosynth.autoencoder.task import AutoencoderStage
from cardiosynth.baselines.latent_diffusion import EVEN, short_training
from cardiosynth.baselines.method import Method
from cardiosynth.baselines.tokens import (
    DEMO_PRIOR,
    PAPER_PRIOR,
    TINY_PRIOR,
    DrawSettings,
    TokenGenerator,
    TokenStages,
)
from cardiosynth.training.settings import TrainingSettings

ADVERSARY = AdversarialSettings(
    judgement="hinge", adaptive=True, weight=0.8,  # hinge, 0.8 of the adaptive weight
    warmup_steps=10_000,  # from 10 000 on
    channels=64, layers=3, norm="batch",  # 64, 3, batch
)  # fmt: skip
"""The official values, in the comments."""

TINY = TokenStages(
    autoencoder=AutoencoderStage(
        network=AutoencoderSettings(
            kind="vqgan", spatial_dims=2, compression=4, channels=(8, 8, 16), num_res_blocks=(1, 1, 1), norm_groups=4,
            codebook=CodebookSettings(codes=32, begin_step=1),
        ),
        loss=EVEN, thin_fraction=0.0, crop=(64, 64), training=short_training(8, 4, 5e-3),
        adversarial=ADVERSARY.model_copy(update={"channels": 4, "layers": 1, "warmup_steps": 1, "weight": 0.1}),
    ),
    prior=TINY_PRIOR,
    draw=DrawSettings(temperature=0.5),
)  # fmt: skip
DEMO = TokenStages(
    autoencoder=AutoencoderStage(
        network=AutoencoderSettings(
            kind="vqgan", spatial_dims=2, compression=4, channels=(16, 32, 64), num_res_blocks=(1, 1, 1), norm_groups=8,
            latent_channels=16, codebook=CodebookSettings(codes=512),
        ),
        loss=EVEN, thin_fraction=0.0, crop=(64, 64), training=short_training(1500, 8, 1e-3),
        adversarial=ADVERSARY.model_copy(update={"channels": 16, "layers": 2, "warmup_steps": 750}),
    ),
    prior=DEMO_PRIOR,
    draw=DrawSettings(top_k=100),
)  # fmt: skip
PAPER = TokenStages(
    autoencoder=AutoencoderStage(
        network=AutoencoderSettings(
            kind="vqgan", spatial_dims=2, compression=16,  # 16
            channels=(128, 128, 256, 256, 512),  # 128 x (1, 1, 2, 2, 4)
            num_res_blocks=(2, 2, 2, 2, 2), norm_groups=32, latent_channels=256,  # 2, 32, 256
            codebook=CodebookSettings(codes=1024, learning="gradient", commitment=0.25, restart_below=0.0),  # 1024
        ),
        loss=EVEN, thin_fraction=0.0, crop=(256, 256), adversarial=ADVERSARY,  # 256
        training=TrainingSettings(
            steps=100_000, batch_size=8, learning_rate=3.6e-5, betas=(0.5, 0.9),  # 4.5e-6 per example, (0.5, 0.9)
            weight_decay=0.0, ema_decay=0.0, log_every=100, checkpoint_every=2000,
        ),
    ),
    prior=PAPER_PRIOR,
    draw=DrawSettings(top_k=100),  # 100
)  # fmt: skip
"""The official values, in the comments; numbers of steps and of examples are ours."""

METHOD = Method(
    name="vqgan",
    title="VQGAN",
    citation="Esser, Rombach and Ommer, CVPR 2021; CompVis/taming-transformers (MIT)",
    spatial_dims=2,
    conditional=True,
    footnote="no perceptual loss and no attention in the autoencoder; the label map enters the prior as every label's "
    "share per code, not as codes of a second autoencoder; codes begin as k-means; all weights of the prior decay",
    sizes={
        "tiny": TokenGenerator.sized(TINY),
        "demo": TokenGenerator.sized(DEMO),
        "paper": TokenGenerator.sized(PAPER),
    },
)
