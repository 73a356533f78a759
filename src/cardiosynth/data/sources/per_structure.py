"""One mask file per structure, as TotalSegmentator writes them and as its data sets come.

``CASE/ct.nii.gz`` (or ``mri.nii.gz``, ``image.nii.gz``) with ``CASE/segmentations/STRUCTURE.nii.gz``, NIfTI or NRRD. Of
a mask everything that is not 0 belongs to the structure. The TotalSegmentator data sets are on Zenodo: CT version 2,
1228 cases at 1.5 mm with 117 structures, doi:10.5281/zenodo.6802614; MR, doi:10.5281/zenodo.14710732; Wasserthal et
al., Radiology: Artificial Intelligence 5(5), 2023, doi:10.1148/ryai.230024. State their licence with ``--licence``.

A table, ``labels.json`` or ``--labels``, says which structures are wanted, with which codes, and which wins where two
overlap: the one that stands first. Structures that it does not name are passed over. Without a table all structures are
taken, coded and ranked in the order of their names. Overlaps are recorded with the case, and said. A file that is
missing is a structure that the case does not have.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cardiosynth.core.case import Case, IntensityUnit
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable, label_table, normalized_name
from cardiosynth.core.progress import say
from cardiosynth.data.description import read_label_table, unit_named
from cardiosynth.data.formats.files import is_image_file, read_volume, stem
from cardiosynth.data.layout import check_same_grid
from cardiosynth.data.listing import TABLE, case_name, existing_folder, folder_facts
from cardiosynth.data.stream import CaseStream, read_pair

MASKS = "segmentations"
IMAGES = ("ct", "mri", "mr", "image")
WANTED = f"give the folder that holds CASE/ct.nii.gz with CASE/{MASKS}/STRUCTURE.nii.gz"


def per_structure(
    root: Path, labels: LabelTable | Path | None = None, intensity_unit: str | None = None, licence: str = ""
) -> CaseStream:
    """Return the cases of a folder, read one by one.

    Args:
        root: the folder.
        labels: structures wanted, the first winning over the later ones; None looks for ``labels.json`` in ``root`` and
            takes all structures where there is none.
        intensity_unit: ``hu`` or ``mr``; None takes MR for ``mri.nii.gz`` and HU for others.
        licence: under which terms the images stand; recorded with every case.

    Raises:
        InputError: no such folder, or a table that names none of the structures.
    """
    root = existing_folder(root, WANTED)
    folders = sorted(path.parent for path in (*root.glob(f"*/{MASKS}"), *root.glob(f"*/*/{MASKS}")) if path.is_dir())
    if not folders:
        raise InputError(f"{root} holds no CASE/{MASKS}/; {WANTED}.")
    structures = {folder: _structures(folder / MASKS) for folder in folders}
    table = _table(root, labels, sorted({name for found in structures.values() for name in found}))
    readers = {}
    for folder, found in structures.items():
        image = _image(folder)
        name = case_name(folder.relative_to(root).as_posix())
        unit = unit_named(intensity_unit or ("mr" if stem(image).startswith("mr") else "hu"))
        files = {"image": image.relative_to(root).as_posix(), "masks": (folder / MASKS).relative_to(root).as_posix()}
        facts = folder_facts(root, files, licence, name, name)
        wanted = {label.name: found[label.name] for label in table if label.name in found}
        readers[name] = partial(_read, name, image, wanted, table, unit, facts)
    return CaseStream(readers)


def _structures(folder: Path) -> dict[str, Path]:
    return {normalized_name(stem(path)): path for path in sorted(folder.iterdir()) if is_image_file(path)}


def _image(folder: Path) -> Path:
    found = {stem(path): path for path in sorted(folder.iterdir()) if is_image_file(path)}
    return next((found[name] for name in IMAGES if name in found), folder / f"{IMAGES[0]}.nii.gz")


def _table(root: Path, given: LabelTable | Path | None, names: list[str]) -> LabelTable:
    path = given if isinstance(given, Path) else root / TABLE
    if isinstance(given, LabelTable):
        table = given
    elif given or path.exists():
        table = read_label_table(path)
    else:
        return label_table({name: code for code, name in enumerate(names, start=1)})
    passed_over = set(names) - {label.name for label in table}
    if len(passed_over) == len(names):
        raise InputError(f"{root} holds no mask of the table's structures; name some of {', '.join(names[:20])}.")
    if passed_over:
        say(f"{root}: {len(passed_over)} of {len(names)} structures are not in the table and passed over.")
    return table


def _read(
    name: str, image: Path, masks: Mapping[str, Path], labels: LabelTable, unit: IntensityUnit, facts: dict[str, Any]
) -> Case:
    case = read_pair(name, image, None, labels, unit, facts)
    mask, overlaps = _merged(image, masks, labels)
    if overlaps:
        said = ", ".join(f"{pair} ({count} voxels)" for pair, count in overlaps.items())
        say(f"{name}: structures overlap, the first keeps the voxels: {said}")
        case = case.with_(provenance={**case.provenance, "overlaps": overlaps})
    return case.with_(mask=mask)


def _merged(image: Path, masks: Mapping[str, Path], labels: LabelTable) -> tuple[np.ndarray, dict[str, int]]:
    """Return the codes (1, X, Y, Z), the first of ``masks`` winning, and the voxels that each pair shares."""
    grid = read_volume(image)
    codes = np.zeros(grid.array.shape, np.uint8)
    names = {label.code: label.name for label in labels}
    overlaps: dict[str, int] = {}
    for structure, path in masks.items():
        mask = read_volume(path, "mask")
        check_same_grid({image: grid, path: mask})
        inside = mask.array != 0
        found, counts = np.unique(codes[inside], return_counts=True)
        shared = {names[code]: count for code, count in zip(found.tolist(), counts.tolist(), strict=True) if code}
        overlaps.update({f"{winner} over {structure}": count for winner, count in shared.items()})
        codes[inside & (codes == 0)] = labels.named(structure).code
    return codes, overlaps
