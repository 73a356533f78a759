"""Datasets of predicted masks, written case by case: the same call goes on after a stop."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from cardiosynth.core.case import Case
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.progress import Progress
from cardiosynth.data.dataset import Dataset, DatasetWriter, read_dataset
from cardiosynth.segmentation.predict import PredictionSettings, predict_ensemble
from cardiosynth.segmentation.staged import load_trained


def predict_dataset(
    run: Path,
    test: Dataset,
    out: Path,
    *,
    settings: PredictionSettings | None = None,
    device: str = "cpu",
    name: str = "segmenter",
) -> Dataset:
    """Write the masks that our own segmenter, or those of several folds together, see in a dataset's images.

    Args:
        run: what :func:`load_trained` takes.
        test: with images.
        out: a folder, see `write_predictions`. Its facts are ``segmented_by`` (the weights' fingerprints, joined by
            ``+``), ``intensity`` and ``prediction``.
        settings: overlap and mirroring; None for the defaults.
        device: ``cpu`` or ``cuda``.
        name: what the dataset is called.

    Raises:
        InputError: no trained segmenter, cases that do not suit it, or a folder that holds something else.
    """
    segmenters, settings = load_trained(run, device), settings or PredictionSettings()
    facts = {
        "segmented_by": "+".join(one.fingerprint for one in segmenters),
        "intensity": segmenters[0].scale.model_dump(mode="json"),
        "prediction": settings.model_dump(mode="json"),
    }

    def predict(case: Case) -> UInt8[np.ndarray, "1 *grid"]:
        return predict_ensemble(segmenters, case, settings).required_mask()

    return write_predictions(test, out, segmenters[0].labels, facts, predict, name=name)


def write_predictions(
    test: Dataset,
    out: Path,
    labels: LabelTable,
    facts: Mapping[str, Any],
    predict: Callable[[Case], UInt8[np.ndarray, "1 *grid"]],
    *,
    name: str,
) -> Dataset:
    """Write a dataset of masks, one per case, on the cases' grids, without images; what is there is kept.

    Args:
        test: the cases.
        out: a folder.
        labels: what the codes of predicted masks mean.
        facts: JSON-like, who predicts and how; kept of the dataset and of every case, and must be the same when it goes
            on.
        predict: case -> its mask.
        name: what the dataset is called.

    Raises:
        InputError: the folder holds something else, or what ``predict`` refuses.
    """
    with DatasetWriter(out, labels, name=name, facts=facts) as writer:
        done = sum(writer.has(case_id) for case_id in test.case_ids)
        with Progress("segment", len(test), done) as progress:
            for case_id in (i for i in test.case_ids if not writer.has(i)):
                case = test.case(case_id)
                provenance = {**case.provenance, **facts}
                changes = {"mask": predict(case), "labels": labels, "provenance": provenance}
                writer.write(case.with_(image=None, confidence=None, **changes))
                progress.update()
    return read_dataset(out)
