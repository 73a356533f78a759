"""Med-DDPM (Dorjsembe et al. 2024): diffusion on the voxels of volumes, the one-hot mask beside them in the input."""

from cardiosynth.baselines.latent_diffusion import CONCATENATED, short_training, without_autoencoder
from cardiosynth.baselines.method import Method
from cardiosynth.diffusion.objective import ObjectiveSettings
from cardiosynth.diffusion.process import ProcessSettings
from cardiosynth.diffusion.settings import DiffusionStage
from cardiosynth.diffusion.unet import DenoiserSettings
from cardiosynth.sampling.sampler import SamplerSettings
from cardiosynth.training.settings import TrainingSettings

PAPER_STAGE = DiffusionStage(
    denoiser=DenoiserSettings(
        channels=(64, 64, 128, 192, 256),  # 64 x (1, 1, 2, 3, 4)
        num_res_blocks=1,  # 1
        attention_levels=(False, False, False, True, False),  # at 16 voxels of 128
        num_head_channels=64, norm_num_groups=32,
    ),
    condition=CONCATENATED,
    process=ProcessSettings(kind="cosine_betas", num_steps=250),  # cosine, T 250
    prediction="epsilon", normalization="raw",
    objective=ObjectiveSettings(error="absolute"),  # L1
    training=TrainingSettings(
        steps=100_000,  # 50 000 to 100 000
        batch_size=2,  # 1, gradients of two
        learning_rate=1e-5,  # 1e-5
        weight_decay=0.0, ema_decay=0.995,  # 0.995
        log_every=100, checkpoint_every=2000,
    ),
)  # fmt: skip
"""The official values, in the comments, for volumes of 128 x 128 x 128."""
PAPER_SAMPLER = SamplerSettings(solver="ddpm_ancestral", steps=250, spacing="time", clamp="image", confidence=None)


METHOD = Method(
    name="med-ddpm",
    title="Med-DDPM",
    citation="Dorjsembe et al., IEEE Journal of Biomedical and Health Informatics 2024; mobaidoctor/med-ddpm (GPL-3)",
    spatial_dims=3,
    conditional=True,
    footnote="MAISI's U-Net blocks in place of guided-diffusion's, with attention in the middle; AdamW without decay; "
    "masks as 0 and 1, not -1 and 1, read through weights that start at zero; tiny and demo predict v, not noise",
    sizes=without_autoencoder(
        "identity", 3, PAPER_STAGE, PAPER_SAMPLER,
        {"tiny": short_training(8, 2, 3e-3), "demo": short_training(1000, 2, 1e-3)},
    ),
)  # fmt: skip
