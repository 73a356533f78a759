"""Folds where nnU-Net's own would fail or divide a patient."""

from collections.abc import Sequence
from pathlib import Path

from cardiosynth.core.errors import InputError
from cardiosynth.core.random import numpy_generator
from cardiosynth.core.store import write_json
from cardiosynth.data.splits import patient_of
from cardiosynth.segmentation.nnunet.settings import Fold

FOLDS = 5
SPLITS = "splits_final.json"
"""nnU-Net's planners take it from the raw dataset's folder."""


def own_splits(case_ids: Sequence[str]) -> list[dict[str, list[str]]] | None:
    """Return folds in the form of nnU-Net's ``splits_final.json``, or None where its own will do.

    Its own are five, by case: with fewer cases it fails, and several cases of one patient stand on both sides.

    Args:
        case_ids: names of the cases.

    Raises:
        InputError: one patient, who cannot be divided.
    """
    patients = sorted({patient_of(case_id) for case_id in case_ids})
    if len(patients) == len(case_ids) >= FOLDS:
        return None
    if len(patients) < 2:
        raise InputError(f"all cases are of patient {patients[0]}; train with folds set to ['all'].")
    order = [patients[i] for i in numpy_generator(0, "nnU-Net folds").permutation(len(patients))]
    folds = []
    for fold in range(min(FOLDS, len(patients))):
        held = set(order[fold::FOLDS])
        folds.append({
            "train": sorted(case_id for case_id in case_ids if patient_of(case_id) not in held),
            "val": sorted(case_id for case_id in case_ids if patient_of(case_id) in held),
        })  # fmt: skip
    return folds


def write_splits(raw: Path, case_ids: Sequence[str], folds: Sequence[Fold]) -> None:
    """Write own folds into a raw dataset's folder, where nnU-Net's would not do.

    Args:
        raw: the folder.
        case_ids: names of the cases.
        folds: that are to be trained.

    Raises:
        InputError: there is no such fold, for which nnU-Net would divide the cases at random; or as `own_splits`.
    """
    numbered = [fold for fold in folds if fold != "all"]
    splits = own_splits(case_ids) if numbered else None
    count = FOLDS if splits is None else len(splits)
    for fold in numbered:
        if fold not in range(count):
            raise InputError(f"{len(case_ids)} cases make folds 0 .. {count - 1}; there is no fold {fold}.")
    if splits is not None:
        write_json(raw / SPLITS, splits)
