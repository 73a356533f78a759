"""Pre-training without annotations: a segmentation network learns to paint what was cut out of its images.

The auxiliary task of FQCDM's second strategy, after the context encoder (Pathak et al. 2016): squares that hold a
quarter of an image are painted over, and the network is asked for what was there. Its encoder and decoder then start a
segmenter; the head, which alone knows how many channels there are, is drawn anew.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pydantic
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.random import draw_int
from cardiosynth.core.store import load_tensors, save_tensors, whole_file
from cardiosynth.data.loader import CaseCache
from cardiosynth.data.preparation import check_window, recorded_preparation
from cardiosynth.segmentation.augmentation import Augmentation
from cardiosynth.segmentation.checks import check_axes
from cardiosynth.segmentation.networks import (
    HEADS,
    Classes,
    SegmenterSettings,
    build_network,
    build_segmenter,
    check_crop,
    fast_memory_format,
)
from cardiosynth.segmentation.records import read_stage, training_record
from cardiosynth.segmentation.spatial import draw_crop
from cardiosynth.training.loop import Batch, Player, TrainingSettings, fit
from cardiosynth.training.state import load_strictly

STAGE = "inpainting"


class Holes(Settings):
    """What is cut out of an example.

    Attributes:
        share: of its voxels. Published (context encoder): a quarter.
        count: squares (of volumes: blocks), each as large as the others.
        placement: ``random``, where squares may overlap and less is then cut out, or ``center``, of one square.
    """

    share: float = pydantic.Field(default=0.25, gt=0, lt=1)
    count: int = pydantic.Field(default=4, ge=1)
    placement: Literal["random", "center"] = "random"

    @pydantic.model_validator(mode="after")
    def _one_center(self) -> "Holes":
        if self.placement == "center" and self.count != 1:
            raise ValueError("placement center cuts out one square; set count to 1")
        return self

    def draw(self, shape: Sequence[int], rng: torch.Generator) -> Bool[Tensor, "1 *grid"]:
        """Return where an example of ``shape`` is cut out."""
        factor = (self.share / self.count) ** (1 / len(shape))
        sides = [max(1, round(n * factor)) for n in shape]
        cut = torch.zeros(1, *shape, dtype=torch.bool)
        for _ in range(self.count):
            corner = [(n - side) // 2 for n, side in zip(shape, sides, strict=True)]
            if self.placement == "random":
                corner = [draw_int(n - side + 1, rng) for n, side in zip(shape, sides, strict=True)]
            cut[(0, *(slice(c, c + side) for c, side in zip(corner, sides, strict=True)))] = True
        return cut


class InpaintingStage(Settings):
    """Everything that decides how a network learns to paint.

    Attributes:
        network: that of the segmenter which is to start from it.
        crop: voxels per axis of an example.
        holes: what is cut out.
        augmentation: random changes of an example; the network is asked for the changed image.
        training: the loop's settings.
    """

    network: SegmenterSettings = SegmenterSettings(spatial_dims=2)
    crop: tuple[int, ...] = (128, 128)
    holes: Holes = Holes()
    augmentation: Augmentation = Augmentation()
    training: TrainingSettings = TrainingSettings()

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "InpaintingStage":
        check_crop(self.network, self.crop)
        return self


class InpaintingTask:
    """A network that paints, as the loop trains it.

    Args:
        cache: images; masks and confidence are not looked at.
        network: (b 1 *grid) -> (b 1 *grid), from ``build_network``.
        stage: how.

    Raises:
        InputError: cases with another number of axes than the network.
    """

    def __init__(self, cache: CaseCache, network: nn.Module, stage: InpaintingStage):
        self.cache, self.module, self.stage = cache, network, stage
        for case in cache.cases:
            check_axes(case, stage.network)

    def players(self) -> list[Player]:
        """Return the one player."""
        return [Player(STAGE, list(self.module.parameters()), self._loss)]

    def batch(self, generators: Sequence[torch.Generator]) -> Batch:
        """Return ``image`` (model units), ``cut`` and ``inside`` (bool), each (b, 1, *crop), and ``index`` (b,)."""
        examples = [self._example(rng) for rng in generators]
        return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}

    def case_names(self, batch: Batch) -> list[str]:
        """Return the names of the cases of a batch."""
        return [self.cache.case_ids[index] for index in batch["index"].tolist()]

    def _example(self, rng: torch.Generator) -> dict[str, Tensor]:
        index, augmentation = draw_int(len(self.cache), rng), self.stage.augmentation
        crop = draw_crop(self.cache, index, self.stage.crop, augmentation.spatial, rng)
        image, flips = augmentation.change(crop.image, rng), augmentation.draw_flips(rng)
        cut = self.stage.holes.draw(self.stage.crop, rng)
        return {
            "index": torch.tensor(index), "image": image.flip(flips), "cut": cut,
            "inside": (crop.confidence == 1).flip(flips),
        }  # fmt: skip

    def _loss(self, batch: Batch) -> dict[str, Tensor]:
        image, cut = batch["image"], batch["cut"]
        mean = seen_mean(image, cut)
        shown = torch.where(cut, mean, image)
        shown = shown.contiguous(memory_format=fast_memory_format(self.stage.network.spatial_dims))
        # Networks that normalize instances do not know an image's mean; it is told, not asked for.
        return inpainting_parts(mean + self.module(shown), image, cut, batch["inside"])


def seen_mean(image: Float[Tensor, "b 1 *grid"], cut: Bool[Tensor, "b 1 *grid"]) -> Float[Tensor, "b 1 *_"]:
    """Return the mean of each image over what is not cut out, with as many axes: what holes are filled with."""
    axes, seen = tuple(range(1, image.ndim)), ~cut
    return (image * seen).sum(axes, keepdim=True) / seen.sum(axes, keepdim=True).clamp_min(1)


def inpainting_parts(
    painted: Float[Tensor, "b 1 *grid"],
    image: Float[Tensor, "b 1 *grid"],
    cut: Bool[Tensor, "b 1 *grid"],
    inside: Bool[Tensor, "b 1 *grid"],
) -> dict[str, Float[Tensor, ""]]:
    """Return the mean squared error over what was cut out (Pathak et al. 2016, Eq. 1), and beside it over the rest.

    Only the first is descended: what was not cut out is there to be copied. What lies beyond the case counts nowhere.
    An example of which nothing counts has the loss 0.

    Args:
        painted: the network's images, in model units.
        image: what should be there.
        cut: what the network did not see.
        inside: voxels of the case.
    """
    error, axes = (painted.float() - image.float()).square(), tuple(range(1, image.ndim))

    def over(where: Tensor) -> Tensor:
        return ((error * where).sum(axes) / where.sum(axes).clamp_min(1)).mean()

    return {"total": over(cut & inside), "seen": over(~cut & inside)}


def train_inpainting(
    cases: Sequence[Case],
    run: Path,
    stage: InpaintingStage,
    scale: IntensityScale,
    *,
    device: str = "cpu",
    label: str = "train in-painting",
) -> Path:
    """Train a network to paint; the same call goes on after a stop.

    Args:
        cases: with images.
        run: the run's folder; the stage is written to ``run/inpainting``.
        stage: how.
        scale: how it sees intensities.
        device: ``cpu`` or ``cuda``.
        label: what is being trained, for progress and messages.

    Returns:
        The last checkpoint; see `training_record`.

    Raises:
        InputError: fewer than two cases, cases that do not suit the settings, or a run begun with other settings.
    """
    check_window(cases, scale)
    cache = CaseCache(cases, scale)
    network = build_network(stage.network, 1, stage.training.seed)
    task = InpaintingTask(cache, network, stage)
    record = {**training_record(STAGE, stage, cache, scale, None), **recorded_preparation(cases)}
    return fit(task, stage.training, run / STAGE, record, device=device, label=label)


def segmenter_start(
    run: Path, out: Path, network: SegmenterSettings, classes: Classes, scale: IntensityScale, seed: int = 0
) -> Path:
    """Write the weights a segmenter starts from: those of a network that paints, and a head drawn from ``seed``.

    Args:
        run: with a trained in-painting.
        out: the ``.safetensors`` file, for ``train_segmenter``'s ``init``. The same arguments give the same bits.
        network: of the segmenter.
        classes: of the segmenter.
        scale: how the segmenter sees intensities.
        seed: of the head.

    Raises:
        InputError: no checkpoint of an in-painting, or one of another network or other intensities.
    """
    checkpoint, record = read_stage(run, STAGE)
    for value, theirs, what in (
        (network, record["settings"]["network"], "another network than the segmenter"),
        (scale, record["intensity"], "of other intensities than the segmenter"),
    ):
        if value.model_dump(mode="json") != theirs:
            raise InputError(f"{checkpoint} is {what} that is to start from it; give both the same settings.")
    segmenter, head = build_segmenter(network, classes, seed), HEADS[network.kind]
    learned = load_tensors(checkpoint / "model.safetensors")
    own = segmenter.state_dict()
    load_strictly(segmenter, {name: (own if name.startswith(head) else learned)[name] for name in own}, checkpoint)
    with whole_file(out) as partial:
        save_tensors(segmenter.state_dict(), partial)
    return out
