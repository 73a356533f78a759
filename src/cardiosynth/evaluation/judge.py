"""A segmenter as a judge of synthetic images: what it finds in them, and what its encoder sees.

A judge is independent: it took no part in the making of what it judges, not as a loss either.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.data.dataset import Dataset
from cardiosynth.evaluation.extraction import Extractor
from cardiosynth.metrics.overlap import dice
from cardiosynth.metrics.topology import betti_errors, cl_dice
from cardiosynth.segmentation.features import encoder_features
from cardiosynth.segmentation.predict import Segmenter, predict_mask
from cardiosynth.segmentation.records import read_stage
from cardiosynth.segmentation.task import STAGE


@dataclass(frozen=True)
class Seen:
    """One structure of one case as the judge sees it beside the case's mask.

    Attributes:
        dice: in [0, 1]; NaN where neither has the structure.
        betti: sum of the differences of all Betti numbers.
        cl_dice: centerline Dice of a vessel; NaN for other structures and where neither has it.
    """

    dice: float
    betti: int
    cl_dice: float


def trained_on(run: Path) -> tuple[str, ...]:
    """Return the names of the cases that a run's segmenter learned from.

    Raises:
        InputError: the run holds no segmenter.
    """
    _, record = read_stage(run, STAGE)
    return tuple(record["cases"])


def judge_extractor(judge: Segmenter) -> Extractor:
    """Return the features of a judge's encoder: every level's, averaged over the image, side by side.

    Images are filled up to what the network takes by repeating their border.

    Raises:
        InputError: the judge is no U-Net, whose levels alone are known.
    """
    network = judge.stage.network
    if network.kind != "unet":
        raise InputError(f"the judge is a {network.kind} and only a unet's levels give features; train one.")
    return Extractor("segmenter", judge.fingerprint, network.spatial_dims, partial(_encoded, judge), judge.scale)


def agreement(judge: Segmenter, case: Case) -> dict[str, Seen]:
    """Return, by name, how well the judge finds the target structures that the case's mask says are there.

    Structures that the judge does not know are left out.

    Raises:
        InputError: a case that the judge cannot take.
    """
    mask, seen = case.required_mask()[0], predict_mask(judge, case).required_mask()[0]
    codes = {label.name: label.code for label in judge.labels.targets}
    found = {}
    for label in case.labels.targets:
        if label.name in codes:
            p, q = seen == codes[label.name], mask == label.code
            lines = cl_dice(p, q) if label.is_vessel else float("nan")
            found[label.name] = Seen(dice(p, q), sum(betti_errors(p, q)), lines)
    return found


def refuse_partial(judge: Segmenter, synthetic: Dataset) -> None:
    """Refuse a judge that had a part in making the synthetic cases, as their records tell.

    Raises:
        InputError: naming the first such case.
    """
    for case_id, row in synthetic.rows.items():
        if not set(judge.fingerprints).isdisjoint(_texts(row["provenance"])):
            raise InputError(
                f"the judge {judge.fingerprint} took part in making {case_id} of {synthetic.root}; judge with a "
                "segmenter that did not, e.g. one trained with another seed."
            )


def _texts(value: object) -> Iterator[str]:
    """Yield every text in a JSON-like value."""
    if isinstance(value, str):
        yield from value.split("+")
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _encoded(judge: Segmenter, images: Float[Tensor, "n 1 *grid"]) -> Float[Tensor, "n d"]:
    multiple = judge.stage.network.multiple
    missing = [-size % multiple for size in images.shape[2:]]
    padding = [part for amount in reversed(missing) for part in (0, amount)]
    x = torch.nn.functional.pad(images.to(judge.device), padding, mode="replicate")
    return torch.cat([level.flatten(2).mean(2) for level in encoder_features(judge.network, x)], dim=1)
