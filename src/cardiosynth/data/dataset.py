"""The dataset folder: nnU-Net's raw layout plus what synthesis adds. Read and written here only.

``dataset.json`` · ``imagesTr/CASE_0000.nii.gz`` (int16) · ``labelsTr/CASE.nii.gz`` (uint8) ·
``confidenceTr/CASE.nii.gz`` (uint8 with slope 1/255) · ``manifest.jsonl`` (one row per case) · ``README.md`` ·
``labels_slicer.ctbl`` and ``labels_itksnap.txt`` (names and colors).
A case exists when its files and its row do, so a run killed anywhere goes on with the case it was at. Shards write
``manifest.i-of-n.jsonl``; the last one to finish writes ``dataset.json``. Any plain nnU-Net raw folder, which has no
manifest, is read as well.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from cardiosynth import __version__
from cardiosynth.core.case import Case, IntensityUnit
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.store import append_row, file_sha256, fingerprint, read_rows, remove_partial, write_text
from cardiosynth.data.card import dataset_card
from cardiosynth.data.colors import write_color_tables
from cardiosynth.data.description import (
    COMPLETE,
    UNFINISHED,
    Description,
    read_description,
    write_description,
)
from cardiosynth.data.formats.files import read_confidence, read_image, read_mask
from cardiosynth.data.formats.nifti import write_nifti
from cardiosynth.data.formats.volume import Volume
from cardiosynth.data.layout import (
    FOLDERS,
    Part,
    case_names,
    check_codes,
    check_same_grid,
    is_whole,
    manifest,
    part_file,
    stored_parts,
)
from cardiosynth.data.prepare.mapping import LabelMapping

FINISHED = ".finished"
SPLIT = "split"
"""Key of a manifest row: the part of the split that the case belongs to."""
READERS: dict[Part, Callable[[Path], Volume]] = {"image": read_image, "mask": read_mask, "confidence": read_confidence}


# Not Sequence[Case]: a run-time type checker would read a case from disk for every function that takes a Dataset.
class Dataset(Sequence):
    """The cases of a folder, read from disk when asked for.

    Attributes:
        root: the folder.
        description: its name, label table, intensity unit and facts.
        case_ids: names of the cases, in order.
        rows: manifest row by case name (``{"origin": "real", "provenance": {}}`` in a plain nnU-Net folder).
        stored: label table of the masks as they lie on disk; `mapped` makes the description's another one.
    """

    def __init__(
        self,
        root: Path,
        description: Description,
        rows: Mapping[str, Mapping[str, Any]],
        stored: LabelTable | None = None,
        mapping: LabelMapping | None = None,
    ):
        self.root, self.description, self.rows = root, description, rows
        self.stored, self._mapping = stored or description.labels, mapping
        self.case_ids = tuple(rows)

    @property
    def labels(self) -> LabelTable:
        """What the codes of every mask mean."""
        return self.description.labels

    @property
    def intensity_unit(self) -> IntensityUnit:
        """The unit of every image."""
        return self.description.intensity_unit

    def __len__(self) -> int:
        return len(self.case_ids)

    def __iter__(self) -> Iterator[Case]:
        return (self.case(case_id) for case_id in self.case_ids)

    def __repr__(self) -> str:
        return f"Dataset({self.root}, {len(self)} cases of {self.intensity_unit})"

    @overload
    def __getitem__(self, index: int) -> Case: ...
    @overload
    def __getitem__(self, index: slice) -> "Dataset": ...
    def __getitem__(self, index: int | slice) -> "Case | Dataset":
        if isinstance(index, slice):
            return self.subset(self.case_ids[index])
        return self.case(self.case_ids[index])

    def file(self, part: Part, case_id: str) -> Path:
        """Return where a part of a case lies, or would lie."""
        return part_file(self.root, part, case_id, self.description.file_ending)

    def has(self, part: Part, case_id: str) -> bool:
        """Whether a case has this part."""
        return self.file(part, case_id).exists()

    def subset(self, case_ids: Iterable[str]) -> "Dataset":
        """Return the dataset of these cases alone, in this order.

        Raises:
            InputError: one of them is not there.
        """
        rows = {case_id: self.row(case_id) for case_id in case_ids}
        return Dataset(self.root, self.description, rows, self.stored, self._mapping)

    def with_masks(self) -> "Dataset":
        """Return the dataset of the cases that have a mask."""
        return self.subset(case_id for case_id in self.case_ids if self.has("mask", case_id))

    def with_images(self) -> "Dataset":
        """Return the dataset of the cases that have an image."""
        return self.subset(case_id for case_id in self.case_ids if self.has("image", case_id))

    def part(self, name: str) -> "Dataset":
        """Return the dataset of one part of its split: ``test`` is all of ``test`` and ``test.template``.

        Raises:
            InputError: the dataset is not split, or has no such part.
        """
        parts = {case_id: str(row.get(SPLIT) or "") for case_id, row in self.rows.items()}
        chosen = [case_id for case_id, part in parts.items() if part == name or part.startswith(f"{name}.")]
        if not chosen:
            known = sorted({part for part in parts.values() if part})
            why = suggest(name, known) if known else "; split it with cardiosynth prepare --split."
            raise InputError(f"{self.root} has no part '{name}'{why}")
        return self.subset(chosen)

    def row(self, case_id: str) -> Mapping[str, Any]:
        """Return the manifest row of a case.

        Raises:
            InputError: there is no such case.
        """
        if case_id not in self.rows:
            raise InputError(f"{self.root} has no case '{case_id}'" + suggest(case_id, list(self.case_ids)[:20]))
        return self.rows[case_id]

    def case(self, case_id: str) -> Case:
        """Read one case.

        Raises:
            InputError: there is no such case, a file is damaged, image and mask stand on different grids, or the
                mask holds a code that the label table does not name.
        """
        row = self.row(case_id)
        volumes: dict[Part, Volume] = {}
        for part in FOLDERS:
            if self.has(part, case_id):
                volumes[part] = READERS[part](self.file(part, case_id))
        image, mask, confidence = (volumes.get(part) for part in FOLDERS)
        first = image or mask
        if first is None:
            raise InputError(f"{self.file('image', case_id)} does not exist; add it or remove the case's row.")
        check_same_grid({self.file(part, case_id): volume for part, volume in volumes.items()})
        if mask is not None:
            check_codes(mask.array, self.stored, self.file("mask", case_id))
        return Case(
            case_id=case_id,
            image=None if image is None else image.array,
            affine=first.affine,
            mask=None if mask is None else self._mapped(mask.array),
            confidence=None if confidence is None else confidence.array,
            labels=self.labels,
            intensity_unit=row.get("intensity_unit", self.intensity_unit),
            spacing_known=row.get("spacing_known", first.spacing_known),
            origin=row["origin"],
            provenance=row["provenance"],
        )

    def _mapped(self, mask: np.ndarray) -> np.ndarray:
        return mask if self._mapping is None else self._mapping.apply(mask, self.stored)


def read_dataset(root: Path | str) -> Dataset:
    """Open a dataset folder, finished or not, or any plain nnU-Net raw folder. Nothing is loaded yet.

    Args:
        root: the folder, or ``FOLDER:PART`` for one part of its split, e.g. ``data/hearts:train``.

    Raises:
        InputError: it is none, it holds no case, or it has no such part.
    """
    folder, colon, part = str(root).rpartition(":")
    if colon and not Path(root).exists() and Path(folder).is_dir():
        return read_dataset(folder).part(part)
    root = Path(root)
    description = read_description(root)
    if any(root.glob("manifest*.jsonl")):
        rows = {case_id: row for case_id, row in manifest(root).items() if is_whole(root, row)}
    else:
        rows = {case_id: {"origin": "real", "provenance": {}} for case_id in case_names(root, description.file_ending)}
    if not rows:
        raise InputError(f"{root} holds no case; add images to imagesTr or masks to labelsTr.")
    return Dataset(root, description, dict(sorted(rows.items())))


def store_case(root: Path, case: Case) -> dict[str, Any]:
    """Write the files of one case into a dataset folder and return its manifest row, which makes it exist.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    return {
        "case_id": case.case_id,
        "origin": case.origin,
        "intensity_unit": case.intensity_unit,
        "spacing_known": case.spacing_known,
        "files": _store_parts(root, case),
        "provenance": dict(case.provenance),
    }


def _store_parts(root: Path, case: Case) -> dict[str, str]:
    files = {}
    description = f"SYNTHETIC {case.origin} by cardiosynth {__version__}" if case.is_simulated else ""
    for part, (array, scale) in stored_parts(case).items():
        path = part_file(root, part, case.case_id)
        write_nifti(path, array, case.affine, description=description, scale=scale)
        files[path.relative_to(root).as_posix()] = file_sha256(path)
    for part in FOLDERS:
        path = part_file(root, part, case.case_id)
        if path.relative_to(root).as_posix() not in files:
            path.unlink(missing_ok=True)
    return files


def mark_parts(root: Path, parts: Mapping[str, str]) -> None:
    """Write the part of the split that each case belongs to into its manifest row.

    Args:
        root: a dataset folder with a manifest.
        parts: case name -> part.
    """
    for path in sorted(root.glob("manifest*.jsonl")):
        rows = [{**row, SPLIT: parts[row["case_id"]]} if row["case_id"] in parts else row for row in read_rows(path)]
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


class DatasetWriter:
    """Writes cases into a folder, one by one; killed anywhere, it goes on. Use as a context manager.

    Leaving the block without an error finishes the dataset: ``dataset.json`` and the card are written (with shards, by
    the last one to finish).

    Args:
        root: the folder; cases that are there already are kept.
        labels: what the codes of every mask mean.
        name: what the dataset is called.
        shard: (i, n) where this is part i of n, counted from 0; else None.
        facts: JSON-like facts on how the dataset is made; a folder made otherwise is refused.

    Raises:
        InputError: the folder holds a dataset of another label table, unit or making; or no case was written.
    """

    def __init__(
        self,
        root: Path | str,
        labels: LabelTable,
        *,
        name: str = "dataset",
        shard: tuple[int, int] | None = None,
        facts: Mapping[str, Any] | None = None,
    ):
        self.root, self.labels, self.name, self.facts = Path(root), labels, name, dict(facts or {})
        self.shard = "full" if shard is None else f"{shard[0]}-of-{shard[1]}"
        self._manifest = self.root / ("manifest.jsonl" if shard is None else f"manifest.{self.shard}.jsonl")
        self._unit: IntensityUnit | None = None

    def __enter__(self) -> "DatasetWriter":
        if self.shard == "full":
            for folder, _ in FOLDERS.values():
                remove_partial(self.root / folder)
        self._rows = manifest(self.root)
        if (self.root / COMPLETE).exists() and not self._rows:
            raise InputError(f"{self.root} holds a dataset that cardiosynth did not write; choose another folder.")
        if (self.root / COMPLETE).exists() or (self.root / UNFINISHED).exists():
            self._check_agreement(read_description(self.root).intensity_unit)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def has(self, case_id: str) -> bool:
        """Whether the case is there already, files and row."""
        return case_id in self._rows and is_whole(self.root, self._rows[case_id])

    def write(self, case: Case) -> None:
        """Write one case; one of the same name is replaced.

        Raises:
            InputError: another label table or unit than the dataset's, or the disk is full.
        """
        self.admit(case.case_id, case.labels, case.intensity_unit)
        self.add(store_case(self.root, case))

    def admit(self, case_id: str, labels: LabelTable, unit: IntensityUnit) -> None:
        """See that a case belongs into this dataset; with the first one its description is written.

        Raises:
            InputError: another label table or unit than the dataset's.
        """
        if labels != self.labels:
            raise InputError(f"case {case_id} has another label table than {self.root}; give it the same.")
        if self._unit is None:
            self._check_agreement(unit)
            write_description(self.root, self._description(unit), None)
            self._unit = unit
        elif unit != self._unit:
            raise InputError(f"case {case_id} is in '{unit}', {self.root} in '{self._unit}'.")

    def add(self, row: Mapping[str, Any]) -> None:
        """Append the manifest row of a case whose files are there, as `store_case` returns it, maybe elsewhere."""
        append_row(self._manifest, row)
        self._rows[row["case_id"]] = dict(row)

    def _description(self, unit: IntensityUnit) -> Description:
        return Description(self.name, self.labels, unit, self.facts)

    def _check_agreement(self, unit: IntensityUnit) -> None:
        if not (self.root / COMPLETE).exists() and not (self.root / UNFINISHED).exists():
            return
        there, wanted = read_description(self.root), self._description(unit)
        if there.labels != wanted.labels:
            raise InputError(f"{self.root} holds a dataset with another label table; choose another folder.")
        if there.intensity_unit != unit:
            raise InputError(
                f"{self.root} holds images in '{there.intensity_unit}', not '{unit}'; choose another folder."
            )
        if fingerprint(there.facts) != fingerprint(wanted.facts):
            raise InputError(f"{self.root} was made with other settings; repeat them or choose another folder.")

    def _finish(self) -> None:
        if not self._rows and self.shard == "full":
            raise InputError(f"{self.root}: there was no case to write; check the source and the number of cases.")
        write_text(self.root / FINISHED / self.shard, "")
        finish_dataset(self.root)


def finish_dataset(root: Path) -> bool:
    """Write ``dataset.json`` and the card once every shard has finished.

    Returns:
        Whether it was so.
    """
    done = {path.name for path in (root / FINISHED).glob("*")}
    counts = {int(name.split("-of-")[1]) for name in done if "-of-" in name}
    shards_done = any(all(f"{i}-of-{n}" in done for i in range(n)) for n in counts)
    if not ("full" in done or shards_done) or not any(root.glob("manifest*.jsonl")):
        return False
    dataset = read_dataset(root)
    num_training = sum(dataset.has("image", i) and dataset.has("mask", i) for i in dataset.case_ids)
    write_text(root / "README.md", dataset_card(dataset.description, dataset.rows))
    write_color_tables(root, dataset.labels)
    write_description(root, dataset.description, num_training)
    (root / UNFINISHED).unlink(missing_ok=True)
    return True


def write_dataset(cases: Iterable[Case], root: Path | str, name: str = "dataset") -> Dataset:
    """Write ``cases`` as a dataset folder and open it. Cases of the same name are replaced, others kept.

    Raises:
        InputError: no case, cases of different label tables or units, or the disk is full.
    """
    iterator = iter(cases)
    first = next(iterator, None)
    if first is None:
        raise InputError(f"{root}: there is no case to write; give at least one.")
    with DatasetWriter(root, first.labels, name=name) as writer:
        writer.write(first)
        for case in iterator:
            writer.write(case)
    return read_dataset(root)
