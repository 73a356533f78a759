"""Training of a segmenter: plain, with synthetic cases weighted by their confidence, or from another's weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic
import torch
from torch import Tensor, nn

from cardiosynth import __version__
from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.random import draw_int
from cardiosynth.data.loader import CaseCache
from cardiosynth.data.preparation import recorded_preparation
from cardiosynth.segmentation.augmentation import Augmentation
from cardiosynth.segmentation.losses import ConfidenceWeights, cal_parts
from cardiosynth.segmentation.networks import SegmenterSettings, build_segmenter, fast_memory_format, target_classes
from cardiosynth.training.loop import Batch, Player, TrainingSettings, fit
from cardiosynth.training.state import load_weights

STAGE = "segmenter"


class SegmentationStage(Settings):
    """Everything that decides how a segmenter is trained.

    Attributes:
        network: its size.
        crop: voxels per axis of an example, and of the window it predicts with.
        foreground: share of examples that are centered on a structure, each structure alike, so that thin ones are
            met as often as large ones.
        augmentation: random changes of an example.
        confidence: how confidence maps weigh the loss (CAL); None trains on synthetic voxels as on real ones.
        training: the loop's settings.
    """

    network: SegmenterSettings = SegmenterSettings()
    crop: tuple[int, ...] = (64, 64, 64)
    foreground: float = pydantic.Field(default=0.6, ge=0, le=1)
    augmentation: Augmentation = Augmentation()
    confidence: ConfidenceWeights | None = ConfidenceWeights()
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
        cache: what it learns from, all with masks and confidence as :func:`weighted` leaves it; each case is drawn
            equally often.
        network: from ``build_segmenter``, for the target classes of the cache's label table.
        stage: how.

    Raises:
        InputError: cases with another number of axes than the network, or with other target structures.
    """

    def __init__(self, cache: CaseCache, network: nn.Module, stage: SegmentationStage):
        self.cache, self.module, self.stage = cache, network, stage
        self.classes = target_classes(cache.labels)
        weights = stage.confidence or ConfidenceWeights()
        self._factors = [weights.factor(cache.mean_confidence(index)) for index in range(len(cache))]
        for case in cache.cases:
            check_axes(case, stage.network)
            check_structures(case, cache.labels)

    def players(self) -> list[Player]:
        """Return the one player."""
        return [Player(STAGE, list(self.module.parameters()), self._loss)]

    def batch(self, generators: Sequence[torch.Generator]) -> Batch:
        """Return ``image`` (model units), ``classes`` and ``confidence``, each (b, 1, *crop), and ``index`` (b,).

        Confidence is a weight, 0 or more.
        """
        examples = [self._example(rng) for rng in generators]
        return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}

    def case_names(self, batch: Batch) -> list[str]:
        """Return the names of the cases of a batch."""
        return [self.cache.case_ids[index] for index in batch["index"].tolist()]

    def _example(self, rng: torch.Generator) -> dict[str, Tensor]:
        index, structures = draw_int(len(self.cache), rng), self.classes.codes[1:]
        centered = float(torch.rand((), generator=rng)) < self.stage.foreground
        codes = (structures[draw_int(len(structures), rng)],) if centered else ()
        crop = self.cache.crop(index, self.stage.crop, rng, codes)
        assert crop.mask is not None, "the cache was asked for masks"
        example = {
            "image": self.stage.augmentation.change(crop.image, rng),
            "classes": torch.from_numpy(self.classes.from_codes(crop.mask.numpy())),
            "confidence": crop.confidence * self._factors[index],
        }
        flips = self.stage.augmentation.draw_flips(rng)
        return {"index": torch.tensor(index)} | {name: value.flip(flips) for name, value in example.items()}

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
    device: str = "cpu",
    label: str = "train segmenter",
) -> Path:
    """Train a segmenter on annotated cases; the same call goes on after a stop.

    Args:
        cases: real and synthetic ones, all with masks of the same target structures. Those with a confidence map are
            weighted by it; in the others every voxel counts alike.
        run: the run's folder; the stage is written to ``run/segmenter``.
        stage: how.
        scale: how it sees intensities.
        init: a segmenter's run or checkpoint, or a safetensors file, to start from (pre-train, then fine-tune).
        device: ``cpu`` or ``cuda``.
        label: what is being trained, for progress and messages.

    Returns:
        The last checkpoint. Its ``record.json`` holds ``stage``, ``settings`` (of the stage), ``labels``, ``classes``,
        ``intensity``, ``cases``, ``licences`` of the data, ``init``, ``code_version``, and what the loop adds.

    Raises:
        InputError: fewer than two cases, cases that do not suit each other or the settings, weights that do not fit, or
            a run begun with other settings.
    """
    prepared = recorded_preparation(cases)
    cache = CaseCache([weighted(case, stage.confidence) for case in cases], scale, needs_masks=True)
    network = build_segmenter(stage.network, target_classes(cache.labels), stage.training.seed)
    started_from = None if init is None else load_weights(network, stage_folder(init))
    task = SegmentationTask(cache, network, stage)
    record = {**segmenter_record(cache, stage, scale, started_from), **prepared}
    return fit(task, stage.training, run / STAGE, record, device=device, label=label)


def weighted(case: Case, weights: ConfidenceWeights | None) -> Case:
    """Return ``case`` with its confidence map floored, or without one where it is not to weigh anything."""
    if case.confidence is None or weights is None:
        return case.with_(confidence=None)
    return case.with_(confidence=weights.floored(torch.from_numpy(case.confidence)).numpy())


def segmenter_record(
    cache: CaseCache, stage: SegmentationStage, scale: IntensityScale, init: str | None = None
) -> dict[str, Any]:
    """Return what a segmenter's checkpoint says of itself."""
    return {
        "stage": STAGE,
        "settings": stage.model_dump(mode="json"),
        "labels": cache.labels.model_dump(mode="json"),
        "classes": target_classes(cache.labels).model_dump(mode="json"),
        "intensity": scale.model_dump(mode="json"),
        "cases": list(cache.case_ids),
        "licences": sorted({str(case.provenance.get("licence", "unknown")) for case in cache.cases}),
        "init": init,
        "code_version": __version__,
    }


def check_axes(case: Case, network: SegmenterSettings) -> None:
    """See that the network takes a case of this many axes.

    Raises:
        InputError: it does not.
    """
    axes = len(case.grid.shape)
    if axes != network.spatial_dims:
        raise InputError(
            f"case {case.case_id} has {axes} axes and the segmenter takes {network.spatial_dims}; set "
            f"segmenter.network.spatial_dims to {axes} and train one for it."
        )


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
