"""Slices and volumes that were made smaller and large again, by an autoencoder or by bicubic interpolation."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float

from cardiosynth.autoencoder.codec import Codec
from cardiosynth.core.case import Case
from cardiosynth.core.intensity import rounded_image
from cardiosynth.core.progress import Progress
from cardiosynth.data.dataset import Dataset, DatasetWriter, read_dataset
from cardiosynth.data.preparation import recorded_preparation


def write_coded(codec: Codec, cases: Dataset, out: Path) -> Dataset:
    """Write the cases under their own names, with decoded images; those that are there already are kept.

    Their rows tell what those of a generator's reconstructions tell: that the image was made, from whose, by what.

    Args:
        codec: the autoencoder.
        cases: with images.
        out: dataset folder.
    """
    facts = {"autoencoder": codec.fingerprint, **recorded_preparation(cases)}
    return _write(cases, out, facts, codec.reconstruct, _checkpoints(codec))


def write_bicubic(cases: Dataset, factor: int, out: Path) -> Dataset:
    """Write slices under their own names as they come back from a grid ``factor`` times as coarse.

    Of the same number of values, an autoencoder should keep more.

    Args:
        cases: slices, with images.
        factor: along both axes.
        out: dataset folder.
    """
    facts = {"bicubic": factor, **recorded_preparation(cases)}
    return _write(cases, out, facts, partial(_through_a_coarser_grid, factor), {})


def _through_a_coarser_grid(factor: int, case: Case) -> Float[np.ndarray, "1 x y"]:
    image = torch.from_numpy(case.required_image().astype(np.float32))[None]
    sizes = [max(1, round(n / factor)) for n in image.shape[2:]]
    coarse = F.interpolate(image, sizes, mode="bicubic", antialias=True)
    return F.interpolate(coarse, image.shape[2:], mode="bicubic")[0].numpy()


def _write(
    cases: Dataset,
    out: Path,
    facts: Mapping[str, Any],
    image_of: Callable[[Case], np.ndarray],
    checkpoints: dict[str, Any],
) -> Dataset:
    with (
        DatasetWriter(out, cases.labels, name=out.name, facts=facts) as writer,
        Progress("make smaller and large again", len(cases)) as progress,
    ):
        for case in cases:
            if not writer.has(case.case_id):
                writer.write(_with(case, image_of(case), checkpoints))
            progress.update()
    return read_dataset(out)


def _with(case: Case, image: np.ndarray, checkpoints: dict[str, Any]) -> Case:
    origin = {"parents": [case.case_id], "reference": case.case_id, "source_image": case.case_id}
    return case.with_(
        image=rounded_image(image) if case.intensity_unit == "hu" else image.astype(np.float32),
        origin="synthetic",
        provenance={**case.provenance, **origin, "checkpoints": checkpoints},
    )


def _checkpoints(codec: Codec) -> dict[str, Any]:
    taught = codec.record.get("perceptual")
    return {**({"perceptual": taught} if taught else {}), "autoencoder": codec.fingerprint}
