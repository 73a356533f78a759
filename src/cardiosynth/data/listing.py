"""What sources share: which files lie below a folder, what their cases are called, which table names their codes."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np

from cardiosynth.core.case import IntensityUnit
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT, LabelTable
from cardiosynth.core.store import read_json
from cardiosynth.data.description import read_label_table
from cardiosynth.data.formats.files import is_image_file, read_mask, stem
from cardiosynth.data.stream import PLAIN, CaseStream, Quirks, read_pair

TABLE = "labels.json"
SPACING = "spacing.json"
LOOKED_AT = 20
"""So many masks are read to tell which codes a label table must name."""


@dataclass(frozen=True)
class Release:
    """A data set as its makers publish it.

    Attributes:
        name: what it is called, with the paper's DOI.
        licence: under which terms it stands.
        labels: what the codes of a case mean.
        unit: of its images.
        wanted: which folder a user should give, to end an error sentence.
        quirks: what its files do not say.
    """

    name: str
    licence: str
    labels: LabelTable
    unit: IntensityUnit
    wanted: str
    quirks: Quirks = PLAIN


@dataclass(frozen=True)
class Pair:
    """The files of one case.

    Attributes:
        image: its image.
        mask: its mask; one that is not there is an error when the case is read, None is a case without a mask.
        facts: what else is known: ``patient``, ``acquisition``, ...
    """

    image: Path | None
    mask: Path | None
    facts: Mapping[str, Any]


def existing_folder(root: Path, wanted: str) -> Path:
    """Return ``root``.

    Raises:
        InputError: it is not a folder; the sentence ends with what is ``wanted``.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; {wanted}.")
    return root


def image_files(root: Path) -> list[Path]:
    """Return all files below ``root`` that a format is known for, sorted."""
    return sorted(path for path in root.rglob("*") if is_image_file(path) and path.is_file())


def mask_beside(image: Path, name: str) -> Path:
    """Return the file called ``name`` (without its ending) beside an image, whatever its ending, there or not."""
    found = [path for path in image.parent.glob(f"{escape(name)}.*") if is_image_file(path) and stem(path) == name]
    return min(found, default=image.with_name(name + image.name[len(stem(image)) :]))


def case_name(text: str) -> str:
    """Return ``text`` with whatever cannot stand in a case's name as hyphens."""
    return re.sub(r"[^\w.-]+", "-", text)


def by_name(names: Mapping[Path, str]) -> dict[str, Path]:
    """Return the files by the name of their case.

    Raises:
        InputError: two files would be the same case.
    """
    found: dict[str, Path] = {}
    for path, wish in names.items():
        name = case_name(wish)
        if name in found:
            raise InputError(f"{found[name]} and {path} would both be the case '{name}'; rename one of them.")
        found[name] = path
    return found


def add_pair(pairs: dict[str, Pair], name: str, pair: Pair) -> None:
    """Add a case.

    Raises:
        InputError: there is one of this name, as where a folder holds a data set twice.
    """
    if name in pairs:
        raise InputError(
            f"{pairs[name].image} and {pair.image} would both be the case '{name}'; take one of them away."
        )
    pairs[name] = pair


def relative_files(root: Path, image: Path | None, mask: Path | None) -> dict[str, str]:
    """Return where the files of a case lie below ``root``, for its provenance."""
    return {part: path.relative_to(root).as_posix() for part, path in (("image", image), ("mask", mask)) if path}


def folder_facts(
    root: Path, files: Mapping[str, str], licence: str, patient: str, acquisition: str = ""
) -> dict[str, Any]:
    """Return the provenance of a case of a user's own folder; what is not known is left out."""
    known = {"licence": licence, "patient": patient, "acquisition": acquisition}
    return {"source": f"folder {root.name}", "files": files, **{key: value for key, value in known.items() if value}}


def stream_release(root: Path, release: Release, pairs: Mapping[str, Pair]) -> CaseStream:
    """Return the cases of a published data set, read one by one.

    Raises:
        InputError: there is no pair.
    """
    if not pairs:
        raise InputError(f"{root} holds no case of {release.name.split(',')[0]}; {release.wanted}.")
    readers, spacings = {}, given_spacings(root)
    for case_id, pair in pairs.items():
        about = {"source": release.name, "licence": release.licence, **pair.facts}
        facts = {**about, "files": relative_files(root, pair.image, pair.mask)}
        quirks = replace(release.quirks, spacing_mm=spacing_of(spacings, case_id, facts["patient"]))
        readers[case_id] = partial(
            read_pair, case_id, pair.image, pair.mask, release.labels, release.unit, facts, quirks
        )
    return CaseStream(readers)


def given_spacings(root: Path) -> dict[str, tuple[float, ...]]:
    """Return the voxel sizes (mm, along the axes as stored) that ``spacing.json`` in ``root`` gives, none without it.

    ``{"ct_1001": [0.3, 0.3, 0.5], "*": [0.35, 0.35, 0.5]}``: by case, by patient, or for all others. They count where a
    file carries no voxel size of its own.

    Raises:
        InputError: the file says something else.
    """
    path = root / SPACING
    if not path.exists():
        return {}
    content = read_json(path)
    example = f'write {path} as {{"CASE": [0.3, 0.3, 0.5]}} in millimeters.'
    if not isinstance(content, dict):
        raise InputError(f"{path} is no table of voxel sizes; {example}")
    for name, sizes in content.items():
        if not isinstance(sizes, list) or not all(isinstance(s, int | float) and 0 < s < 100 for s in sizes):
            raise InputError(f"{path}: the voxel size of '{name}' is {sizes!r}; {example}")
    return {name: tuple(map(float, sizes)) for name, sizes in content.items()}


def spacing_of(spacings: Mapping[str, tuple[float, ...]], case_id: str, patient: str) -> tuple[float, ...] | None:
    """Return the voxel size that is given for a case, by its own name, its patient's or ``*``."""
    return next((spacings[name] for name in (case_id, patient, "*") if name in spacings), None)


def label_table_of(root: Path, given: LabelTable | Path | None, masks: Iterable[Path]) -> LabelTable:
    """Return the label table that is given, or lies in ``root`` as ``labels.json``; images alone need none.

    Raises:
        InputError: there is none; the sentence tells which codes the masks hold and what to write.
    """
    if isinstance(given, LabelTable):
        return given
    path, masks = given or root / TABLE, list(masks)
    if given or path.exists():
        return read_label_table(path)
    if not masks:
        return CARDIAC_CT
    codes = sorted({int(code) for mask in masks[:LOOKED_AT] for code in np.unique(read_mask(mask).array)} - {0})
    example = ", ".join(f'"structure {code}": {code}' for code in codes)
    found = f"its masks hold the codes {', '.join(map(str, codes))}" if codes else "its masks are empty"
    raise InputError(f"{root} has no {TABLE}: {found}; write {path} as {{{example}}} with the structures' names.")
