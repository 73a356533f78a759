"""DDPM (Ho et al. 2020) on slices: diffusion on pixels, told of the mask beside them.

FQCDM compares its images with real ones of the same masks, which a DDPM that is told nothing could not make, and does
not say how. Here the mask is concatenated; the other reading, to begin with a noised image, is a sampler of
``start="image"``.
"""

from cardiosynth.baselines.latent_diffusion import CONCATENATED, short_training, without_autoencoder
from cardiosynth.baselines.method import Method
from cardiosynth.diffusion.process import ProcessSettings
from cardiosynth.diffusion.settings import DiffusionStage
from cardiosynth.diffusion.unet import DenoiserSettings
from cardiosynth.sampling.sampler import SamplerSettings
from cardiosynth.training.settings import TrainingSettings

PAPER_STAGE = DiffusionStage(
    denoiser=DenoiserSettings(
        channels=(128, 128, 256, 256, 512, 512),  # 128 x (1, 1, 2, 2, 4, 4)
        num_res_blocks=2,  # 2
        attention_levels=(False, False, False, False, True, False),  # at 16 pixels of 256
        num_head_channels=512,  # one head
        norm_num_groups=32,
    ),
    condition=CONCATENATED,
    process=ProcessSettings(kind="linear", beta_start=1e-4, beta_end=0.02, num_steps=1000),  # linear, T 1000
    prediction="epsilon", normalization="raw",
    training=TrainingSettings(
        steps=500_000,  # 0.5 million (CelebA-HQ)
        batch_size=64,  # 64
        learning_rate=2e-5,  # 2e-5 at 256 x 256, 2e-4 below
        weight_decay=0.0, ema_decay=0.9999,  # 0.9999
        log_every=100, checkpoint_every=2000,
    ),
)  # fmt: skip
"""The official values, in the comments, for images of 256 x 256."""
PAPER_SAMPLER = SamplerSettings(solver="ddpm_ancestral", steps=1000, spacing="time", clamp="image", confidence=None)


METHOD = Method(
    name="ddpm",
    title="DDPM",
    citation="Ho et al., NeurIPS 2020; hojonathanho/diffusion (no licence)",
    spatial_dims=2,
    conditional=True,
    footnote="told of the mask by concatenation, which the original is not; MAISI's U-Net blocks; AdamW without decay; "
    "tiny and demo predict v, not noise",
    sizes=without_autoencoder(
        "identity", 2, PAPER_STAGE, PAPER_SAMPLER,
        {"tiny": short_training(8, 4, 3e-3), "demo": short_training(2000, 8, 1e-3)},
    ),
)  # fmt: skip
