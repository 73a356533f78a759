"""The segmenters that ``segment`` trains: our own, nnU-Net and MedSAM, behind one contract."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast, get_args, runtime_checkable

import pydantic

from cardiosynth.core.config import Settings, with_overrides
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.data.dataset import Dataset
from cardiosynth.recipes.registry import find_recipe
from cardiosynth.segmentation import predictions
from cardiosynth.segmentation.medsam import chain as medsam_chain
from cardiosynth.segmentation.medsam.chain import MedsamTraining
from cardiosynth.segmentation.nnunet import chain as nnunet_chain
from cardiosynth.segmentation.nnunet.chain import NnunetPrediction
from cardiosynth.segmentation.nnunet.settings import MAY_CHANGE, Device, NnunetTraining
from cardiosynth.segmentation.predict import PredictionSettings
from cardiosynth.segmentation.staged import StagedTraining, train_staged
from cardiosynth.segmentation.task import SegmentationStage


@runtime_checkable
class Backend(Protocol):
    """Settings of one way to train a segmenter, and how to use them.

    ``train`` and ``predict`` go on where they were stopped when they are called again with the same arguments.
    """

    def changed(self, pretrain_share: float | None, plain: bool, folds: int) -> "Backend":
        """Return the settings with the options that all backends have in common.

        Args:
            pretrain_share: of the steps or epochs; None for what the settings say.
            plain: train on synthetic voxels as on real ones, whatever their confidence.
            folds: of the real cases; 1 trains on all of them.

        Raises:
            InputError: what this backend does not do.
        """
        ...

    def train(self, pretrain: Dataset | None, finetune: Dataset | None, run: Path, device: str) -> Path:
        """Train on synthetic cases, then on real ones, or on either alone; both of one label table."""
        ...

    def predict(self, run: Path, test: Dataset, out: Path, device: str) -> Dataset:
        """Write a dataset folder of the masks that a trained run sees, without images."""
        ...

    def plan(self, pretrain: int, finetune: int) -> list[str]:
        """Return what would be trained on so many cases, a line for each stage."""
        ...

    @property
    def prompts(self) -> str:
        """What the segmenter is told of a test case beside its image; a sentence, or empty."""
        ...

    def record(self) -> dict[str, Any]:
        """Return what must be the same when a run goes on, JSON-like."""
        ...


class OwnSegmenter(Settings):
    """Our own networks.

    Attributes:
        segmenter: how they are trained, and for how many steps in all.
        intensity: how they see intensities.
        pretrain_share: of the steps, on synthetic cases. Published: 0.8.
        finetune_learning_rate: None for that of ``segmenter``.
        folds: of the real cases; 1 trains one network on all of them.
        prediction: of whole cases.
    """

    segmenter: SegmentationStage
    intensity: IntensityScale = IntensityScale()
    pretrain_share: float = pydantic.Field(default=0.8, gt=0, lt=1)
    finetune_learning_rate: float | None = pydantic.Field(default=None, gt=0)
    folds: int = pydantic.Field(default=1, ge=1)
    prediction: PredictionSettings = PredictionSettings()

    def changed(self, pretrain_share: float | None, plain: bool, folds: int) -> "OwnSegmenter":
        """See `Backend`."""
        changes = [] if pretrain_share is None else [f"pretrain_share={pretrain_share}"]
        changes += ["segmenter.confidence=null"] if plain else []
        return with_overrides(self, [*changes, f"folds={folds}"] if folds > 1 else changes)

    def train(self, pretrain: Dataset | None, finetune: Dataset | None, run: Path, device: str) -> Path:
        """See `Backend`."""
        return train_staged(pretrain, finetune, run, self.staged(), self.intensity, device, folds=self.folds)

    def predict(self, run: Path, test: Dataset, out: Path, device: str) -> Dataset:
        """See `Backend`."""
        return predictions.predict_dataset(run, test, out, settings=self.prediction, device=device)

    def plan(self, pretrain: int, finetune: int) -> list[str]:
        """See `Backend`."""
        staged = self.staged()
        real = staged.finetuning if pretrain else staged.stage
        lines = _lines(pretrain, finetune, "step", staged.pretraining.training.steps, real.training.steps)
        return (
            [*lines[:-1], f"{lines[-1]}, {self.folds} times without a fold"] if finetune and self.folds > 1 else lines
        )

    @property
    def prompts(self) -> str:
        """See `Backend`."""
        return ""

    def record(self) -> dict[str, Any]:
        """See `Backend`."""
        return self.model_dump(mode="json")

    def staged(self) -> StagedTraining:
        """Return both stages.

        Raises:
            InputError: steps that cannot be shared out.
        """
        _shared(self.segmenter.training.steps, self.pretrain_share)
        return StagedTraining(
            stage=self.segmenter,
            pretrain_share=self.pretrain_share,
            finetune_learning_rate=self.finetune_learning_rate,
        )


class NnunetSegmenter(Settings):
    """nnU-Net.

    Attributes:
        nnunet: how it is trained.
        prediction: of whole cases.
    """

    nnunet: NnunetTraining = NnunetTraining()
    prediction: NnunetPrediction = NnunetPrediction()

    def changed(self, pretrain_share: float | None, plain: bool, folds: int) -> "NnunetSegmenter":
        """See `Backend`."""
        changes = ["nnunet.confidence=null"] if plain else []
        changes += [f"nnunet.folds={list(range(folds))}"] if folds > 1 else []
        if pretrain_share is not None:
            first, second = _shared(self.nnunet.real_only_epochs, pretrain_share)
            changes += [f"nnunet.pretrain_epochs={first}", f"nnunet.finetune_epochs={second}"]
        return with_overrides(self, changes)

    def train(self, pretrain: Dataset | None, finetune: Dataset | None, run: Path, device: str) -> Path:
        """See `Backend`."""
        if device not in get_args(Device):
            raise InputError(f"--device {device}: nnU-Net takes {', '.join(get_args(Device))}.")
        return nnunet_chain.train(pretrain, finetune, run, self.nnunet, cast(Device, device))

    def predict(self, run: Path, test: Dataset, out: Path, device: str) -> Dataset:
        """See `Backend`."""
        return nnunet_chain.predict_dataset(run, test, out, settings=self.prediction, device=device)

    def plan(self, pretrain: int, finetune: int) -> list[str]:
        """See `Backend`."""
        asked = self.nnunet
        epochs = asked.finetune_epochs if pretrain else asked.real_only_epochs
        lines = _lines(pretrain, finetune, "epoch", asked.pretrain_epochs, epochs)
        folds = ", ".join(map(str, asked.folds))
        return [*lines[:-1], f"{lines[-1]}, fold {folds}"] if finetune else lines

    @property
    def prompts(self) -> str:
        """See `Backend`."""
        return ""

    def record(self) -> dict[str, Any]:
        """See `Backend`."""
        return self.model_dump(mode="json", exclude={"nnunet": MAY_CHANGE - {"folds"}})


class MedsamSegmenter(Settings):
    """MedSAM.

    Attributes:
        medsam: how it is trained.
        prompts_of: dataset folder of masks of the test cases, as a segmenter predicts them, or a run of our own
            segmenter, whose boxes tell where to look; None for the truth, as published.
    """

    medsam: MedsamTraining = MedsamTraining()
    prompts_of: Path | None = None

    def changed(self, pretrain_share: float | None, plain: bool, folds: int) -> "MedsamSegmenter":
        """See `Backend`."""
        if folds > 1:
            raise InputError(f"--folds {folds}: MedSAM is trained on all real cases; leave the folds out.")
        changes = ["medsam.stage.confidence=null"] if plain else []
        if pretrain_share is not None:
            first, second = _shared(self.medsam.real_only, pretrain_share)
            changes += [f"medsam.pretraining={first}", f"medsam.finetuning={second}"]
        return with_overrides(self, changes)

    def train(self, pretrain: Dataset | None, finetune: Dataset | None, run: Path, device: str) -> Path:
        """See `Backend`."""
        return medsam_chain.train(pretrain, finetune, run, self.medsam, device)

    def predict(self, run: Path, test: Dataset, out: Path, device: str) -> Dataset:
        """See `Backend`."""
        return medsam_chain.predict_dataset(run, test, out, prompts=self.prompts_of, device=device)

    def plan(self, pretrain: int, finetune: int) -> list[str]:
        """See `Backend`."""
        asked, unit = self.medsam, self.medsam.counted_in.removesuffix("s")
        length = asked.finetuning if pretrain else asked.real_only
        return _lines(pretrain, finetune, unit, asked.pretraining, length)

    @property
    def prompts(self) -> str:
        """See `Backend`."""
        if self.prompts_of is not None:
            return f"Boxes around the structures in {self.prompts_of}, which a segmenter predicted, told where to look."
        return (
            "Boxes around the true structures of each slice told where they are and where they end, as published: the "
            "numbers cannot be compared with those of a segmenter that sees images alone."
        )

    def record(self) -> dict[str, Any]:
        """See `Backend`."""
        return self.model_dump(mode="json")


BACKENDS = ("own", "nnunet", "medsam")


def find_backend(
    name: str, recipe: str | None = None, config: Path | None = None, overrides: Sequence[str] = ()
) -> OwnSegmenter | NnunetSegmenter | MedsamSegmenter:
    """Return the settings of a backend.

    Args:
        name: one of `BACKENDS`.
        recipe: SYSTEM/SIZE, whose segmenter and intensities our own networks take.
        config: YAML file of settings that differ.
        overrides: ``a.b=value`` settings that differ.

    Raises:
        InputError: an unknown name or setting, or a recipe where there is none to be named.
    """
    if name not in BACKENDS:
        raise InputError(f"there is no segmenter '{name}'" + suggest(name, list(BACKENDS)))
    if name == "own":
        if recipe is None:
            raise InputError("our own segmenter needs a recipe; name one with --recipe, e.g. --recipe fcas/demo.")
        chosen = find_recipe(recipe)
        return with_overrides(OwnSegmenter(segmenter=chosen.segmenter, intensity=chosen.intensity), overrides, config)
    if recipe is not None:
        raise InputError(f"--recipe {recipe}: recipes say how our own segmenter is trained; leave it out for {name}.")
    return with_overrides(NnunetSegmenter() if name == "nnunet" else MedsamSegmenter(), overrides, config)


def _lines(pretrain: int, finetune: int, unit: str, first: int, second: int) -> list[str]:
    """Return the stages in words: how long the first and the second are, and on how many cases."""
    lines = [f"pre-train: {_counted(first, unit)} on {_counted(pretrain, 'case')}"] if pretrain else []
    name = "fine-tune" if pretrain else "train"
    return [*lines, f"{name}: {_counted(second, unit)} on {_counted(finetune, 'case')}"] if finetune else lines


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _shared(total: int, share: float) -> tuple[int, int]:
    """Return how much of ``total`` is pre-training and how much is left.

    Raises:
        InputError: nothing is left, or nothing given.
    """
    first = round(share * total)
    if not 0 < first < total:
        raise InputError(
            f"--pretrain-share {share:g} of {total} steps or epochs leaves a stage empty; take one between 0 and 1, "
            "or more steps."
        )
    return first, total - first
