"""Training in two stages, and over folds: what is made of one stage's settings, and where it is written."""

from collections.abc import Sequence
from pathlib import Path

import pydantic

from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.splits import fold_of
from cardiosynth.segmentation.predict import Segmenter, load_segmenter
from cardiosynth.segmentation.task import SegmentationStage, train_segmenter

PRETRAINED, FINETUNED = "pre-trained", "fine-tuned"
"""Folders of the two stages in a run."""


class StagedTraining(Settings):
    """Pre-training and fine-tuning, together as many optimizer steps as training without pre-training has.

    Each stage is a run of its own, with its own warm-up (a quarter of its steps at most) and schedule of the learning
    rate.

    Attributes:
        stage: training without pre-training; its steps are shared out.
        pretrain_share: of the steps. Published: 0.8.
        finetune_learning_rate: None for that of ``stage``.
    """

    stage: SegmentationStage = SegmentationStage()
    pretrain_share: float = pydantic.Field(default=0.8, gt=0, lt=1)
    finetune_learning_rate: float | None = pydantic.Field(default=None, gt=0)

    @pydantic.model_validator(mode="after")
    def _has_steps(self) -> "StagedTraining":
        steps = self.stage.training.steps
        if not 0 < round(self.pretrain_share * steps) < steps:
            raise ValueError(f"{steps} steps cannot be shared out {self.pretrain_share:g} to the rest; take more steps")
        return self

    @property
    def pretraining(self) -> SegmentationStage:
        """The first stage."""
        return of_length(self.stage, round(self.pretrain_share * self.stage.training.steps))

    @property
    def finetuning(self) -> SegmentationStage:
        """The second stage: the steps that are left."""
        steps = self.stage.training.steps - self.pretraining.training.steps
        rate = self.finetune_learning_rate or self.stage.training.learning_rate
        return of_length(self.stage, steps, learning_rate=rate)


def of_length(stage: SegmentationStage, steps: int, **training: float) -> SegmentationStage:
    """Return ``stage`` with so many steps, of which at most a quarter is warm-up, and other changes of its training."""
    warmup_steps = min(stage.training.warmup_steps, steps // 4)
    changed = stage.training.model_copy(update={**training, "steps": steps, "warmup_steps": warmup_steps})
    return stage.model_copy(update={"training": changed})


def train_staged(
    synthetic: Sequence[Case],
    real: Sequence[Case],
    run: Path,
    staged: StagedTraining,
    scale: IntensityScale,
    device: str = "cpu",
) -> Path:
    """Pre-train on synthetic cases, then fine-tune on real ones; the same call goes on after a stop.

    Args:
        synthetic: weighted by their confidence maps, as ``staged.stage.confidence`` says.
        real: fine-tuned on.
        run: gets ``pre-trained/`` and ``fine-tuned/``, each a run with a segmenter.
        staged: how, and for how long.
        scale: how the network sees intensities.
        device: ``cpu`` or ``cuda``.

    Returns:
        The last checkpoint of fine-tuning.

    Raises:
        InputError: cases that do not suit each other or the settings, or a run begun otherwise.
    """
    first, second = run / PRETRAINED, run / FINETUNED
    train_segmenter(synthetic, first, staged.pretraining, scale, device=device, label="pre-train segmenter")
    return train_segmenter(
        real, second, staged.finetuning, scale, init=first, device=device, label="fine-tune segmenter"
    )


def train_folds(
    cases: Dataset,
    run: Path,
    stage: SegmentationStage,
    scale: IntensityScale,
    *,
    count: int,
    mixed_with: Sequence[Sequence] = (),
    init: Path | None = None,
    device: str = "cpu",
) -> list[Path]:
    """Train one segmenter per fold, on all patients but the fold's; the same call goes on after a stop.

    Args:
        cases: shared out by patient. Who is in which fold depends on the names and on the stage's seed alone.
        run: gets ``fold-0/``, ``fold-1/``, ..., each a run with a segmenter.
        stage: how; the same for every fold.
        scale: how the networks see intensities.
        count: how many folds.
        mixed_with: datasets that every fold is trained on, whole; see :func:`train_segmenter`.
        init: weights that every fold starts from.
        device: ``cpu`` or ``cuda``.

    Returns:
        The last checkpoint of each fold.

    Raises:
        InputError: fewer patients than folds, or what :func:`train_segmenter` refuses.
    """
    folds, last = fold_of(cases.case_ids, count, stage.training.seed), []
    for fold in range(count):
        kept = cases.subset(case_id for case_id in cases.case_ids if folds[case_id] != fold)
        label = f"train segmenter, fold {fold + 1} of {count}"
        place = run / f"fold-{fold}"
        last.append(
            train_segmenter(kept, place, stage, scale, mixed_with=mixed_with, init=init, device=device, label=label)
        )
    return last


def load_folds(run: Path, device: str = "cpu") -> list[Segmenter]:
    """Load the segmenters of all folds of a run, for :func:`predict_ensemble`.

    Raises:
        InputError: no fold, or one without a checkpoint.
    """
    folds = sorted(run.glob("fold-*"), key=lambda folder: int(folder.name.removeprefix("fold-")))
    if not folds:
        raise InputError(f"{run} has no fold-0; train folds there, or name the run of one segmenter.")
    return [load_segmenter(folder, device) for folder in folds]
