"""MedSAM's chain, as a process of its own: ``python -m tests.segmentation.medsam.chain RUN DEATH``."""

import sys
from pathlib import Path

from cardiosynth.data.dataset import read_dataset
from cardiosynth.segmentation.medsam import predict
from cardiosynth.segmentation.medsam.chain import MedsamTraining, predict_dataset, train
from tests.segmentation.killed import die_at
from tests.segmentation.medsam.models import TRAINING, stage

EVERY_TWO = TRAINING.model_copy(update={"checkpoint_every": 2})
SETTINGS = MedsamTraining(stage=stage(training=EVERY_TWO), counted_in="steps", pretraining=5, finetuning=3, real_only=8)


def chain(run: Path) -> None:
    """Pre-train on ``data/synthetic`` beside the run, fine-tune on ``data/real``, and predict ``data/test``."""
    data = run.parent / "data"
    train(read_dataset(data / "synthetic"), read_dataset(data / "real"), run, SETTINGS)
    predict_dataset(run, read_dataset(data / "test"), run / "masks")


if __name__ == "__main__":
    die_at(int(sys.argv[2]), predict, "predict_mask")
    chain(Path(sys.argv[1]))
