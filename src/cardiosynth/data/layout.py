"""Which file of a dataset folder holds what, and in which form."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cardiosynth.core.case import Case, IntensityUnit
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import rounded_image
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.store import read_rows
from cardiosynth.data.formats.files import stem
from cardiosynth.data.formats.nifti import is_nifti
from cardiosynth.data.formats.volume import Volume

Part = Literal["image", "mask", "confidence"]
FOLDERS: dict[Part, tuple[str, str]] = {
    "image": ("imagesTr", "_0000"),
    "mask": ("labelsTr", ""),
    "confidence": ("confidenceTr", ""),
}
"""Part of a case -> its folder, and what its files carry after the case's name."""
LEAST_LEVELS = 1000
"""An MR image whose values span fewer levels than this is stored with a slope, not rounded to whole numbers."""


def part_file(root: Path, part: Part, case_id: str, ending: str = ".nii.gz") -> Path:
    """Return where a part of a case lies in a dataset folder."""
    folder, suffix = FOLDERS[part]
    return root / folder / f"{case_id}{suffix}{ending}"


def check_same_grid(volumes: Mapping[Path, Volume]) -> None:
    """Refuse files that do not stand on one grid.

    Raises:
        InputError: naming both files and how they differ.
    """
    (first, volume), *others = volumes.items()
    for path, other in others:
        if not volume.grid.same_as(other.grid):
            one, two = volume.grid.shape, other.grid.shape
            how = f"shapes {one} and {two}" if one != two else "different affines"
            raise InputError(f"{first} and {path} have {how}; resample one onto the grid of the other.")


def check_codes(mask: np.ndarray, labels: LabelTable, path: Path) -> None:
    """Refuse a mask with codes that the table does not name.

    Raises:
        InputError: naming the file and the codes.
    """
    unknown = sorted(set(np.unique(mask).tolist()) - {0, *labels.codes})
    if unknown:
        codes = ", ".join(map(str, unknown))
        raise InputError(f"{path} holds the code {codes}, which the label table does not name; add it to the table.")


def manifest(root: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of every manifest of a folder by case name; a later row replaces an earlier one."""
    return {row["case_id"]: row for path in sorted(root.glob("manifest*.jsonl")) for row in read_rows(path)}


def is_whole(root: Path, row: Mapping[str, Any]) -> bool:
    """Whether every file that a manifest row names is there."""
    return all((root / name).exists() for name in row["files"])


def case_names(root: Path, ending: str) -> set[str]:
    """Return the names of all cases that have a file in a folder without a manifest."""
    names = set()
    for folder, suffix in FOLDERS.values():
        for path in (root / folder).glob(f"*{suffix}{ending}"):
            if is_nifti(path):
                names.add(stem(path).removesuffix(suffix))
    return names


def stored_parts(case: Case) -> dict[Part, tuple[np.ndarray, tuple[float, float] | None]]:
    """Return what is stored of a case: for each part the array and the slope and intercept of its file."""
    parts: dict[Part, tuple[np.ndarray, tuple[float, float] | None]] = {}
    if case.image is not None:
        parts["image"] = stored_image(case.image, case.intensity_unit)
    if case.mask is not None:
        parts["mask"] = (case.mask, None)
    if case.confidence is not None:
        parts["confidence"] = (np.rint(case.confidence * 255).astype(np.uint8), (1 / 255, 0.0))
    return parts


def stored_image(image: np.ndarray, unit: IntensityUnit) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Return ``image`` as int16 with the slope and intercept that give its values back.

    HU are whole numbers. MR has no scale of its own: a volume in [0, 1], or beyond what int16 holds, is spread over
    int16's levels instead of being rounded away.
    """
    if image.dtype == np.int16:
        return image, None
    low, high = float(image.min()), float(image.max())
    whole = bool((image == np.rint(image)).all())
    if unit == "hu" or (low >= -32768 and high <= 32767 and (whole or high - low >= LEAST_LEVELS)):
        return rounded_image(image), None
    slope, intercept = max((high - low) / 65000, 1e-12), (high + low) / 2
    return rounded_image((image - intercept) / slope), (slope, intercept)
