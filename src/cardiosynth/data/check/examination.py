"""The examination of a dataset folder: case by case, then what only shows across cases."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import track
from cardiosynth.core.volume import Grid
from cardiosynth.data.check.files import file_findings, header_findings
from cardiosynth.data.check.finding import Finding, of_case
from cardiosynth.data.check.identity import Identity, duplicate_findings, identities, identity, leak_findings
from cardiosynth.data.check.intensity import brightness_findings, image_findings
from cardiosynth.data.check.needs import Needs, need_findings
from cardiosynth.data.check.orientation import Lies, lies_of, orientation_findings
from cardiosynth.data.check.structures import Structure, measure_structures, structure_findings
from cardiosynth.data.check.totals import Totals
from cardiosynth.data.dataset import Dataset, finish_dataset, read_dataset
from cardiosynth.data.description import COMPLETE

THIN = "coronary_artery"
COARSEST_MM = 1.25
"""Widest voxel at which coronary arteries (1-4 mm) survived an autoencoder: half of their contrast and four fifths of a
segmenter's clDice. At 1.6 mm they did not, and at 2.5 mm the images themselves hold a quarter of the contrast
(phantoms, docs/log.md). The widest side counts, not a mean of the sides: an artery that crosses a thick slice is
averaged away in it, however fine the voxel is in plane."""


@dataclass(frozen=True, eq=False)
class Examined:
    """One case, while it is in memory.

    Attributes:
        case: the case.
        identity: its patient, split and digests.
        structures: what was measured of its mask.
    """

    case: Case
    identity: Identity
    structures: tuple[Structure, ...]

    def row(self) -> dict[str, Any]:
        """Return what is known of the case as JSON."""
        spacing = self.case.spacing_mm
        return {
            "case_id": self.case.case_id,
            "origin": self.case.origin,
            "patient": self.identity.patient,
            "split": self.identity.split,
            "shape": list(self.case.grid.shape),
            "spacing_mm": None if spacing is None else [round(v, 4) for v in spacing],
            "axes": self.case.grid.axis_codes,
            "structures": [structure.row() for structure in self.structures],
        }


@dataclass(frozen=True, eq=False)
class Examination:
    """What there is to say of a dataset.

    Attributes:
        dataset: the dataset, opened.
        findings: case by case, those of the whole dataset last.
        grids: of every case that could be read, by name.
        pairs: cases with image and mask.
        structures: what was measured of each structure over all cases, by the label table's name.
    """

    dataset: Dataset
    findings: tuple[Finding, ...]
    grids: Mapping[str, Grid]
    pairs: int
    structures: Mapping[str, Totals]

    def facts(self) -> dict[str, Any]:
        """Return the facts and the findings as JSON."""
        kinds = Counter(_kind(grid) for grid in self.grids.values())
        return {
            "dataset": str(self.dataset.root),
            "cases": len(self.dataset),
            "pairs": self.pairs,
            "intensity_unit": self.dataset.intensity_unit,
            "structures": [total.row() for total in self.structures.values()],
            "grids": [
                {"shape": list(shape), "spacing_mm": list(spacing), "axes": axes, "cases": count}
                for (shape, spacing, axes), count in kinds.most_common()
            ],
            "findings": [finding.row() for finding in self.findings],
        }


def check_dataset(
    root: Path | str,
    against: Iterable[Path | str] = (),
    needs: Needs | None = None,
    each: Callable[[Examined], None] | None = None,
) -> Examination:
    """Examine a dataset folder. Volumes are read one by one; of each a few hundred bytes are kept.

    Writes ``dataset.json`` where every shard has finished and it is missing.

    Args:
        root: the folder, or ``FOLDER:PART`` for one part of its split.
        against: other dataset folders, or parts, that must not share patients or images with it.
        needs: what a recipe asks for.
        each: called with every case that could be read, while it is in memory.

    Raises:
        InputError: a folder is no dataset at all.
    """
    dataset, others = _opened(Path(root)), {str(other): _opened(Path(other)) for other in against}
    findings, people = file_findings(dataset), []
    grids: dict[str, Grid] = {}
    lies: dict[str, Lies] = {}
    totals = {label.name: Totals(label) for label in dataset.labels}
    for case_id in track(dataset.case_ids, "check", len(dataset)):
        try:
            case = dataset.case(case_id)
        except InputError as error:
            findings.append(Finding("error", "unreadable", case_id, str(error)))
            continue
        structures = measure_structures(case) if case.mask is not None else ()
        for structure in structures:
            totals[structure.label.name].add(structure)
        people.append(identity(case, dataset.row(case_id)))
        grids[case_id], lies[case_id] = case.grid, lies_of(case)
        findings += [*header_findings(case, dataset), *_case_findings(case, structures)]
        if each is not None:
            each(Examined(case, people[-1], structures))
    strangers = [other for name, other_set in others.items() for other in identities(other_set, name)]
    findings += [*orientation_findings(lies), *duplicate_findings(people, strangers), *leak_findings(people, strangers)]
    pairs = sum(dataset.has("image", i) and dataset.has("mask", i) for i in dataset.case_ids)
    findings += _whole(dataset, grids, pairs)
    findings += need_findings(needs, dataset, list(grids.values()), pairs) if needs is not None else []
    return Examination(dataset, tuple(findings), grids, pairs, totals)


def _opened(root: Path) -> Dataset:
    if not (root / COMPLETE).exists():
        finish_dataset(root)
    return read_dataset(root)


def _case_findings(case: Case, structures: Sequence[Structure]) -> list[Finding]:
    findings = [] if case.image is None else image_findings(case, case.image)
    if case.grid.is_sheared:
        text = "its affine is sheared; run `cardiosynth prepare` for a straight grid."
        findings.append(of_case(case, "warning", "sheared", text))
    if not case.spacing_known:
        text = "its voxel size is unknown; distances in millimeters will be refused."
        findings.append(of_case(case, "warning", "unknown_spacing", text))
    if case.mask is None:
        text = "it has no mask; it trains the autoencoder and the diffusion model only."
        return [*findings, of_case(case, "info", "no_mask", text)]
    if not structures:
        text = "its mask is empty; draw the structures or remove the mask."
        return [*findings, of_case(case, "error", "empty_mask", text)]
    measured = {each.label.name: each.brightness for each in structures if each.brightness is not None}
    return [
        *findings, *structure_findings(case, structures), *brightness_findings(case, measured),
        *_thick(case, structures),
    ]  # fmt: skip


def _thick(case: Case, structures: Sequence[Structure]) -> list[Finding]:
    widest = round(max(case.spacing_mm), 2) if case.spacing_mm else 0.0
    if widest <= COARSEST_MM or all(each.label.name != THIN for each in structures):
        return []
    text = f"voxels {widest:g} mm wide lose coronary arteries in the autoencoder; use {COARSEST_MM:g} mm or finer."
    return [of_case(case, "warning", "wide_voxels", text, widest_mm=widest)]


def _whole(dataset: Dataset, grids: Mapping[str, Grid], pairs: int) -> list[Finding]:
    findings = []
    if pairs < 2:
        text = f"{pairs or 'no'} case with image and mask is too few for training; give at least two."
        findings.append(Finding("error", "pairs", None, text, {"pairs": pairs}))
    if not (dataset.root / COMPLETE).exists():
        text = f"not every shard has finished, so there is no {COMPLETE} yet; run them again."
        findings.append(Finding("warning", "unfinished", None, text))
    kinds = Counter(_kind(grid) for grid in grids.values())
    if len(kinds) > 1:
        (shape, spacing, _), count = kinds.most_common(1)[0]
        numbers = f"--shape {' '.join(map(str, shape))} --spacing-mm {' '.join(f'{v:g}' for v in spacing)}"
        text = (
            f"its cases stand on {len(kinds)} kinds of grid, {count} of {len(grids)} on the commonest; bring them to "
            f"one with `cardiosynth prepare nnunet {dataset.root} OUT {numbers}`."
        )
        findings.append(Finding("warning", "grids", None, text))
    if pairs > 1:
        # A template is another case than the one it conditions: ordered pairs.
        ordered = pairs * (pairs - 1)
        text = f"{pairs} cases with image and mask make {ordered} training pairs of a case and its template."
        findings.append(Finding("info", "pairs", None, text, {"pairs": pairs, "training_pairs": ordered}))
    return findings


def _kind(grid: Grid) -> tuple[tuple[int, ...], tuple[float, ...], str]:
    return grid.shape, tuple(round(v, 2) for v in grid.spacing_mm), grid.axis_codes
