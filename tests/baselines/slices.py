"""Slices and stages so small that both stages of a token peer take a second."""

from pathlib import Path

import numpy as np

from cardiosynth.autoencoder.codebook import CodebookSettings
from cardiosynth.autoencoder.losses import ReconstructionSettings
from cardiosynth.autoencoder.networks import AutoencoderSettings
from cardiosynth.autoencoder.task import AutoencoderStage
from cardiosynth.baselines.prior import PriorStage
from cardiosynth.baselines.tokens import TokenStages
from cardiosynth.baselines.transformer import TransformerSettings
from cardiosynth.core.case import Case
from cardiosynth.core.random import numpy_generator
from cardiosynth.data.dataset import Dataset, write_dataset
from cardiosynth.training.settings import TrainingSettings

SIZE = 16
TRAINING = TrainingSettings(
    steps=3, batch_size=2, learning_rate=5e-3, ema_decay=0.0, precision="fp32", checkpoint_every=1, weight_decay=0.0
)
AUTOENCODER = AutoencoderStage(
    network=AutoencoderSettings(
        spatial_dims=2, channels=(8, 16), num_res_blocks=(0, 1), codebook=CodebookSettings(codes=8, begin_step=2)
    ),
    loss=ReconstructionSettings(heart=0.0, thin_weight=0.0), thin_fraction=0.0, crop=(SIZE, SIZE),
    training=TRAINING.model_copy(update={"learning_rate": 1e-4}),
)  # fmt: skip
PRIOR = PriorStage(transformer=TransformerSettings(layers=1, heads=2, width=16), training=TRAINING)
STAGES = TokenStages(autoencoder=AUTOENCODER, prior=PRIOR)


def slice_case(index: int, size: int = SIZE, **changes) -> Case:
    """Return a slice with a bright ventricle, on the left or on the right."""
    mask = np.zeros((1, size, size), np.uint8)
    x = size // 8 + (index % 2) * size // 2
    mask[0, x : x + size // 4, size // 4 : 3 * size // 4] = 4
    mask[0, :, -size // 8 :] = 9
    noise = numpy_generator(0, "slice", index).normal(0, 5, mask.shape)
    image = (np.where(mask == 4, 400, np.where(mask == 9, -500, 0)) + noise).astype(np.int16)
    values = {
        "case_id": f"slice-{index}", "image": image, "mask": mask, "affine": np.diag([2.0, 2, 2, 1]),
        "provenance": {"licence": "CC0-1.0"},
    }  # fmt: skip
    return Case(**{**values, **changes})


def slices(root: Path, count: int = 3, size: int = SIZE) -> Dataset:
    """Write and open a data set of slices."""
    return write_dataset((slice_case(index, size) for index in range(count)), root)
