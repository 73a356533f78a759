"""Slices of small patients, real and synthetic, as datasets."""

from pathlib import Path

import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.data.dataset import Dataset, mark_parts, read_dataset, write_dataset
from tests.segmentation.cases import case

PARTS = {"p0": "train", "p1": "train", "p2": "validation", "p3": "test", "p4": "test"}


def real_slices(root: Path, *, mr: bool = False) -> Dataset:
    """Three slices of one volume of each of five patients, the last two of them for the test; HU or normalized MR."""
    made = [_slice(number, patient, index) for number, patient in enumerate(PARTS) for index in range(3)]
    if mr:
        made = [one.with_(image=_gray(one.required_image()), intensity_unit="mr") for one in made]
    write_dataset(made, root, "real")
    mark_parts(root, {one.case_id: PARTS[one.case_id[:2]] for one in made})
    return read_dataset(root)


def synthetic_slices(root: Path, patient: str = "p0", count: int = 8, **provenance) -> Dataset:
    """Slices for the masks of one patient."""
    made = []
    for index in range(count):
        facts = {"parents": [f"{patient}_ED_slice00{index % 3}"], **provenance}
        made.append(case(index, (32, 32), case_id=f"synthetic-{index}", origin="synthetic", provenance=facts))
    return write_dataset(made, root, "synthetic")


def _slice(number: int, patient: str, index: int) -> Case:
    facts = {"patient": patient, "volume": f"{patient}_ED", "slice": index}
    return case(10 * number + index, (32, 32), case_id=f"{patient}_ED_slice00{index}", provenance=facts)


def _gray(image_hu: np.ndarray) -> np.ndarray:
    return np.clip(image_hu / 2 + 500, 0, 1000).astype(np.int16)
