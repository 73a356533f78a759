"""Cases that a small network can learn: bright boxes in a dark body."""

import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import label_table
from cardiosynth.segmentation.networks import SegmenterSettings
from cardiosynth.segmentation.task import SegmentationStage
from cardiosynth.training.loop import TrainingSettings

LABELS = label_table({"chamber": 3, "wall": 7, "lung": 40}, surroundings=["lung"])
SCALE = IntensityScale()
HU = np.array([0, 800, 300, -900], np.int16)
CODES = np.array([0, 3, 7, 40], np.uint8)


def stage(**changes) -> SegmentationStage:
    training = TrainingSettings(
        steps=60, batch_size=2, learning_rate=1e-2, warmup_steps=5, ema_decay=0.9, log_every=1, precision="fp32"
    )
    network = SegmenterSettings(channels=(4, 8), strides=(2,))
    return SegmentationStage(**{"network": network, "crop": (8, 8, 8), "training": training} | changes)


def case(index: int, shape: tuple[int, ...] = (12, 12, 12), **fields) -> Case:
    rng = np.random.default_rng(index)
    regions = np.zeros((1, *shape), np.uint8)
    regions[:, :2] = 3
    start = rng.integers(2, 4, len(shape))
    for region, margin in ((2, 0), (1, 2)):
        box = tuple(slice(s + margin, s + 8 - margin) for s in start)
        regions[(0, *box)] = region
    image = HU[regions] + rng.integers(-60, 60, regions.shape).astype(np.int16)
    values = {"case_id": f"box-{index}", "image": image, "mask": CODES[regions], "labels": LABELS, "affine": np.eye(4)}
    return Case(**values | fields)
