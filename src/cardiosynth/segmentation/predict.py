"""A trained segmenter at work: masks for whole cases, window by window."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from monai.inferers.inferer import SlidingWindowInferer
from torch import Tensor, nn

from cardiosynth.core.case import Case
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.store import latest_checkpoint, read_json
from cardiosynth.segmentation.networks import Classes, build_segmenter, fast_memory_format
from cardiosynth.segmentation.task import STAGE, SegmentationStage, check_axes, stage_folder
from cardiosynth.training.settings import uses_bfloat16
from cardiosynth.training.state import load_weights

OVERLAP = 0.5


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
    """

    network: nn.Module
    stage: SegmentationStage
    labels: LabelTable
    classes: Classes
    scale: IntensityScale
    fingerprint: str
    device: torch.device


def load_segmenter(run: Path, device: str = "cpu") -> Segmenter:
    """Load a segmenter, strictly.

    Args:
        run: a run, its ``segmenter`` folder, or one checkpoint; the newest is taken.
        device: ``cpu`` or ``cuda``.

    Raises:
        InputError: no checkpoint, one of another stage, or a damaged one.
    """
    checkpoint = latest_checkpoint(stage_folder(Path(run)))
    record, origin = read_json(checkpoint / "record.json"), str(checkpoint / "record.json")
    if record.get("stage") != STAGE:
        raise InputError(
            f"{checkpoint} is a '{record.get('stage')}', not a {STAGE}; name a run with a trained {STAGE}."
        )
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
    )


def predict_mask(segmenter: Segmenter, case: Case) -> Case:
    """Return ``case`` with the mask that ``segmenter`` sees in its image.

    Returns:
        The case with the segmenter's label table, a mask of its codes (surroundings are 0), no confidence map, and
        the segmenter's fingerprint as ``segmented_by`` in its provenance.

    Raises:
        InputError: no image, one in another unit, or a slice where volumes are wanted.
    """
    check_axes(case, segmenter.stage.network)
    image = model_image(case, segmenter.scale)
    classes = predict_logits(segmenter, image[None])[0].argmax(0, keepdim=True)
    mask = segmenter.classes.to_codes(classes.to(torch.uint8).cpu().numpy())
    provenance = {**case.provenance, "segmented_by": segmenter.fingerprint}
    return case.with_(mask=mask, labels=segmenter.labels, confidence=None, provenance=provenance)


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
def predict_logits(segmenter: Segmenter, image: Float[Tensor, "1 1 *grid"]) -> Float[Tensor, "1 c *grid"]:
    """Return the logits of an image in model units: Gaussian-weighted mean of windows that overlap by half.

    The window is the crop of training, since instance normalization sees what lies in it. Along an axis that is shorter
    it is the image's own length, filled up by repeating the border to what the network can take.
    """
    multiple, precision = segmenter.stage.network.multiple, segmenter.stage.training.precision
    window = [
        min(crop, -(-length // multiple) * multiple)
        for crop, length in zip(segmenter.stage.crop, image.shape[2:], strict=True)
    ]
    inferer = SlidingWindowInferer(window, overlap=OVERLAP, mode="gaussian", padding_mode="replicate")

    def network(x: Tensor) -> Tensor:
        return segmenter.network(x.contiguous(memory_format=fast_memory_format(len(window)))).float()

    bfloat16 = uses_bfloat16(precision, segmenter.device)
    with torch.autocast(segmenter.device.type, torch.bfloat16, enabled=bfloat16):
        return torch.as_tensor(inferer(image.to(segmenter.device), network))
