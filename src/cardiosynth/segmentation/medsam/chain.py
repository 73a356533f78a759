"""A whole training of MedSAM: pre-training, fine-tuning or both, and masks of what it ends with."""

from pathlib import Path
from typing import Literal

import pydantic

from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.data.dataset import Dataset, read_dataset
from cardiosynth.segmentation import predictions
from cardiosynth.segmentation.medsam.predict import load_medsam, segment
from cardiosynth.segmentation.medsam.task import SCALE, MedsamStage, train_medsam
from cardiosynth.segmentation.staged import FINETUNED, PRETRAINED, is_trained

EMBEDDINGS = "embeddings"
"""Folder of a run that holds what a frozen encoder makes of its slices, which is the same in both stages."""


class MedsamTraining(Settings):
    """How MedSAM is trained, stage after stage, each with a schedule of its own.

    Attributes:
        stage: what all stages have in common; its ``epochs`` and ``training.steps`` are those below.
        scale: how it sees intensities; its window decides which HU keep shades.
        weights: a run or checkpoint of MedSAM to start from, as `import_medsam` writes; None for nothing, which takes
            far more cases than anyone has.
        counted_in: what the three lengths count: ``epochs`` (see `MedsamStage`) or optimizer ``steps``.
        pretraining: length of pre-training. Published (FCaS): 800 epochs.
        finetuning: length of fine-tuning. Published: 200 epochs.
        real_only: length on real cases without pre-training. Published: 1000 epochs, the two above together.
        finetune_learning_rate: None for that of ``stage``.
    """

    stage: MedsamStage = MedsamStage()
    scale: IntensityScale = SCALE
    weights: Path | None = None
    counted_in: Literal["epochs", "steps"] = "epochs"
    pretraining: int = pydantic.Field(default=800, ge=1)
    finetuning: int = pydantic.Field(default=200, ge=1)
    real_only: int = pydantic.Field(default=1000, ge=1)
    finetune_learning_rate: float | None = pydantic.Field(default=None, gt=0)

    def of_length(self, length: int, learning_rate: float | None = None) -> MedsamStage:
        """Return the stage that takes so many epochs or steps, at another learning rate where one is given."""
        training = self.stage.training
        if learning_rate is not None:
            training = training.model_copy(update={"learning_rate": learning_rate})
        if self.counted_in == "epochs":
            return self.stage.model_copy(update={"epochs": length, "training": training})
        training = training.model_copy(update={"steps": length})
        return self.stage.model_copy(update={"epochs": None, "training": training})


def train(
    pretrain: Dataset | None, finetune: Dataset | None, run: Path, settings: MedsamTraining, device: str = "cpu"
) -> Path:
    """Train MedSAM; killed anywhere, the same call goes on.

    Args:
        pretrain: synthetic cases for ``settings.pretraining``, weighted by their confidence maps. None trains on the
            real ones alone, for ``settings.real_only``.
        finetune: real cases for ``settings.finetuning``. None ends with pre-training.
        run: gets ``pre-trained/`` and ``fine-tuned/`` (which real cases alone are written to as well), each a run with
            a MedSAM, and ``embeddings/`` where the stage keeps them.
        settings: how.
        device: ``cpu`` or ``cuda``.

    Returns:
        The last checkpoint.

    Raises:
        InputError: neither dataset, or what :func:`train_medsam` refuses.
    """
    stages = _stages(pretrain, finetune, settings)
    if not stages:
        raise InputError("there is nothing to train on; give cases to pre-train on, to fine-tune on, or both.")
    last, init = run, settings.weights
    for folder, cases, stage in stages:
        last = train_medsam(
            cases, run / folder, stage, settings.scale,
            init=init, embeddings=run / EMBEDDINGS, device=device, label=f"train medsam, {folder}",
        )  # fmt: skip
        init = run / folder
    return last


def _stages(
    pretrain: Dataset | None, finetune: Dataset | None, settings: MedsamTraining
) -> list[tuple[str, Dataset, MedsamStage]]:
    """Return folder, cases and settings of each stage, in order."""
    found = []
    if pretrain is not None:
        found.append((PRETRAINED, pretrain, settings.of_length(settings.pretraining)))
    if finetune is not None and pretrain is not None:
        rate = settings.finetune_learning_rate
        found.append((FINETUNED, finetune, settings.of_length(settings.finetuning, rate)))
    elif finetune is not None:
        found.append((FINETUNED, finetune, settings.of_length(settings.real_only)))
    return found


def predict_dataset(
    run: Path,
    test: Dataset,
    out: Path,
    *,
    prompts: Dataset | Path | None = None,
    scale: IntensityScale | None = None,
    embeddings: Path | None = None,
    device: str = "cpu",
    name: str = "medsam",
) -> Dataset:
    """Write a dataset of the masks that a trained MedSAM sees; the same call goes on after a stop. See `segment`.

    Args:
        run: what `load_medsam` takes.
        test: with images.
        out: a folder.
        prompts: masks of the same cases, as a segmenter predicts them; or a folder of them; or a run of our own
            segmenter, whose masks are first written to ``OUT-prompts``. None for the ground truth, as published.
        scale: how it sees intensities; None as it was trained. For released weights that nobody has trained further.
        embeddings: folder of cached embeddings, None for no cache.
        device: ``cpu`` or ``cuda``.
        name: what the dataset is called.

    Raises:
        InputError: nothing trained there, or what `segment` refuses.
    """
    medsam = load_medsam(run, device, scale=scale, embeddings=embeddings)
    if isinstance(prompts, Path):
        prompts = prompt_masks(prompts, test, out.with_name(f"{out.name}-prompts"), device)
    return segment(medsam, test, out, prompts, name)


def prompt_masks(prompts: Path, test: Dataset, out: Path, device: str = "cpu") -> Dataset:
    """Return the masks whose boxes are to prompt: those of a dataset folder, or what our own segmenter sees.

    Args:
        prompts: a dataset folder, or a run of our own segmenter.
        test: the cases.
        out: where the segmenter's masks are written.
        device: ``cpu`` or ``cuda``.

    Raises:
        InputError: it is neither.
    """
    if is_trained(prompts):
        return predictions.predict_dataset(prompts, test, out, device=device)
    return read_dataset(prompts)
