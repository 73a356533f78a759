"""A trained MedSAM at work: boxes of a mask go in, a mask on the case's own grid comes out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cardiosynth.core.case import Case
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.store import fingerprint
from cardiosynth.data.dataset import Dataset
from cardiosynth.segmentation.medsam.embeddings import EmbeddingCache, read_embedding
from cardiosynth.segmentation.medsam.network import build_medsam, image_embeddings, mask_logits
from cardiosynth.segmentation.medsam.slices import as_square, box_of, cut_axis, num_slices, slice_place, upright
from cardiosynth.segmentation.medsam.task import STAGE, MedsamStage
from cardiosynth.segmentation.predict import model_image
from cardiosynth.segmentation.predictions import write_predictions
from cardiosynth.segmentation.records import read_stage
from cardiosynth.segmentation.staged import last_stage
from cardiosynth.training.settings import uses_bfloat16
from cardiosynth.training.state import load_weights

GROUND_TRUTH = "ground truth"
"""Says of a prediction that its boxes were those of the mask that it is to be compared with, as published."""


@dataclass(frozen=True, eq=False)
class Medsam:
    """A trained network that knows what it takes. Which structures it marks is the boxes' affair.

    Attributes:
        network: in eval mode.
        stage: how it was trained.
        scale: how it sees intensities.
        fingerprint: of its weights.
        device: where it computes.
        licences: of the weights and of what they learned from.
        embeddings: where what the encoder sees is kept, None where it is computed each time.
    """

    network: nn.Module
    stage: MedsamStage
    scale: IntensityScale
    fingerprint: str
    device: torch.device
    licences: tuple[str, ...] = ()
    embeddings: EmbeddingCache | None = None


def load_medsam(
    run: Path, device: str = "cpu", *, scale: IntensityScale | None = None, embeddings: Path | None = None
) -> Medsam:
    """Load a MedSAM, strictly.

    Args:
        run: of `chain.train`, which ends with its last stage, a run of one stage, its ``medsam`` folder, or one
            checkpoint; the newest is taken.
        device: ``cpu`` or ``cuda``.
        scale: how it sees intensities; None for what its record says.
        embeddings: folder of cached embeddings, None for no cache.

    Raises:
        InputError: no checkpoint, one of another stage, or a damaged one.
    """
    checkpoint, record = read_stage(last_stage(Path(run)), STAGE)
    origin = str(checkpoint / "record.json")
    stage = parse_settings(MedsamStage, record["settings"], origin)
    network, place = build_medsam(stage.network), torch.device(device)
    load_weights(network, checkpoint)
    network = network.to(place).eval().requires_grad_(False)
    kept = None
    if embeddings is not None:
        kept = EmbeddingCache(embeddings, network, place, stage.training.precision)
    scale = scale or parse_settings(IntensityScale, record["intensity"], origin)
    return Medsam(network, stage, scale, record["fingerprint"], place, tuple(record["licences"]), kept)


def segment(medsam: Medsam, test: Dataset, out: Path, prompts: Dataset | None = None, name: str = "medsam") -> Dataset:
    """Write a dataset of masks, one per case, on the cases' grids; the same call goes on after a stop.

    Args:
        medsam: from `load_medsam`.
        test: with images.
        out: a folder, see :func:`write_predictions`. Its facts are ``segmented_by`` (fingerprint of the weights),
            ``boxes_of``: what the boxes were drawn around, ``intensity``: how the network saw the images, and
            ``licences`` of the weights and of what they learned from.
        prompts: masks of the same cases, as a segmenter predicts them, whose boxes tell where to look; their label
            table is that of the result. None for the cases' own masks: ground truth, as published, which tells the
            network in which slices each structure is and where it ends. Say so beside such numbers.
        name: what the dataset is called.

    Raises:
        InputError: a case without image or mask, one of another unit or grid, or a folder that holds something else.
    """
    given = test if prompts is None else prompts
    missing = [case_id for case_id in test.case_ids if case_id not in given.rows]
    if missing:
        raise InputError(f"{given.root} has no mask of case {missing[0]} to draw boxes around; predict all test cases.")
    facts = {
        "segmented_by": medsam.fingerprint,
        "boxes_of": GROUND_TRUTH if prompts is None else _origin(prompts),
        "intensity": medsam.scale.model_dump(mode="json"),
        "licences": list(medsam.licences),
    }

    def predict(case: Case) -> UInt8[np.ndarray, "1 *grid"]:
        return predict_mask(medsam, case, case if prompts is None else prompts.case(case.case_id))

    return write_predictions(test, out, given.labels, facts, predict, name=name)


def predict_mask(medsam: Medsam, case: Case, prompts: Case) -> UInt8[np.ndarray, "1 *grid"]:
    """Return what MedSAM sees in the boxes around the target structures of ``prompts``, in its codes.

    Where masks meet, the highest probability wins; below one half is background. A structure is sought in those slices
    only where ``prompts`` has it.

    Raises:
        InputError: no image, one in another unit, no mask to draw boxes around, or one on another grid.
    """
    if not prompts.grid.same_as(case.grid):
        raise InputError(f"case {case.case_id}: the mask for its boxes has another grid; predict it on these images.")
    image = model_image(case, medsam.scale)
    wanted = torch.from_numpy(prompts.labels.only_targets(prompts.required_mask()))
    axis, found = cut_axis(case, medsam.stage.plane), torch.zeros_like(wanted)
    for index in range(num_slices(case, axis)):
        where = (slice(None), *slice_place(axis, index, wanted.ndim - 1))
        if wanted[where].any():
            plane = found[where][0] if axis is None else found[where][0].squeeze(axis)
            shown, boxed = (upright(x[where][0].reshape(plane.shape)) for x in (image, wanted))
            plane.copy_(upright(_marked(medsam, shown[None], boxed)))
    return found.numpy()


def merged(probabilities: Float[Tensor, "n rows columns"], codes: Sequence[int]) -> UInt8[Tensor, "rows columns"]:
    """Return the code of the highest probability in each pixel, 0 where none exceeds one half."""
    best, which = probabilities.max(0)
    return torch.where(best > 0.5, torch.tensor(codes, dtype=torch.uint8)[which], 0)


def _marked(
    medsam: Medsam, picture: Float[Tensor, "1 rows columns"], wanted: UInt8[Tensor, "rows columns"]
) -> UInt8[Tensor, "rows columns"]:
    size = medsam.stage.network.image_size
    codes = [code for code in wanted.unique().tolist() if code]
    boxes = torch.stack([box_of(wanted == code, size) for code in codes])
    probabilities = _probabilities(medsam, as_square(picture, size), boxes)
    # Published: probabilities, not logits, are brought to the slice. Smoothed where the slice is the smaller one.
    full = F.interpolate(probabilities[None], tuple(picture.shape[1:]), mode="bilinear", antialias=True)
    return merged(full[0], codes)


@torch.inference_mode()
def _probabilities(
    medsam: Medsam, square: Float[Tensor, "1 s s"], boxes: Float[Tensor, "n 4"]
) -> Float[Tensor, "n q q"]:
    device, bfloat16 = medsam.device, uses_bfloat16(medsam.stage.training.precision, medsam.device)
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        if medsam.embeddings is not None:
            seen = read_embedding(medsam.embeddings.keep(square))[None].to(device)
        else:
            seen = image_embeddings(medsam.network, square[None].to(device))
        return mask_logits(medsam.network, seen, boxes[None].to(device))[0].float().sigmoid().cpu()


def _origin(prompts: Dataset) -> Mapping[str, Any]:
    """Return what identifies a dataset of masks, and the network that made them."""
    rows = list(prompts.rows.values())
    makers = sorted({str(row["provenance"].get("segmented_by", "unknown")) for row in rows})
    digest = fingerprint([[case_id, row.get("files")] for case_id, row in prompts.rows.items()])
    return {"dataset": prompts.description.name, "masks": digest, "segmented_by": makers}
