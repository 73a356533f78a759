"""A MedSAM of 64 x 64 pixels, and cases that it can learn."""

import pytest

from cardiosynth.segmentation.medsam.network import MedsamNetwork
from cardiosynth.segmentation.medsam.task import MedsamStage
from cardiosynth.training.settings import TrainingSettings

pytest.importorskip("transformers", reason="needs the extra medsam")

TINY = MedsamNetwork(
    image_size=64, hidden_size=32, num_layers=2, num_heads=2, window_size=2, global_layers=(1,), embedding_channels=16,
    decoder_mlp_size=32, decoder_heads=2, mask_channels=4, quality_size=16,
)  # fmt: skip
TRAINING = TrainingSettings(steps=4, batch_size=2, learning_rate=1e-3, ema_decay=0.0, log_every=1, precision="fp32")


def stage(**changes) -> MedsamStage:
    return MedsamStage(**{"network": TINY, "training": TRAINING} | changes)
