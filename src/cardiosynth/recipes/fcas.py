"""FCaS / StructDiff as values. The published value of a setting stands in its docstring, where it is defined.

What was measured from data (latent scale, windows of MR) is never configuration: it travels in the checkpoints.
"""

from cardiosynth.autoencoder.losses import ReconstructionSettings
from cardiosynth.autoencoder.networks import AutoencoderSettings
from cardiosynth.autoencoder.task import AutoencoderStage
from cardiosynth.autoencoder.verdict import ContrastThreshold, VerdictThresholds
from cardiosynth.core.config import Settings
from cardiosynth.diffusion.control import ConditionSettings
from cardiosynth.diffusion.objective import ObjectiveSettings, TimeSettings
from cardiosynth.diffusion.process import ProcessSettings
from cardiosynth.diffusion.stages import ControlStage, DiffusionStage
from cardiosynth.diffusion.unet import DenoiserSettings
from cardiosynth.recipes.recipe import Recipe
from cardiosynth.sampling.confidence import ConfidenceSettings
from cardiosynth.sampling.sampler import SamplerSettings
from cardiosynth.segmentation.networks import SegmenterSettings
from cardiosynth.segmentation.task import SegmentationStage
from cardiosynth.training.settings import TrainingSettings


class GridSettings(Settings):
    """The grid of every case.

    Attributes:
        shape: voxels per axis. Published 512 x 512 x 128 in training, 512 x 512 x 256 in synthesis.
        spacing_mm: voxel size per axis.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


class FcasRecipe(Recipe):
    """FCaS: what it has beside other systems. Its intensity window is published (MAISI) as [-1000, 1000] HU.

    Attributes:
        grid: of every case.
        control: third stage, told of mask and template.
    """

    grid: GridSettings
    control: ControlStage

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels per axis of every case."""
        return self.grid.shape


def _training(steps: int, batch_size: int, learning_rate: float, **changes: float) -> TrainingSettings:
    """Return what all stages of the small recipes share: a short warm-up, then a cosine to 0."""
    common = {
        "schedule": "cosine", "warmup_steps": min(30, steps // 4), "weight_decay": 1e-4, "betas": (0.9, 0.99),
        "ema_decay": 0.995, "checkpoint_every": max(1, steps // 4), "log_every": max(1, steps // 100),
    }  # fmt: skip
    sizes = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
    return TrainingSettings.model_validate({**common, **sizes, **changes})


FLOW = ProcessSettings(kind="rectified_flow")
OFTEN_IN_THE_MIDDLE = TimeSettings(distribution="logit_normal", uniform_share=0.1)

DEMO = FcasRecipe(
    name="fcas/demo",
    # 1.25 mm is the coarsest voxel at which 4x compression kept coronary arteries in minutes of training.
    grid=GridSettings(shape=(96, 96, 96), spacing_mm=(1.25, 1.25, 1.25)),
    autoencoder=AutoencoderStage(
        # Measured on phantoms (docs/log.md): weighting thin structures more kept more of their contrast at equal time.
        loss=ReconstructionSettings(thin_weight=40.0), thin_fraction=0.85,
        crop=(48, 48, 48), training=_training(2100, 4, 2e-3),
    ),
    # Measured (docs/log.md): 38 dB, coronary arteries 0.44 to 0.58, left ventricle 0.9. Below, something went wrong.
    gate=VerdictThresholds(
        psnr_heart_db=33.0,
        contrast=(
            ContrastThreshold(name="coronary_artery", kept=0.3), ContrastThreshold(name="left_ventricle", kept=0.6)
        ),
    ),
    diffusion=DiffusionStage(
        process=FLOW, prediction="x0",
        objective=ObjectiveSettings(times=OFTEN_IN_THE_MIDDLE, target_weight=1.0, thin_weight=3.0),
        training=_training(100, 2, 1e-3),
    ),
    control=ControlStage(
        # In the window of 3000 HU, center and gain make these channels (HU - 200) / 375. Which structure a voxel is in
        # can be read off one channel of a one-hot mask, and off bits only together: vessels are learned sooner.
        condition=ConditionSettings(
            template="same_acquisition", encoding="one_hot", intensity_center=0.4, intensity_gain=8.0
        ),
        # Measured (docs/log.md): coronary contrast grows with this weight, 0.19 at 6 and 0.38 at 100 after 500 steps
        # of one seed; SSIM and HU errors of the other structures did not grow worse.
        objective=ObjectiveSettings(times=OFTEN_IN_THE_MIDDLE, target_weight=1.0, thin_weight=100.0),
        training=_training(1050, 1, 1e-3),
    ),
    sampler=SamplerSettings(solver="euler", steps=10, confidence=ConfidenceSettings(interval=1)),
    segmenter=SegmentationStage(crop=(64, 64, 64), training=_training(400, 2, 2e-3)),
)  # fmt: skip
"""Every stage from nothing on two CPU cores in 20 minutes, on built-in phantoms."""

TINY = FcasRecipe(
    name="fcas/tiny",
    grid=GridSettings(shape=(32, 32, 32), spacing_mm=(3.75, 3.75, 3.75)),
    autoencoder=AutoencoderStage(
        network=AutoencoderSettings(channels=(8, 16), num_res_blocks=(1, 1)),
        crop=(16, 16, 16), training=_training(8, 2, 2e-3),
    ),
    diffusion=DiffusionStage(
        denoiser=DenoiserSettings(
            channels=(16, 32), attention_levels=(False, False), num_head_channels=16, norm_num_groups=8
        ),
        process=FLOW, prediction="x0", training=_training(4, 2, 1e-3),
    ),
    control=ControlStage(
        condition=ConditionSettings(features=8, stem_channels=(16, 16)), training=_training(4, 1, 1e-3)
    ),
    sampler=SamplerSettings(solver="euler", steps=3, confidence=ConfidenceSettings(interval=1)),
    segmenter=SegmentationStage(
        network=SegmenterSettings(channels=(8, 16), strides=(2,)), crop=(16, 16, 16), training=_training(8, 2, 2e-3)
    ),
)  # fmt: skip
"""Every stage in seconds, for tests: it shows that the chain works, not what it can do."""
