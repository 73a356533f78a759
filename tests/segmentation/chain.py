"""Our own segmenter's chain, as a process of its own: ``python -m tests.segmentation.chain RUN DEATH``."""

import sys
from pathlib import Path

from cardiosynth.data.dataset import read_dataset
from cardiosynth.segmentation import predictions
from cardiosynth.segmentation.staged import StagedTraining, train_staged
from tests.segmentation.cases import SCALE, stage
from tests.segmentation.killed import die_at

TRAINING = stage().training.model_copy(update={"steps": 8, "warmup_steps": 1, "checkpoint_every": 2})
STAGED = StagedTraining(stage=stage(training=TRAINING), pretrain_share=5 / 8)


def chain(run: Path) -> None:
    """Pre-train on ``data/synthetic`` beside the run, fine-tune on ``data/real``, and predict ``data/test``."""
    data = run.parent / "data"
    train_staged(read_dataset(data / "synthetic"), read_dataset(data / "real"), run, STAGED, SCALE)
    predictions.predict_dataset(run, read_dataset(data / "test"), run / "masks")


if __name__ == "__main__":
    die_at(int(sys.argv[2]), predictions, "predict_ensemble")
    chain(Path(sys.argv[1]))
