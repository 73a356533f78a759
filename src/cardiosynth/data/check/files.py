"""Files that are missing, changed or orphaned, and headers that contradict themselves."""

from pathlib import Path

import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.store import file_sha256
from cardiosynth.core.volume import Grid
from cardiosynth.data.check.finding import Finding, of_case
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.formats.header import Header, read_header
from cardiosynth.data.formats.nifti import is_nifti
from cardiosynth.data.layout import FOLDERS, manifest

DRIFT_MM = 1.0
"""Two ways to say where a voxel is that differ by more than this are a contradiction, not rounding."""
USUAL_VOXEL_MM = (0.15, 20.0)
USUAL_EXTENT_MM = (40.0, 800.0)
"""A field of view in plane that holds a heart, and that fits into a scanner."""


def file_findings(dataset: Dataset) -> list[Finding]:
    """Return missing, changed and orphaned files."""
    findings = []
    listed = set()
    for case_id, row in manifest(dataset.root).items():
        for name, digest in row["files"].items():
            path = dataset.root / name
            listed.add(path)
            if not path.exists():
                text = f"{path} is missing; make the case again."
                findings.append(Finding("error", "missing_file", case_id, text))
            elif file_sha256(path) != digest:
                text = f"{path} has changed since it was written; make it again."
                findings.append(Finding("error", "changed_file", case_id, text))
    if listed:
        there = {p for folder, _ in FOLDERS.values() for p in (dataset.root / folder).glob("*") if is_nifti(p)}
        for path in sorted(there - listed):
            text = f"{path} is in no manifest and is not used; remove it."
            findings.append(Finding("warning", "orphaned_file", None, text))
    return findings


def header_findings(case: Case, dataset: Dataset) -> list[Finding]:
    """Return where the headers of a case contradict themselves or what is known of it."""
    findings = []
    for part in ("image", "mask"):
        path = dataset.file(part, case.case_id)
        if path.exists() and is_nifti(path):
            try:
                header = read_header(path)
            except InputError as error:
                findings.append(of_case(case, "error", "header", str(error)))
                continue
            findings += [of_case(case, "warning", "header", text) for text in contradictions(header, path)]
            if part == "image" and header.description.startswith("SYNTHETIC") != case.is_simulated:
                text = (
                    f"the header of {path} says '{header.description}' and the manifest says {case.origin}; a "
                    "simulated image must be marked in both."
                )
                findings.append(of_case(case, "warning", "header", text))
    return findings + _sizes(case)


def contradictions(header: Header, path: Path) -> list[str]:
    """Return what a header says in two ways that differ, in words."""
    found = []
    if header.sform is None and header.qform is None:
        found.append(f"{path} has neither sform nor qform, so right and left are guesses; write its affine.")
    if header.sform is not None and header.qform is not None:
        drift = _drift_mm(header.sform, header.qform)
        if drift > DRIFT_MM:
            found.append(
                f"the sform and the qform of {path} put the same voxel up to {drift:.0f} mm apart; programs differ in "
                "which they follow (here the sform), so set both alike."
            )
    grid = header.sform or header.qform
    if grid is not None:
        sizes = np.array(grid.spacing_mm)
        axes = [i for i, n in enumerate(grid.shape) if n > 1]
        if not np.allclose(sizes[axes], np.abs(np.array(header.pixdim_mm))[axes], rtol=0.01):
            one, two = (" x ".join(f"{v:.3g}" for v in values) for values in (sizes, header.pixdim_mm))
            found.append(f"{path} has voxels of {one} mm by its affine and of {two} by its pixdim; set both alike.")
    return found


def _sizes(case: Case) -> list[Finding]:
    if not case.spacing_known:
        return []
    spacing, shape = case.grid.spacing_mm, case.grid.shape
    extent = sorted((n * s for n, s in zip(shape, spacing, strict=True)), reverse=True)[:2]
    low, high = USUAL_VOXEL_MM
    if min(spacing) < low or max(spacing) > high:
        what = f"voxels of {' x '.join(f'{v:.3g}' for v in spacing)} mm"
    elif extent[1] < USUAL_EXTENT_MM[0] or extent[0] > USUAL_EXTENT_MM[1]:
        what = f"a field of view of {' x '.join(f'{n * s:.0f}' for n, s in zip(shape, spacing, strict=True))} mm"
    else:
        return []
    text = f"{what} hardly fits a heart scan; look whether the header counts in another unit."
    return [of_case(case, "warning", "header", text, spacing_mm=list(spacing), shape=list(shape))]


def _drift_mm(one: Grid, other: Grid) -> float:
    """Return the largest distance between the two places of a corner."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(one.shape) - 1)
    apart = corners @ (one.affine - other.affine)[:3, :3].T + (one.affine - other.affine)[:3, 3]
    return float(np.linalg.norm(apart, axis=1).max())
