"""FQCDM as values: slices of cine MR. The published value of a setting stands in its docstring, where it is defined.

What was measured from data (latent scale, windows of MR) is never configuration: it travels in the checkpoints.
"""

from cardiosynth.autoencoder.codebook import CodebookSettings
from cardiosynth.autoencoder.discriminators import AdversarialSettings
from cardiosynth.autoencoder.losses import ReconstructionSettings
from cardiosynth.autoencoder.networks import AutoencoderSettings
from cardiosynth.autoencoder.task import AutoencoderStage
from cardiosynth.autoencoder.verdict import VerdictThresholds
from cardiosynth.core.intensity import NORMALIZED_MR
from cardiosynth.data.prepare.settings import SliceSettings
from cardiosynth.diffusion.control import ConditionSettings
from cardiosynth.diffusion.objective import ObjectiveSettings
from cardiosynth.diffusion.process import ProcessSettings
from cardiosynth.diffusion.settings import DiffusionStage
from cardiosynth.diffusion.unet import DenoiserSettings
from cardiosynth.recipes.recipe import Recipe
from cardiosynth.sampling.confidence import ConfidenceSettings
from cardiosynth.sampling.sampler import SamplerSettings
from cardiosynth.segmentation.networks import SegmenterSettings
from cardiosynth.segmentation.task import SegmentationStage
from cardiosynth.training.plateau import PlateauSettings
from cardiosynth.training.settings import TrainingSettings
from cardiosynth.training.watch import WatchSettings


class FqcdmRecipe(Recipe):
    """FQCDM: what it has beside other systems.

    Attributes:
        slices: how volumes are cut. The paper does not state the size of its slices.
        joint: the loop's settings where autoencoder and denoiser are trained together (``train joint``, published) and
            not one after the other; see ``diffusion/joint.py``.
    """

    slices: SliceSettings
    joint: TrainingSettings

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels per axis of every slice."""
        return (self.slices.size, self.slices.size)


ACDC_SLICES = SliceSettings(plane="short-axis", size=128, scale="width")
"""Some of ACDC's volumes are 512 wide, so that slices are scaled by width before they are cut."""
EVEN = ReconstructionSettings(l1=1.0, l2=0.0, heart=0.0, thin_weight=0.0)
"""Every pixel counts alike. Published is a perceptual loss alone; features are a segmenter's, which may be lacking."""
CODES = CodebookSettings(codes=1024)
DUAL = AdversarialSettings(
    kind="dual", judgement="hinge", norm="batch", adaptive=True, weight=0.1, channels=16, layers=3, edge_blocks=2
)
"""The dual-branch discriminator of Eq. 11 to 17. Published (VQGAN) with a weight of 0.8; less spares the
reconstruction, whose error is what Tables 1 and 2 measure."""

_TRAINING = TrainingSettings(
    steps=1000, batch_size=8, learning_rate=1e-3, schedule="cosine", warmup_steps=50, weight_decay=1e-4,
    betas=(0.9, 0.99), ema_decay=0.995, log_every=20,
)  # fmt: skip

LABEL = ConditionSettings(kind="mask", encoding="one_hot", inject="spade", stem="area", features=64)
"""Eq. 9: the label, resized to the latents, enters the decoder; by area, since walls are thinner than a latent."""
NOISE_AT_THE_END = ProcessSettings(kind="cosine", num_steps=100)
"""A sampler starts from noise, so training must end in it. The noise of an end without any image says nothing of an
image, so v is predicted there and not, as published, the noise."""
_MORE_OF_THE_HEART = ObjectiveSettings(target_weight=1.0)
"""With it goes ``drop_mask``, so that ``--set sampler.guidance_mask=1`` can be tried where labels are not followed."""
_SAMPLER = SamplerSettings(
    solver="ddpm_ancestral", steps=100, spacing="time", confidence=ConfidenceSettings(interval=10)
)
"""Algorithm 1: all T steps back, with noise at each."""
_FASTER = SamplerSettings(solver="dpm_solver_pp_2m", steps=20, confidence=ConfidenceSettings(interval=2))
"""Slices by the thousand: a fifth of the calls."""

TINY = FqcdmRecipe(
    name="fqcdm/tiny",
    slices=SliceSettings(plane="short-axis", size=32, scale="width"),
    intensity=NORMALIZED_MR,
    autoencoder=AutoencoderStage(
        network=AutoencoderSettings(
            spatial_dims=2, channels=(8, 16), num_res_blocks=(1, 1),
            codebook=CODES.model_copy(update={"codes": 32, "begin_step": 2}),
        ),
        adversarial=DUAL.model_copy(update={"channels": 4, "layers": 2, "warmup_steps": 4}),
        loss=EVEN, thin_fraction=0.0, crop=(32, 32),
        training=_TRAINING.model_copy(update={"steps": 8, "batch_size": 2, "warmup_steps": 2, "log_every": 1}),
    ),
    diffusion=DiffusionStage(
        denoiser=DenoiserSettings(
            channels=(16, 32), attention_levels=(False, False), num_head_channels=16, norm_num_groups=8
        ),
        condition=LABEL.model_copy(update={"features": 8}), process=NOISE_AT_THE_END, prediction="v",
        training=_TRAINING.model_copy(update={"steps": 4, "batch_size": 2, "warmup_steps": 2, "log_every": 1}),
    ),
    joint=_TRAINING.model_copy(update={"steps": 4, "batch_size": 2, "warmup_steps": 2, "log_every": 1}),
    sampler=_SAMPLER.model_copy(update={"steps": 4, "confidence": ConfidenceSettings(interval=1)}),
    segmenter=SegmentationStage(
        network=SegmenterSettings(spatial_dims=2, channels=(8, 16), strides=(2,)), crop=(32, 32),
        training=_TRAINING.model_copy(update={"steps": 8, "batch_size": 2, "warmup_steps": 2, "log_every": 1}),
    ),
)  # fmt: skip
"""Every stage in seconds, for tests: it shows that the chain works, not what it can do."""

CPU = FqcdmRecipe(
    name="fqcdm/cpu",
    slices=ACDC_SLICES,
    intensity=NORMALIZED_MR,
    autoencoder=AutoencoderStage(
        network=AutoencoderSettings(spatial_dims=2, channels=(48, 96), num_res_blocks=(1, 2), codebook=CODES),
        adversarial=DUAL.model_copy(update={"warmup_steps": 1000}),
        loss=EVEN, thin_fraction=0.0, crop=(128, 128),
        training=_TRAINING.model_copy(update={"steps": 2000}),
    ),
    gate=VerdictThresholds(psnr_db=24.0),
    diffusion=DiffusionStage(
        denoiser=DenoiserSettings(channels=(32, 64, 128), num_res_blocks=2),
        condition=LABEL.model_copy(update={"features": 32}), drop_mask=0.1, process=NOISE_AT_THE_END, prediction="v",
        objective=_MORE_OF_THE_HEART, watch=WatchSettings(sheet_every=1000, sheet_cases=4),
        training=_TRAINING.model_copy(update={"steps": 5000, "ema_decay": 0.999}),
    ),
    joint=_TRAINING.model_copy(update={"steps": 3000, "ema_decay": 0.999}),
    sampler=_FASTER,
    segmenter=SegmentationStage(
        network=SegmenterSettings(spatial_dims=2), crop=(128, 128),
        training=_TRAINING.model_copy(update={"steps": 1500}),
    ),
)  # fmt: skip
"""Every stage in two core-hours."""

SMALL = CPU.model_copy(update={
    "name": "fqcdm/small",
    "autoencoder": AutoencoderStage(
        network=AutoencoderSettings(
            kind="vqgan", spatial_dims=2, channels=(64, 128, 256), num_res_blocks=(2, 2, 2), codebook=CODES
        ),
        adversarial=DUAL.model_copy(update={"warmup_steps": 4000, "channels": 32}),
        loss=EVEN, thin_fraction=0.0, crop=(128, 128),
        training=_TRAINING.model_copy(update={
            "steps": 8000, "batch_size": 16, "learning_rate": 4e-4, "ema_decay": 0.999, "precision": "bf16",
        }),
    ),
    "diffusion": DiffusionStage(
        denoiser=DenoiserSettings(channels=(128, 256, 384), num_res_blocks=2, norm_num_groups=32),
        condition=LABEL, drop_mask=0.1, process=NOISE_AT_THE_END, prediction="v", objective=_MORE_OF_THE_HEART,
        watch=WatchSettings(sheet_every=2000, sheet_cases=4),
        training=_TRAINING.model_copy(update={
            "steps": 8000, "batch_size": 32, "learning_rate": 4e-4, "ema_decay": 0.999, "precision": "bf16",
            "checkpoint_every": 2000,
        }),
    ),
    "joint": _TRAINING.model_copy(update={
        "steps": 8000, "batch_size": 16, "learning_rate": 4e-4, "ema_decay": 0.999, "precision": "bf16",
        "checkpoint_every": 2000,
    }),
})  # fmt: skip
"""Every stage in 20 minutes of one data-centre GPU."""

EPOCH = 1331
"""Steps: seven tenths of the 1902 slices of ACDC's 100 patients at two times (sections 4.1 and 4.2), one by one."""

PUBLISHED = TrainingSettings(
    steps=800 * EPOCH, batch_size=1, learning_rate=1e-4, weight_decay=0.05, ema_decay=0.0, log_every=100,
    checkpoint_every=2000, plateau=PlateauSettings(every=EPOCH),
)  # fmt: skip
"""Section 4.2. ReduceLROnPlateau is published without its numbers: PyTorch's."""
AGAINST_AN_OPPONENT = PUBLISHED.model_copy(update={"plateau": PlateauSettings(every=EPOCH, part="reconstruction")})
"""The total rises when an opponent joins or wins, so what is watched is the reconstruction."""

PAPER = CPU.model_copy(update={
    "name": "fqcdm/paper",
    "autoencoder": AutoencoderStage(
        # Of its widths nothing is stated: VQGAN's for a compression of 4. "Mean squared error" is all of the codebook.
        network=AutoencoderSettings(
            kind="vqgan", spatial_dims=2, channels=(128, 256, 512), num_res_blocks=(2, 2, 2),
            codebook=CODES.model_copy(update={"learning": "gradient"}),
        ),
        adversarial=DUAL.model_copy(update={"weight": 0.8, "warmup_steps": 10_000, "channels": 64, "edge_blocks": 3}),
        loss=EVEN.model_copy(update={"perceptual": 1.0}), thin_fraction=0.0, crop=(128, 128),
        training=AGAINST_AN_OPPONENT,
    ),
    "diffusion": DiffusionStage(
        # Of the U-Net nothing is stated but that it is one of two dimensions: DDPM's widths, SPADE's features.
        denoiser=DenoiserSettings(
            channels=(128, 256, 256), num_res_blocks=2, attention_levels=(False, True, True), norm_num_groups=32
        ),
        condition=LABEL.model_copy(update={"features": 128}),
        # The schedule is not stated; DDPM's ends far from noise in 100 steps unless its betas are ten times as large.
        process=ProcessSettings(kind="linear", beta_start=1e-3, beta_end=0.2, num_steps=100), prediction="epsilon",
        training=PUBLISHED,
    ),
    "joint": AGAINST_AN_OPPONENT,
    "sampler": _SAMPLER.model_copy(update={"clamp": None}),
})  # fmt: skip
"""The published values."""
