"""WDM (Friedrich et al. 2024): diffusion on the Haar wavelets of volumes, told nothing."""

from cardiosynth.baselines.latent_diffusion import short_training, without_autoencoder
from cardiosynth.baselines.method import Method
from cardiosynth.diffusion.process import ProcessSettings
from cardiosynth.diffusion.settings import DiffusionStage
from cardiosynth.diffusion.unet import DenoiserSettings
from cardiosynth.sampling.sampler import SamplerSettings
from cardiosynth.training.settings import TrainingSettings

PAPER_STAGE = DiffusionStage(
    denoiser=DenoiserSettings(
        channels=(64, 128, 128, 256, 256),  # 64 x (1, 2, 2, 4, 4)
        num_res_blocks=2,  # 2
        attention_levels=(False,) * 5,  # none
        num_head_channels=64, norm_num_groups=32,
    ),
    process=ProcessSettings(kind="linear", beta_start=1e-4, beta_end=0.02, num_steps=1000),  # linear, T 1000
    prediction="x0",  # x_0, squared errors of all bands
    normalization="raw",  # the band of means / 3
    training=TrainingSettings(
        steps=1_200_000,  # 1.2 million
        batch_size=10,  # 10 at 128 x 128 x 128
        learning_rate=1e-5,  # 1e-5
        weight_decay=0.0, ema_decay=0.0, log_every=100, checkpoint_every=2000,
    ),
)  # fmt: skip
"""The official values, in the comments, for volumes of 128 x 128 x 128."""
PAPER_SAMPLER = SamplerSettings(solver="ddpm_ancestral", steps=1000, spacing="time", clamp="image", confidence=None)
"""x_0 is limited to what images hold, through the inverse transform."""


METHOD = Method(
    name="wdm",
    title="WDM",
    citation="Friedrich et al., MICCAI workshop DGM4MICCAI 2024; pfriedri/wdm-3d (MIT)",
    spatial_dims=3,
    conditional=False,
    footnote="MAISI's U-Net blocks, with attention in the middle, in place of its wavelet up- and down-sampling; AdamW "
    "without decay",
    sizes=without_autoencoder(
        "haar", 3, PAPER_STAGE, PAPER_SAMPLER,
        {"tiny": short_training(8, 2, 3e-3), "demo": short_training(1000, 2, 1e-3)},
    ),
)  # fmt: skip
