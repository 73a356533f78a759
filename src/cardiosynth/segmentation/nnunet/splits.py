"""Folds where nnU-Net's own would fail or divide a patient."""

from collections.abc import Sequence

from cardiosynth.core.errors import InputError
from cardiosynth.core.random import numpy_generator
from cardiosynth.data.splits import patient_of

FOLDS = 5


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
