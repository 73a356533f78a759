"""VQ-VAE (van den Oord et al. 2017) on slices: a quantized autoencoder, and a prior that draws its codes."""

from cardiosynth.autoencoder.codebook import CodebookSettings
from cardiosynth.autoencoder.networks import AutoencoderSettings
from cardiosynth.autoencoder.task import AutoencoderStage
from cardiosynth.baselines.latent_diffusion import EVEN, short_training
from cardiosynth.baselines.method import Method
from cardiosynth.baselines.tokens import DEMO_PRIOR, PAPER_PRIOR, TINY_PRIOR, TokenGenerator, TokenStages
from cardiosynth.training.settings import TrainingSettings

NETWORK = AutoencoderSettings(
    kind="vqvae", spatial_dims=2, compression=4,  # two halvings
    channels=(64, 128), num_res_blocks=(0, 2),  # 128, two blocks of 32
    latent_channels=64,  # 64
    codebook=CodebookSettings(codes=512, decay=0.99, commitment=0.25, restart_below=0.0),  # 512, 0.99, 0.25
)  # fmt: skip
"""The official values, in the comments."""
SQUARED = EVEN.model_copy(update={"l1": 0.0, "l2": 16.0})
"""Published: the squared error over the variance of the data, which is near 1/16 for intensities in [0, 1]."""


def _stage(network: AutoencoderSettings, crop: int, training: TrainingSettings) -> AutoencoderStage:
    return AutoencoderStage(
        network=network, loss=SQUARED, thin_fraction=0.0, crop=(crop, crop), training=training
    )  # fmt: skip


TINY = TokenStages(
    autoencoder=_stage(
        NETWORK.model_copy(update={
            "channels": (8, 16), "latent_channels": 4, "codebook": CodebookSettings(codes=32, begin_step=1)
        }),
        64, short_training(8, 4, 5e-3),
    ),
    prior=TINY_PRIOR,
)  # fmt: skip
DEMO = TokenStages(autoencoder=_stage(NETWORK, 64, short_training(1500, 8, 1e-3)), prior=DEMO_PRIOR)
PAPER = TokenStages(
    autoencoder=_stage(
        NETWORK, 128,  # 128 (ImageNet)
        TrainingSettings(
            steps=250_000, batch_size=128, learning_rate=2e-4,  # 250 000, 128, 2e-4
            weight_decay=0.0, ema_decay=0.0, log_every=100, checkpoint_every=2000,
        ),
    ),
    prior=PAPER_PRIOR,  # VQGAN's, so that these two peers differ in their codes; that of a PixelCNN is not stated
)  # fmt: skip

METHOD = Method(
    name="vqvae",
    title="VQVAE",
    citation="van den Oord et al., NeurIPS 2017; google-deepmind/sonnet (Apache-2.0)",
    spatial_dims=2,
    conditional=True,
    footnote="a transformer as prior in place of PixelCNN, told of the mask, which the original is not; codes begin as "
    "k-means; the error's weight is fixed, not the data's variance",
    sizes={
        "tiny": TokenGenerator.sized(TINY),
        "demo": TokenGenerator.sized(DEMO),
        "paper": TokenGenerator.sized(PAPER),
    },
)
