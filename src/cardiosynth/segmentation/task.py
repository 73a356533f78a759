"""Training of a segmenter: plain, with synthetic cases weighted by their confidence, or from another's weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic
import torch
from torch import Tensor, nn

from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.random import draw_int
from cardiosynth.segmentation.losses import cal_parts
from cardiosynth.segmentation.networks import (
    SegmenterSettings,
    build_segmenter,
    fast_memory_format,
    target_classes,
)
from cardiosynth.segmentation.volumes import Augmentation, TrainingVolume, draw_crop, training_volume
from cardiosynth.training.loop import Batch, Player, TrainingSettings, fit
from cardiosynth.training.state import load_weights

STAGE = "segmenter"


class SegmentationStage(Settings):
    """Everything that decides how a segmenter is trained.

    Attributes:
        network: its size.
        crop: voxels per axis of an example, and of the window it predicts with.
        foreground: share of examples that are cut around a structure.
        augmentation: random changes of an example.
        confidence: whether confidence maps weigh the loss (CAL); False trains on synthetic voxels as on real ones.
        training: the loop's settings.
    """

    network: SegmenterSettings = SegmenterSettings()
    crop: tuple[int, ...] = (64, 64, 64)
    foreground: float = pydantic.Field(default=0.6, ge=0, le=1)
    augmentation: Augmentation = Augmentation()
    confidence: bool = True
    training: TrainingSettings = TrainingSettings()

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "SegmentationStage":
        dims, multiple = self.network.spatial_dims, self.network.multiple
        if len(self.crop) != dims or any(n < 1 or n % multiple for n in self.crop):
            raise ValueError(f"crop {self.crop} must be {dims} multiples of {multiple}, the product of the strides")
        if any(not 0 <= axis < dims for axis in self.augmentation.flip_axes):
            raise ValueError(f"flip_axes {self.augmentation.flip_axes} must lie in 0 .. {dims - 1}")
        return self


class SegmentationTask:
    """A segmenter as the loop trains it.

    Args:
        volumes: what it learns from; each is drawn equally often.
        network: from ``build_segmenter``.
        stage: how.

    Raises:
        InputError: no volume, or one that is smaller than the crop.
    """

    def __init__(self, volumes: Sequence[TrainingVolume], network: nn.Module, stage: SegmentationStage):
        self.volumes, self.module, self.stage = volumes, network, stage
        if not volumes:
            raise InputError("there is no case to train the segmenter on; give a dataset with masks.")
        for volume in volumes:
            if len(volume.shape) != len(stage.crop) or any(
                n < c for n, c in zip(volume.shape, stage.crop, strict=True)
            ):
                raise InputError(
                    f"case {volume.case_id} has a grid of {volume.shape}, too small for crops of {stage.crop}; prepare "
                    "it on a larger grid or set a smaller segmenter.crop."
                )

    def players(self) -> list[Player]:
        """Return the one player."""
        return [Player(STAGE, list(self.module.parameters()), self._loss)]

    def batch(self, generators: Sequence[torch.Generator]) -> Batch:
        """Return ``image``, ``classes`` and ``confidence``, each (b, 1, *crop)."""
        examples = [self._example(rng) for rng in generators]
        return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}

    def _example(self, rng: torch.Generator) -> dict[str, Tensor]:
        volume = self.volumes[draw_int(len(self.volumes), rng)]
        where = draw_crop(volume, self.stage.crop, self.stage.foreground, rng)
        image, classes = volume.image[where].float(), volume.classes[where]
        weight = volume.confidence if self.stage.confidence else None
        confidence = torch.ones_like(image) if weight is None else weight[where].float()
        flips = self.stage.augmentation.flips(rng)
        example = {"image": self.stage.augmentation.change(image, rng), "classes": classes, "confidence": confidence}
        return {name: value.flip(flips) for name, value in example.items()}

    def _loss(self, batch: Batch) -> dict[str, Tensor]:
        image = batch["image"].contiguous(memory_format=fast_memory_format(self.stage.network.spatial_dims))
        parts = cal_parts(self.module(image), batch["classes"], batch["confidence"])
        return {"total": parts["cross_entropy"] + parts["dice"], **parts}


def train_segmenter(
    cases: Sequence[Case],
    run: Path,
    stage: SegmentationStage,
    scale: IntensityScale,
    *,
    init: Path | None = None,
    facts: dict[str, Any] | None = None,
    device: str = "cpu",
    label: str = "train segmenter",
) -> Path:
    """Train a segmenter on annotated cases; the same call goes on after a stop.

    Args:
        cases: real and synthetic ones, all with masks of the same target structures. Those with a confidence map are
            weighted by it.
        run: the stage's folder, ``RUN/segmenter``.
        stage: how.
        scale: how it sees intensities.
        init: a segmenter's run or checkpoint, or a safetensors file, to start from (pre-train, then fine-tune).
        facts: JSON-like facts for the record, e.g. which data it learned from.
        device: ``cpu`` or ``cuda``.
        label: what is being trained, for progress and messages.

    Returns:
        The last checkpoint.

    Raises:
        InputError: fewer than two cases, cases that do not suit each other or the settings, weights that do not fit, or
            a run begun with other settings.
    """
    if len(cases) < 2:
        raise InputError(f"{len(cases)} case is too few to train a segmenter; give at least two with masks.")
    labels = cases[0].labels
    classes = target_classes(labels)
    network = build_segmenter(stage.network, classes, stage.training.seed)
    started_from = None if init is None else load_weights(network, stage_folder(init))
    volumes = []
    for case in cases:
        check_structures(case, labels)
        volumes.append(training_volume(case, scale, classes))
    task = SegmentationTask(volumes, network, stage)
    facts = {**(facts or {}), "cases": len(cases), "init": started_from}
    return fit(task, stage.training, run, segmenter_record(stage, labels, scale, facts), device=device, label=label)


def segmenter_record(
    stage: SegmentationStage, labels: LabelTable, scale: IntensityScale, facts: dict[str, Any]
) -> dict[str, Any]:
    """Return what a segmenter's checkpoint says of itself."""
    return {
        "stage": STAGE,
        "settings": stage.model_dump(mode="json"),
        "labels": labels.model_dump(mode="json"),
        "classes": target_classes(labels).model_dump(mode="json"),
        "intensity": scale.model_dump(mode="json"),
        **facts,
    }


def check_structures(case: Case, labels: LabelTable) -> None:
    """See that the case's target structures are those of ``labels``.

    Raises:
        InputError: they are not.
    """
    own, wanted = ({label.code: label.name for label in table.targets} for table in (case.labels, labels))
    if own != wanted:
        code = min(code for code in own.keys() | wanted.keys() if own.get(code) != wanted.get(code))
        raise InputError(
            f"case {case.case_id}: code {code} is {own.get(code, 'nothing')} and {wanted.get(code, 'nothing')} in the "
            "other cases; bring all cases to one label table."
        )


def stage_folder(run: Path) -> Path:
    """Return the segmenter's folder of a run, or ``run`` itself where it is one, a checkpoint or a file of weights."""
    return run / STAGE if (run / STAGE).is_dir() else run
