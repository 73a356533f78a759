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
from cardiosynth.segmentation.task import STAGE, SegmentationStage, train_segmenter

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
    synthetic: Sequence[Case] | None,
    real: Sequence[Case] | None,
    run: Path,
    staged: StagedTraining,
    scale: IntensityScale,
    device: str = "cpu",
    *,
    folds: int = 1,
) -> Path:
    """Pre-train on synthetic cases, then fine-tune on real ones; the same call goes on after a stop.

    Args:
        synthetic: weighted by their confidence maps, as ``staged.stage.confidence`` says. None trains on the real ones
            alone, for all steps.
        real: fine-tuned on. None ends with pre-training.
        run: gets ``pre-trained/`` and ``fine-tuned/`` (which real cases alone are written to as well), each a run with
            a segmenter.
        staged: how, and for how long.
        scale: how the network sees intensities.
        device: ``cpu`` or ``cuda``.
        folds: how many segmenters are trained on the real cases, each without its fold; see :func:`train_folds`. 1
            trains one on all of them.

    Returns:
        The last checkpoint.

    Raises:
        InputError: no cases at all, cases that do not suit each other or the settings, or a run begun otherwise.
    """
    if synthetic is None and real is None:
        raise InputError("there is nothing to train on; give cases to pre-train on, to fine-tune on, or both.")
    last, first = run, None
    if synthetic is not None:
        first = run / PRETRAINED
        last = train_segmenter(synthetic, first, staged.pretraining, scale, device=device, label="pre-train segmenter")
    if real is None:
        return last
    stage, place = staged.stage if first is None else staged.finetuning, run / FINETUNED
    if folds > 1:
        assert isinstance(real, Dataset), "folds are drawn by patient"
        return train_folds(real, place, stage, scale, count=folds, init=first, device=device)[-1]
    label = "train segmenter" if first is None else "fine-tune segmenter"
    return train_segmenter(real, place, stage, scale, init=first, device=device, label=label)


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


def load_trained(run: Path, device: str = "cpu") -> list[Segmenter]:
    """Load what a run ended with: its fine-tuned segmenter, else the pre-trained one, else its own; or all its folds'.

    Args:
        run: of `train_staged`, `train_folds` or :func:`train_segmenter`, or what :func:`load_segmenter` takes.
        device: ``cpu`` or ``cuda``.

    Raises:
        InputError: nothing is trained there.
    """
    last = last_stage(run)
    return load_folds(last, device) if any(last.glob("fold-*")) else [load_segmenter(last, device)]


def last_stage(run: Path) -> Path:
    """Return the run of the stage that a run ended with; the run itself where it has no stages."""
    return next((run / stage for stage in (FINETUNED, PRETRAINED) if (run / stage).is_dir()), run)


def is_trained(run: Path) -> bool:
    """Return whether this is what `load_trained` takes, finished or not, rather than something else."""
    last = last_stage(run)
    return (last / "record.json").exists() or (last / STAGE).is_dir() or any(last.glob("fold-*"))
