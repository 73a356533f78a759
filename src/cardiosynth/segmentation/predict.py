"""Trained segmenters at work: masks for whole cases, window by window, slice by slice, by one network or several."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pydantic
import torch
from einops import rearrange
from jaxtyping import Float
from monai.inferers.inferer import SlidingWindowInferer
from torch import Tensor, nn

from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings, parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import LabelTable
from cardiosynth.segmentation.checks import check_axes
from cardiosynth.segmentation.networks import Classes, build_segmenter, fast_memory_format
from cardiosynth.segmentation.records import read_stage
from cardiosynth.segmentation.task import STAGE, SegmentationStage
from cardiosynth.training.settings import uses_bfloat16
from cardiosynth.training.state import load_weights

SLICES_AT_ONCE = 16


class PredictionSettings(Settings):
    """How whole cases are predicted.

    Attributes:
        overlap: share of a window along each axis that it has in common with the next.
        mirror_axes: axes (0 is X) along which the image is also seen mirrored, in every combination; predictions are
            averaged. For networks that were trained with ``flip_axes``, and as many times slower as there are
            combinations.
    """

    overlap: float = pydantic.Field(default=0.5, ge=0, lt=1)
    mirror_axes: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A trained network that knows what it takes and what it returns.

    Attributes:
        network: in eval mode.
        stage: how it was trained; its crop is the window of prediction.
        labels: what the codes of its masks mean.
        classes: which output channel is which code.
        scale: how it sees intensities.
        fingerprint: of its weights.
        device: where it computes.
        packed_from: fingerprint of the weights that these were rounded from, where they were packed.
    """

    network: nn.Module
    stage: SegmentationStage
    labels: LabelTable
    classes: Classes
    scale: IntensityScale
    fingerprint: str
    device: torch.device
    packed_from: str | None = None

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """All names that this network has in records."""
        return (self.fingerprint, *([self.packed_from] if self.packed_from else []))


def load_segmenter(run: Path, device: str = "cpu") -> Segmenter:
    """Load a segmenter, strictly.

    Args:
        run: a run, its ``segmenter`` folder, or one checkpoint; the newest is taken.
        device: ``cpu`` or ``cuda``.

    Raises:
        InputError: no checkpoint, one of another stage, or a damaged one.
    """
    checkpoint, record = read_stage(run, STAGE)
    origin = str(checkpoint / "record.json")
    stage = parse_settings(SegmentationStage, record["settings"], origin)
    classes = parse_settings(Classes, record["classes"], origin)
    network = build_segmenter(stage.network, classes)
    load_weights(network, checkpoint)
    return Segmenter(
        network=network.to(device).eval().requires_grad_(False),
        stage=stage,
        labels=parse_settings(LabelTable, record["labels"], origin),
        classes=classes,
        scale=parse_settings(IntensityScale, record["intensity"], origin),
        fingerprint=record["fingerprint"],
        device=torch.device(device),
        packed_from=record.get("packed", {}).get("fingerprint"),
    )


def predict_mask(segmenter: Segmenter, case: Case, settings: PredictionSettings | None = None) -> Case:
    """Return ``case`` with the mask that ``segmenter`` sees in its image; see :func:`predict_ensemble`."""
    return predict_ensemble([segmenter], case, settings)


def predict_ensemble(segmenters: Sequence[Segmenter], case: Case, settings: PredictionSettings | None = None) -> Case:
    """Return ``case`` with the mask that several segmenters see in its image together.

    The class of a voxel is that of the largest mean probability.

    Args:
        segmenters: of the same structures and intensities, as those of several folds are; one at least.
        case: a volume, which networks for slices see slice by slice along Z, or a slice.
        settings: overlap and mirroring; None for the defaults.

    Returns:
        The case with the segmenters' label table, a mask of its codes (surroundings are 0), no confidence map, and the
        segmenters' fingerprints, joined by ``+``, as ``segmented_by`` in its provenance.

    Raises:
        InputError: segmenters that differ, no image, one in another unit, a slice where volumes are wanted, or axes to
            mirror that the case does not have.
    """
    settings, first = settings or PredictionSettings(), segmenters[0]
    _check_together(segmenters)
    _check_suits(segmenters, case, settings)
    image = model_image(case, first.scale)[None]
    probabilities = sum(predict_probabilities(segmenter, image, settings) for segmenter in segmenters)
    classes = torch.as_tensor(probabilities)[0].argmax(0, keepdim=True)
    mask = first.classes.to_codes(classes.to(torch.uint8).cpu().numpy())
    provenance = {**case.provenance, "segmented_by": "+".join(one.fingerprint for one in segmenters)}
    return case.with_(mask=mask, labels=first.labels, confidence=None, provenance=provenance)


def predict_probabilities(
    segmenter: Segmenter, image: Float[Tensor, "1 1 *grid"], settings: PredictionSettings
) -> Float[Tensor, "1 c *grid"]:
    """Return the probability of every class in an image in model units, averaged over its mirror images."""
    views = list(_mirrored_axes(settings.mirror_axes))
    total = torch.zeros(())
    for axes in views:
        seen = _by_slices if image.ndim - 2 > segmenter.stage.network.spatial_dims else predict_logits
        total = total + seen(segmenter, image.flip(axes), settings).softmax(1).flip(axes).cpu()
    return total / len(views)


def _by_slices(
    segmenter: Segmenter, image: Float[Tensor, "1 1 x y z"], settings: PredictionSettings
) -> Float[Tensor, "1 c x y z"]:
    slices = rearrange(image, "1 1 x y z -> z 1 x y").split(SLICES_AT_ONCE)
    logits = torch.cat([predict_logits(segmenter, some, settings) for some in slices])
    return rearrange(logits, "z c x y -> 1 c x y z")


def _mirrored_axes(axes: Sequence[int]) -> Iterator[list[int]]:
    """Yield every combination of the tensor's axes (2 is X) to mirror, none first."""
    for count in range(len(axes) + 1):
        yield from ([axis + 2 for axis in some] for some in combinations(axes, count))


def _check_together(segmenters: Sequence[Segmenter]) -> None:
    first = segmenters[0]
    for other in segmenters[1:]:
        if (other.labels.targets, other.classes, other.scale) != (first.labels.targets, first.classes, first.scale):
            raise InputError(
                f"segmenters {first.fingerprint} and {other.fingerprint} were trained on other structures or "
                "intensities; put runs of the same dataset together."
            )


def _check_suits(segmenters: Sequence[Segmenter], case: Case, settings: PredictionSettings) -> None:
    axes = len(case.grid.shape)
    for segmenter in segmenters:
        if segmenter.stage.network.spatial_dims > axes:
            check_axes(case, segmenter.stage.network)
    if len(set(settings.mirror_axes)) < len(settings.mirror_axes) or not set(settings.mirror_axes) <= set(range(axes)):
        raise InputError(
            f"mirror_axes {settings.mirror_axes} must be different ones of 0 .. {axes - 1}, the axes of {case.case_id}."
        )


def model_image(case: Case, scale: IntensityScale) -> Float[Tensor, "1 *grid"]:
    """Return the case's image in model units, float32.

    Raises:
        InputError: no image, or one in another unit than the network's.
    """
    if case.intensity_unit != scale.unit:
        raise InputError(
            f"case {case.case_id} is in '{case.intensity_unit}' and the segmenter takes '{scale.unit}'; use one that "
            "was trained on that unit."
        )
    image = case.required_image()
    return torch.from_numpy(scale.window_of(image).to_model(image.astype(np.float32)))


@torch.inference_mode()
def predict_logits(
    segmenter: Segmenter, image: Float[Tensor, "b 1 *grid"], settings: PredictionSettings | None = None
) -> Float[Tensor, "b c *grid"]:
    """Return the logits of images in model units: Gaussian-weighted mean of overlapping windows.

    The window is the crop of training, since instance normalization sees what lies in it. Along an axis that is shorter
    it is the image's own length, filled up by repeating the border to what the network can take.
    """
    multiple, precision = segmenter.stage.network.multiple, segmenter.stage.training.precision
    overlap = (settings or PredictionSettings()).overlap
    window = [
        min(crop, -(-length // multiple) * multiple)
        for crop, length in zip(segmenter.stage.crop, image.shape[2:], strict=True)
    ]
    inferer = SlidingWindowInferer(window, overlap=overlap, mode="gaussian", padding_mode="replicate")

    def network(x: Tensor) -> Tensor:
        return segmenter.network(x.contiguous(memory_format=fast_memory_format(len(window)))).float()

    bfloat16 = uses_bfloat16(precision, segmenter.device)
    with torch.autocast(segmenter.device.type, torch.bfloat16, enabled=bfloat16):
        return torch.as_tensor(inferer(image.to(segmenter.device), network))
