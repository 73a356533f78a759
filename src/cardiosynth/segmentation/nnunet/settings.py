"""What a chain of nnU-Net trainings takes: pre-training on synthetic cases, fine-tuning, real cases alone."""

from pathlib import Path
from typing import Literal

import pydantic

from cardiosynth.core.config import Settings
from cardiosynth.segmentation.losses import ConfidenceWeights
from cardiosynth.segmentation.nnunet.schedule import Schedule

Fold = int | Literal["all"]
Device = Literal["auto", "cpu", "cuda"]
PLANS = "nnUNetPlans"
"""Plans have this name whichever planner made them, so that every stage finds them."""
FINAL = "checkpoint_final.pth"
"""A fold that has it is trained to its end."""
SIGN = "@cardiosynth "
"""What the child process tells us begins so."""
StageName = Literal["pretrain", "finetune", "real_only"]

MAY_CHANGE = {"folds", "processes", "augmentation_workers", "timeout_h"}
"""Settings that may be others when a run goes on."""


class NnunetTraining(Settings):
    """How nnU-Net is trained.

    Attributes:
        configuration: of nnU-Net's plans.
        folds: of the real cases, counted from 0 as nnU-Net does; ``all`` trains on every case. There are five, or as
            many as patients where those are fewer. Pre-training takes all synthetic cases.
        pretrain_epochs: published 800.
        finetune_epochs: published 200; with a schedule of its own.
        real_only_epochs: published 1000, the two above together.
        learning_rate: at the beginning of pre-training and of training on real cases alone.
        finetune_learning_rate: at the beginning of fine-tuning; nnU-Net's own is that of a fresh training.
        head_transfer: whether fine-tuning begins with the pre-trained output layers too. nnU-Net's own
            ``-pretrained_weights`` never takes them.
        confidence: how maps weigh the loss; None trains on synthetic voxels as on real ones.
        iterations: optimizer steps per epoch.
        validation_iterations: batches per epoch on which loss and Dice are watched.
        checkpoint_every: epochs between checkpoints to go on from.
        planner: nnU-Net's planner for the real cases.
        plans: a file of plans to use instead of planning.
        processes: that preprocess cases.
        augmentation_workers: that augment batches; None leaves it to nnU-Net, 0 augments in the training's own process.
        timeout_h: how long nnU-Net may work without finishing a case or an epoch.
    """

    configuration: Literal["3d_fullres", "2d"] = "3d_fullres"
    folds: tuple[Fold, ...] = pydantic.Field(default=("all",), min_length=1)
    pretrain_epochs: int = pydantic.Field(default=800, ge=1)
    finetune_epochs: int = pydantic.Field(default=200, ge=1)
    real_only_epochs: int = pydantic.Field(default=1000, ge=1)
    learning_rate: float = pydantic.Field(default=1e-2, gt=0)
    finetune_learning_rate: float = pydantic.Field(default=1e-2, gt=0)
    head_transfer: bool = True
    confidence: ConfidenceWeights | None = ConfidenceWeights()
    iterations: int = pydantic.Field(default=250, ge=1)
    validation_iterations: int = pydantic.Field(default=50, ge=1)
    checkpoint_every: int = pydantic.Field(default=50, ge=1)
    planner: str = "ExperimentPlanner"
    plans: Path | None = None
    processes: int = pydantic.Field(default=4, ge=1)
    augmentation_workers: int | None = pydantic.Field(default=None, ge=0)
    timeout_h: pydantic.PositiveFloat = 24.0

    def schedule(self, stage: StageName) -> Schedule:
        """Return how long and how fast a stage learns."""
        epochs = {
            "pretrain": self.pretrain_epochs, "finetune": self.finetune_epochs, "real_only": self.real_only_epochs
        }  # fmt: skip
        return Schedule(
            epochs=epochs[stage],
            learning_rate=self.finetune_learning_rate if stage == "finetune" else self.learning_rate,
            iterations=self.iterations,
            validation_iterations=self.validation_iterations,
            checkpoint_every=self.checkpoint_every,
        )


class Request(Settings):
    """What the child process is asked to do: make ready what is not, then train every fold to its end.

    Attributes:
        stage: which one.
        settings: how.
        real: name of the dataset that is planned for; all stages share its plans.
        dataset: name of the dataset that is trained on.
        folds: of that dataset.
        weights: how its maps weigh the loss; None where it has none or they are not to count.
        initial: checkpoint to begin from.
        device: ``auto`` takes CUDA where nnU-Net's torch finds it.
    """

    stage: StageName
    settings: NnunetTraining
    real: str
    dataset: str
    folds: tuple[Fold, ...]
    weights: ConfidenceWeights | None = None
    initial: Path | None = None
    device: Device = "auto"
