"""Training of a segmenter: plain, with synthetic cases weighted by their confidence, or from another's weights."""

from collections.abc import Sequence
from pathlib import Path

import pydantic
import torch
from torch import Tensor, nn

from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.random import draw_int
from cardiosynth.data.loader import CaseCache
from cardiosynth.data.preparation import recorded_preparation
from cardiosynth.segmentation.augmentation import Augmentation
from cardiosynth.segmentation.checks import check_axes, check_datasets, check_start, check_structures
from cardiosynth.segmentation.losses import ConfidenceWeights, cal_parts
from cardiosynth.segmentation.networks import (
    SegmenterSettings,
    build_segmenter,
    check_crop,
    fast_memory_format,
    target_classes,
)
from cardiosynth.segmentation.records import stage_folder, training_record
from cardiosynth.segmentation.spatial import draw_crop
from cardiosynth.training.loop import Batch, Player, TrainingSettings, fit
from cardiosynth.training.state import load_weights

STAGE = "segmenter"


class SegmentationStage(Settings):
    """Everything that decides how a segmenter is trained.

    Attributes:
        network: which one, and its size.
        crop: voxels per axis of an example, and of the window it predicts with.
        foreground: share of examples that are centered on a structure, each structure alike, so that thin ones are
            met as often as large ones.
        augmentation: random changes of an example.
        confidence: how confidence maps weigh the loss (CAL); None trains on synthetic voxels as on real ones.
        shares: where datasets are mixed, how often each is drawn in proportion to the others, as real:synthetic 1:4;
            none draws every case equally often, whichever dataset it is of.
        training: the loop's settings.
    """

    network: SegmenterSettings = SegmenterSettings()
    crop: tuple[int, ...] = (64, 64, 64)
    foreground: float = pydantic.Field(default=0.6, ge=0, le=1)
    augmentation: Augmentation = Augmentation()
    confidence: ConfidenceWeights | None = ConfidenceWeights()
    shares: tuple[pydantic.PositiveFloat, ...] = ()
    training: TrainingSettings = TrainingSettings()

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "SegmentationStage":
        check_crop(self.network, self.crop)
        dims = self.network.spatial_dims
        if any(not 0 <= axis < dims for axis in self.augmentation.flip_axes):
            raise ValueError(f"flip_axes {self.augmentation.flip_axes} must lie in 0 .. {dims - 1}")
        return self


class SegmentationTask:
    """A segmenter as the loop trains it.

    Args:
        cache: what it learns from, all with masks and confidence as :func:`weighted` leaves it. Each case of a dataset
            is drawn equally often.
        network: from ``build_segmenter``, for the target classes of the cache's label table.
        stage: how.
        sizes: how many of the cases each dataset has, in the cache's order; none where there is one.

    Raises:
        InputError: cases with another number of axes than the network, or with other target structures.
    """

    def __init__(self, cache: CaseCache, network: nn.Module, stage: SegmentationStage, sizes: Sequence[int] = ()):
        assert sum(sizes) in (0, len(cache)), (sizes, len(cache))
        self.cache, self.module, self.stage, self._sizes = cache, network, stage, tuple(sizes)
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
        index, structures = self._draw_case(rng), self.classes.codes[1:]
        centered = float(torch.rand((), generator=rng)) < self.stage.foreground
        codes = (structures[draw_int(len(structures), rng)],) if centered else ()
        crop = draw_crop(self.cache, index, self.stage.crop, self.stage.augmentation.spatial, rng, codes)
        assert crop.mask is not None, "the cache was asked for masks"
        example = {
            "image": self.stage.augmentation.change(crop.image, rng),
            "classes": torch.from_numpy(self.classes.from_codes(crop.mask.numpy())),
            "confidence": crop.confidence * self._factors[index],
        }
        flips = self.stage.augmentation.draw_flips(rng)
        return {"index": torch.tensor(index)} | {name: value.flip(flips) for name, value in example.items()}

    def _draw_case(self, rng: torch.Generator) -> int:
        """Draw a dataset by its share, if there are shares, and one of its cases."""
        if not self.stage.shares:
            return draw_int(len(self.cache), rng)
        dataset = int(torch.multinomial(torch.tensor(self.stage.shares), 1, generator=rng))
        return sum(self._sizes[:dataset]) + draw_int(self._sizes[dataset], rng)

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
    mixed_with: Sequence[Sequence] = (),
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
        mixed_with: further datasets, which ``stage.shares`` mixes with ``cases``.
        init: a segmenter's run or checkpoint, or a safetensors file, to start from (pre-train, then fine-tune).
        device: ``cpu`` or ``cuda``.
        label: what is being trained, for progress and messages.

    Returns:
        The last checkpoint. Its ``record.json`` holds ``stage``, ``settings`` (of the stage), ``labels``, ``classes``,
        ``intensity``, ``cases``, ``licences`` of the data, ``init``, ``code_version``, and what the loop adds.

    Raises:
        InputError: fewer than two cases, cases or datasets that do not suit each other or the settings, weights that do
            not fit or were trained on other structures or intensities, or a run begun with other settings.
    """
    datasets = [cases, *mixed_with]
    check_datasets(datasets, stage.shares, scale)
    weighted_cases = [weighted(case, stage.confidence) for dataset in datasets for case in dataset]
    cache = CaseCache(weighted_cases, scale, needs_masks=True)
    network = build_segmenter(stage.network, target_classes(cache.labels), stage.training.seed)
    started_from = None
    if init is not None:
        check_start(stage_folder(init, STAGE), cases, cache.labels, scale)
        started_from = load_weights(network, stage_folder(init, STAGE))
    sizes = [len(dataset) for dataset in datasets] if mixed_with else []
    task = SegmentationTask(cache, network, stage, sizes)
    record = {**training_record(STAGE, stage, cache, scale, started_from), **recorded_preparation(cases)}
    record["classes"] = task.classes.model_dump(mode="json")
    record |= {"datasets": sizes} if sizes else {}
    return fit(task, stage.training, run / STAGE, record, device=device, label=label)


def weighted(case: Case, weights: ConfidenceWeights | None) -> Case:
    """Return ``case`` with its confidence map floored, or without one where it is not to weigh anything."""
    if case.confidence is None or weights is None:
        return case.with_(confidence=None)
    return case.with_(confidence=weights.floored(torch.from_numpy(case.confidence)).numpy())
