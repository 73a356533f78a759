"""A data set and stage settings so small that every stage takes a second."""

from pathlib import Path

import numpy as np

from cardiosynth.autoencoder.networks import AutoencoderSettings
from cardiosynth.autoencoder.task import AutoencoderStage
from cardiosynth.core.case import Case
from cardiosynth.core.random import numpy_generator
from cardiosynth.data.dataset import Dataset, write_dataset
from cardiosynth.diffusion.control import ConditionSettings
from cardiosynth.diffusion.objective import ObjectiveSettings
from cardiosynth.diffusion.process import ProcessSettings
from cardiosynth.diffusion.stages import ControlStage, DiffusionStage
from cardiosynth.diffusion.unet import DenoiserSettings
from cardiosynth.training.settings import TrainingSettings

SHAPE = (16, 16, 16)
TRAINING = TrainingSettings(
    steps=2, batch_size=1, learning_rate=1e-2, ema_decay=0, checkpoint_every=1, log_every=1, precision="fp32"
)
AUTOENCODER = AutoencoderStage(
    network=AutoencoderSettings(compression=4, channels=(4, 8), num_res_blocks=(0, 1), latent_channels=2),
    crop=(8, 8, 8),
    training=TRAINING,
)
DENOISER = DenoiserSettings(channels=(8, 16), attention_levels=(False, True), num_head_channels=8, norm_num_groups=4)
DIFFUSION = DiffusionStage(
    denoiser=DENOISER, process=ProcessSettings(kind="rectified_flow"), prediction="flow", training=TRAINING
)
CONTROL = ControlStage(
    condition=ConditionSettings(features=4, stem_channels=(8,)),
    objective=ObjectiveSettings(target_weight=1.0, thin_weight=3.0),
    training=TRAINING,
)


def case(index: int, shape: tuple[int, ...] = SHAPE, **changes) -> Case:
    """A bright left ventricle and a coronary in noise; protocols alternate."""
    rng = numpy_generator(0, "small", index)
    mask = np.zeros((1, *shape), np.uint8)
    corner = 2 + index % 4
    mask[:, corner : corner + 8, 4:12] = 4
    mask[:, corner, 4:12, 3:6] = 1
    mask[:, -1] = 9
    image = rng.normal(0, 20, mask.shape) + np.where(mask == 4, 300 + 50 * (index % 2), np.where(mask == 1, 400, -50))
    facts = {"acquisition": f"protocol-{index % 2}", "licence": "CC0-1.0"}
    values = {
        "case_id": f"small-{index}", "image": image.astype(np.int16), "mask": mask, "affine": np.diag([2.0, 2, 2, 1]),
        "provenance": facts,
    }  # fmt: skip
    return Case(**{**values, **changes})


def dataset(root: Path, count: int = 4) -> Dataset:
    """Write and open a data set of ``count`` cases."""
    return write_dataset((case(index) for index in range(count)), root)
