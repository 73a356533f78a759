"""Training of MedSAM on slices: a box around a structure goes in, the structure is to come out."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydantic
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale, Window
from cardiosynth.core.progress import Progress, say
from cardiosynth.core.random import draw_int
from cardiosynth.data.loader import CaseCache
from cardiosynth.data.preparation import recorded_preparation
from cardiosynth.segmentation.checks import check_structures
from cardiosynth.segmentation.losses import ConfidenceWeights
from cardiosynth.segmentation.medsam.embeddings import EmbeddingCache, read_embedding
from cardiosynth.segmentation.medsam.losses import medsam_parts
from cardiosynth.segmentation.medsam.network import ENCODER, MedsamNetwork, build_medsam, image_embeddings, mask_logits
from cardiosynth.segmentation.medsam.slices import (
    Plane,
    as_square,
    box_of,
    cut_axis,
    slice_areas,
    slice_place,
    square_weights,
    upright,
    widened,
)
from cardiosynth.segmentation.records import read_stage, training_record
from cardiosynth.segmentation.task import weighted
from cardiosynth.training.loop import Batch, Player, TrainingSettings, fit
from cardiosynth.training.state import load_weights

STAGE = "medsam"
SCALE = IntensityScale(window=Window(low=-200.0, high=600.0))
"""Level 200 HU, width 800: contrast-filled chambers and coronaries of CT angiography, at 300 to 500 HU, keep shades."""
PUBLISHED_SCALE = IntensityScale(window=Window(low=-160.0, high=240.0))
"""MedSAM's for soft tissue, level 40 HU, width 400. For MR it takes percentiles 0.5 and 99.5 of each volume, as we."""


class MedsamStage(Settings):
    """Everything that decides how MedSAM is trained.

    Attributes:
        network: its size.
        plane: how volumes are cut: ``short-axis`` across their own slice axis, or ``axial``.
        box_shift: how far a box's sides move outward in training at most, as a share of the square's side. Published:
            20 of 1024 pixels.
        smallest_area: pixels of a slice, of those with any confidence, that a structure must have to be learned there.
            Published: 100, which is more than a coronary artery has.
        freeze_encoder: train the decoder only. Published: both.
        cache_embeddings: keep what the frozen encoder makes of each slice on disk.
        confidence: how confidence maps weigh the loss (CAL); None trains on synthetic pixels as on real ones.
        epochs: times that as many examples are drawn as there are slices to learn from; None counts steps instead.
            Published (FCaS): 800 on synthetic and 200 on real cases, against 1000 on real ones.
        training: the loop's settings; published (MedSAM) AdamW, 1e-4, decay 0.01, no average of weights.
    """

    network: MedsamNetwork = MedsamNetwork()
    plane: Plane = "short-axis"
    box_shift: float = pydantic.Field(default=20 / 1024, ge=0, le=1)
    smallest_area: int = pydantic.Field(default=1, ge=1)
    freeze_encoder: bool = False
    cache_embeddings: bool = False
    confidence: ConfidenceWeights | None = ConfidenceWeights()
    epochs: int | None = pydantic.Field(default=None, ge=1)
    training: TrainingSettings = TrainingSettings(learning_rate=1e-4, weight_decay=0.01, ema_decay=0.0)

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "MedsamStage":
        if self.cache_embeddings and not self.freeze_encoder:
            raise ValueError("cache_embeddings needs freeze_encoder: what a moving encoder sees is new at every step")
        return self


class Place(NamedTuple):
    """A slice to learn from.

    Attributes:
        case: index of its case.
        axis: that the case is cut across, None where it is a slice itself.
        position: index of the slice along it.
        codes: the target structures that it shows.
    """

    case: int
    axis: int | None
    position: int
    codes: tuple[int, ...]


class MedsamTask:
    """MedSAM as the loop trains it.

    Args:
        cache: what it learns from, all with masks and confidence as :func:`weighted` leaves it. Each slice that shows a
            target structure is drawn equally often, and each structure in it, as published.
        network: from `build_medsam`.
        stage: how.

    Raises:
        InputError: cases with other target structures, or no slice to learn from.
    """

    def __init__(self, cache: CaseCache, network: nn.Module, stage: MedsamStage):
        self.cache, self.module, self.stage = cache, network, stage
        weights = stage.confidence or ConfidenceWeights()
        self._factors = [weights.factor(cache.mean_confidence(index)) for index in range(len(cache))]
        self._embeddings: dict[Place, Path] = {}
        network.get_submodule(ENCODER).requires_grad_(not stage.freeze_encoder)
        for case in cache.cases:
            check_structures(case, cache.labels)
        self.places = [place for index in range(len(cache)) for place in _places(cache, index, stage)]
        if not self.places:
            raise InputError(
                f"no slice shows a target structure with {stage.smallest_area} pixels; lower medsam.smallest_area."
            )

    def players(self) -> list[Player]:
        """Return the one player: what is not frozen."""
        moving = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        return [Player(STAGE, moving, self._loss)]

    def batch(self, generators: Sequence[torch.Generator]) -> Batch:
        """Return ``image`` (b, 1, s, s) in model units, or its ``embedding``, ``target`` and ``confidence``, ``box``.

        One structure of one slice each: target (b, 1, s, s) is 0 or 1, confidence a weight, 0 or more, and box
        (b, 1, 4) in pixels of the square; ``index`` (b,) is the case.
        """
        examples = [self._example(rng) for rng in generators]
        return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}

    def case_names(self, batch: Batch) -> list[str]:
        """Return the names of the cases of a batch."""
        return [self.cache.case_ids[index] for index in batch["index"].tolist()]

    def keep_embeddings(self, embeddings: EmbeddingCache) -> None:
        """See every slice once and read its embedding from there on; the room that they take on disk is said before."""
        room_gb = embeddings.size_gb(len(self.places), self.stage.network)
        say(f"embeddings of {len(self.places)} slices take {room_gb:.1f} GB in {embeddings.folder}")
        left = [place for place in self.places if place not in self._embeddings]
        with Progress("embed slices", len(self.places), len(self.places) - len(left)) as progress:
            for place in left:
                self._embeddings[place] = embeddings.keep(self.picture(place))
                progress.update()

    def picture(self, place: Place) -> Float[Tensor, "1 s s"]:
        """Return what the encoder is given of a slice."""
        return as_square(
            _upright(self.cache.image(place.case, self._where(place)), place), self.stage.network.image_size
        )

    def _example(self, rng: torch.Generator) -> dict[str, Tensor]:
        place, size = self.places[draw_int(len(self.places), rng)], self.stage.network.image_size
        code, where = place.codes[draw_int(len(place.codes), rng)], self._where(place)
        inside = _upright(self.cache.mask(place.case, where), place) == code
        confidence = _upright(self.cache.confidence(place.case, where), place) * self._factors[place.case]
        trusted = inside & (confidence > 0)  # a label that counts for nothing must not move the box either
        if place in self._embeddings:
            seen = {"embedding": read_embedding(self._embeddings[place])}
        else:
            seen = {"image": self.picture(place)}
        return seen | {
            "target": square_weights(inside.float(), size),
            "confidence": square_weights(confidence, size),
            "box": widened(box_of(trusted[0], size), self.stage.box_shift, size, rng)[None],
            "index": torch.tensor(place.case),
        }

    def _where(self, place: Place) -> tuple[slice, ...]:
        return slice_place(place.axis, place.position, len(self.cache.cases[place.case].grid.shape))

    def _loss(self, batch: Batch) -> dict[str, Tensor]:
        if "embedding" in batch:
            embeddings = batch["embedding"]
        else:
            with torch.set_grad_enabled(not self.stage.freeze_encoder):
                embeddings = image_embeddings(self.module, batch["image"])
        logits = mask_logits(self.module, embeddings, batch["box"]).float()
        logits = F.interpolate(logits, batch["target"].shape[-2:], mode="bilinear", align_corners=False)
        parts = medsam_parts(logits, batch["target"], batch["confidence"])
        return {"total": parts["cross_entropy"] + parts["dice"], **parts}


def train_medsam(
    cases: Sequence[Case],
    run: Path,
    stage: MedsamStage,
    scale: IntensityScale = SCALE,
    *,
    init: Path | None = None,
    embeddings: Path | None = None,
    device: str = "cpu",
    label: str = "train medsam",
) -> Path:
    """Train MedSAM on annotated cases; the same call goes on after a stop.

    Args:
        cases: volumes or slices, real and synthetic ones, all with masks of the same target structures. Those with a
            confidence map are weighted by it; in the others every pixel counts alike.
        run: the run's folder; the stage is written to ``run/medsam``.
        stage: how.
        scale: how it sees intensities; the one of the weights that it starts from, or better for these images.
        init: a run or checkpoint of MedSAM (from `import_medsam`, or trained here) to start from; None for nothing.
        embeddings: folder of cached embeddings, which runs with the same encoder may share; None for
            ``run/embeddings``.
        device: ``cpu`` or ``cuda``.
        label: what is being trained, for progress and messages.

    Returns:
        The last checkpoint. Its ``record.json`` holds what a segmenter's does, ``licences`` those of ``init`` too.

    Raises:
        InputError: fewer than two cases, cases that do not suit each other or the settings, weights that do not fit, or
            a run begun with other settings.
    """
    prepared = recorded_preparation(cases)
    cache = CaseCache([weighted(case, stage.confidence) for case in cases], scale, needs_masks=True)
    network = build_medsam(stage.network, stage.training.seed)
    started_from, licences = (None, []) if init is None else _start(network, init)
    task = MedsamTask(cache, network, stage)
    if stage.cache_embeddings:
        folder, precision = embeddings or run / "embeddings", stage.training.precision
        task.keep_embeddings(EmbeddingCache(folder, network, torch.device(device), precision))
    training = _with_steps(stage, len(task.places))
    record = {**training_record(STAGE, stage, cache, scale, started_from), **prepared}
    record["licences"] = sorted({*record["licences"], *licences})
    return fit(task, training, run / STAGE, record, device=device, label=label)


def _start(network: nn.Module, init: Path) -> tuple[str, list[str]]:
    """Load the weights to start from and return their fingerprint and licences."""
    checkpoint, record = read_stage(init, STAGE)
    return load_weights(network, checkpoint), record["licences"]


def _with_steps(stage: MedsamStage, num_slices: int) -> TrainingSettings:
    if stage.epochs is None:
        return stage.training
    steps = -(-stage.epochs * num_slices // stage.training.batch_size)
    return stage.training.model_copy(update={"steps": steps})


def _places(cache: CaseCache, index: int, stage: MedsamStage) -> list[Place]:
    case, codes = cache.cases[index], cache.labels.target_codes
    axis = cut_axis(case, stage.plane)
    trusted = np.where(cache.confidence(index).numpy() > 0, case.required_mask(), 0)
    areas = [slice_areas(trusted, axis, code) for code in codes]
    shown = [
        tuple(c for c, n in zip(codes, row, strict=True) if n >= stage.smallest_area)
        for row in zip(*areas, strict=True)
    ]
    return [Place(index, axis, i, here) for i, here in enumerate(shown) if here]


def _upright(values: Tensor, place: Place) -> Tensor:
    """Return a slice (1, *grid) that is one voxel thick as it is seen, (1, rows, columns)."""
    return upright(values[0] if place.axis is None else values[0].squeeze(place.axis))[None]
