"""Examines a dataset folder before hours are spent on it: what must be mended, what should be known."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import ndimage

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import why_not_hu
from cardiosynth.core.progress import track
from cardiosynth.core.store import file_sha256
from cardiosynth.core.volume import Grid
from cardiosynth.data.dataset import Dataset, finish_dataset, read_dataset
from cardiosynth.data.description import COMPLETE
from cardiosynth.data.formats.nifti import is_nifti
from cardiosynth.data.layout import FOLDERS, manifest

Level = Literal["error", "warning", "info"]
THIN = "coronary_artery"
COARSEST_MM = 1.25
"""Widest voxel at which coronary arteries (1-4 mm) survived an autoencoder: half of their contrast and four fifths of a
segmenter's clDice. At 1.6 mm they did not, and at 2.5 mm the images themselves hold a quarter of the contrast
(phantoms, docs/log.md). The widest side counts, not a mean of the sides: an artery that crosses a thick slice is
averaged away in it, however fine the voxel is in plane."""


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        level: ``error`` must be mended before training, ``warning`` should be looked at, ``info`` is good to know.
        case_id: the case concerned, None for the whole dataset.
        message: one sentence with the mend.
    """

    level: Level
    case_id: str | None
    message: str


def check_dataset(root: Path | str) -> list[Finding]:
    """Return what there is to say of a dataset folder, whole-dataset findings last.

    Writes ``dataset.json`` where every shard has finished and it is missing.

    Raises:
        InputError: the folder is no dataset at all.
    """
    root = Path(root)
    if not (root / COMPLETE).exists():
        finish_dataset(root)
    dataset = read_dataset(root)
    findings = _files(dataset)
    grids: dict[str, Grid] = {}
    for case_id in track(dataset.case_ids, "check", len(dataset)):
        try:
            case = dataset.case(case_id)
        except InputError as error:
            findings.append(Finding("error", case_id, str(error)))
            continue
        grids[case_id] = case.grid
        findings += [Finding(level, case_id, f"{case_id}: {text}") for level, text in _case(case)]
    return findings + [Finding(level, None, f"{root}: {text}") for level, text in _whole(dataset, grids)]


def _files(dataset: Dataset) -> list[Finding]:
    """Missing, changed and orphaned files."""
    findings = []
    listed = set()
    for case_id, row in manifest(dataset.root).items():
        for name, digest in row["files"].items():
            path = dataset.root / name
            listed.add(path)
            if not path.exists():
                findings.append(Finding("error", case_id, f"{path} is missing; make the case again."))
            elif file_sha256(path) != digest:
                findings.append(Finding("error", case_id, f"{path} has changed since it was written; make it again."))
    if listed:
        there = {p for folder, _ in FOLDERS.values() for p in (dataset.root / folder).glob("*") if is_nifti(p)}
        for path in sorted(there - listed):
            findings.append(Finding("warning", None, f"{path} is in no manifest and is not used; remove it."))
    return findings


def _case(case: Case) -> list[tuple[Level, str]]:
    findings: list[tuple[Level, str]] = []
    if case.image is not None and case.intensity_unit == "hu" and (reason := why_not_hu(case.image)):
        findings.append(("error", f"{reason}; prepare it with the unit mr, or apply the rescale intercept."))
    if case.grid.is_sheared:
        findings.append(("warning", "its affine is sheared; run `cardiosynth prepare` for a straight grid."))
    if not case.spacing_known:
        findings.append(("warning", "its voxel size is unknown; distances in millimeters will be refused."))
    if case.mask is None:
        return [*findings, ("info", "it has no mask; it trains the autoencoder and the diffusion model only.")]
    if not case.mask.any():
        return [*findings, ("error", "its mask is empty; draw the structures or remove the mask.")]
    return findings + _structures(case, case.mask)


def _structures(case: Case, mask: np.ndarray) -> list[tuple[Level, str]]:
    findings: list[tuple[Level, str]] = []
    present = set(np.unique(mask).tolist())
    missing = [label.name for label in case.labels.targets if label.code not in present]
    if missing:
        findings.append(("warning", f"its mask lacks {', '.join(missing)}; check the labels if they are in view."))
    everywhere = np.ones((3,) * (mask.ndim - 1), bool)
    for label in case.labels:
        if label.components is not None and label.code in present:
            pieces = int(np.max(ndimage.label(mask[0] == label.code, everywhere)[0]))  # pyright: ignore[reportIndexIssue]
            if pieces > label.components:
                text = f"{label.name} is in {pieces} pieces, {label.components} would be right; look at its mask."
                findings.append(("warning", text))
    spacing = case.spacing_mm
    widest = round(max(spacing), 2) if spacing else 0.0
    if widest > COARSEST_MM and any(x.name == THIN and x.code in present for x in case.labels):
        text = f"voxels {widest:g} mm wide lose coronary arteries in the autoencoder; use {COARSEST_MM:g} mm or finer."
        findings.append(("warning", text))
    return findings


def _whole(dataset: Dataset, grids: dict[str, Grid]) -> list[tuple[Level, str]]:
    findings: list[tuple[Level, str]] = []
    pairs = sum(dataset.has("image", i) and dataset.has("mask", i) for i in dataset.case_ids)
    if pairs < 2:
        findings.append(("error", f"{pairs} cases with image and mask are too few for training; give at least two."))
    if not (dataset.root / COMPLETE).exists():
        findings.append(("warning", f"not every shard has finished, so there is no {COMPLETE} yet; run them again."))
    kinds = Counter((g.shape, tuple(round(v, 2) for v in g.spacing_mm), g.axis_codes) for g in grids.values())
    if len(kinds) > 1:
        (shape, spacing, _), count = kinds.most_common(1)[0]
        numbers = f"--shape {' '.join(map(str, shape))} --spacing-mm {' '.join(f'{v:g}' for v in spacing)}"
        findings.append((
            "warning",
            f"its cases stand on {len(kinds)} kinds of grid, {count} of {len(grids)} on the commonest; bring them to "
            f"one with `cardiosynth prepare nnunet {dataset.root} OUT {numbers}`.",
        ))  # fmt: skip
    findings.append(
        ("info", f"{len(dataset)} cases, {pairs} of them with image and mask, in {dataset.intensity_unit}.")
    )
    return findings
