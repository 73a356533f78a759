"""FQCDM as values: slices of cine MR. The published value of a setting stands in its docstring, where it is defined.

What was measured from data (latent scale, windows of MR) is never configuration: it travels in the checkpoints.
"""

from cardiosynth.autoencoder.losses import ReconstructionSettings
from cardiosynth.autoencoder.networks import AutoencoderSettings
from cardiosynth.autoencoder.task import AutoencoderStage
from cardiosynth.autoencoder.verdict import VerdictThresholds
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.data.prepare.settings import SliceSettings
from cardiosynth.recipes.recipe import Recipe
from cardiosynth.segmentation.networks import SegmenterSettings
from cardiosynth.segmentation.task import SegmentationStage
from cardiosynth.training.settings import TrainingSettings


class FqcdmRecipe(Recipe):
    """FQCDM: what it has beside other systems.

    Attributes:
        slices: how volumes are cut. The paper does not state the size of its slices.
    """

    slices: SliceSettings

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels per axis of every slice."""
        return (self.slices.size, self.slices.size)


ACDC_SLICES = SliceSettings(plane="short-axis", size=128, scale="width")
"""Some of ACDC's volumes are 512 wide, so that slices are scaled by width before they are cut."""
CINE = IntensityScale(unit="mr")
EVEN = ReconstructionSettings(l1=1.0, l2=0.0, heart=0.0, thin_weight=0.0)
"""Every pixel counts alike, as published."""

_TRAINING = TrainingSettings(
    steps=1000, batch_size=8, learning_rate=1e-3, schedule="cosine", warmup_steps=50, weight_decay=1e-4,
    betas=(0.9, 0.99), ema_decay=0.995, log_every=20,
)  # fmt: skip

TINY = FqcdmRecipe(
    name="fqcdm/tiny",
    slices=SliceSettings(plane="short-axis", size=32, scale="width"),
    intensity=CINE,
    autoencoder=AutoencoderStage(
        network=AutoencoderSettings(spatial_dims=2, channels=(8, 16), num_res_blocks=(1, 1)),
        loss=EVEN, thin_fraction=0.0, crop=(32, 32),
        training=_TRAINING.model_copy(update={"steps": 8, "batch_size": 2, "warmup_steps": 2, "log_every": 1}),
    ),
    segmenter=SegmentationStage(
        network=SegmenterSettings(spatial_dims=2, channels=(8, 16), strides=(2,)), crop=(32, 32),
        training=_TRAINING.model_copy(update={"steps": 8, "batch_size": 2, "warmup_steps": 2, "log_every": 1}),
    ),
)  # fmt: skip
"""Every stage in seconds, for tests: it shows that the chain works, not what it can do."""

CPU = FqcdmRecipe(
    name="fqcdm/cpu",
    slices=ACDC_SLICES,
    intensity=CINE,
    autoencoder=AutoencoderStage(
        network=AutoencoderSettings(spatial_dims=2, channels=(32, 64), num_res_blocks=(1, 2)),
        loss=EVEN, thin_fraction=0.0, crop=(128, 128),
        training=_TRAINING.model_copy(update={"steps": 4000}),
    ),
    gate=VerdictThresholds(psnr_db=24.0),
    segmenter=SegmentationStage(
        network=SegmenterSettings(spatial_dims=2), crop=(128, 128),
        training=_TRAINING.model_copy(update={"steps": 1500}),
    ),
)  # fmt: skip
"""Every stage in two core-hours."""

SMALL = CPU.model_copy(update={"name": "fqcdm/small"})
"""Every stage in 20 minutes of one data-centre GPU."""

PAPER = CPU.model_copy(update={"name": "fqcdm/paper"})
"""The published values."""
