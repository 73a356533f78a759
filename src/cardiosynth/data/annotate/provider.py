"""What a provider of masks is, and those that read files: given masks, and the dataset's own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable, Role, normalized_name
from cardiosynth.data.annotate.merge import Piece
from cardiosynth.data.annotate.plan import FilesSettings, TaskName, names_of, naming
from cardiosynth.data.annotate.structures import TASKS
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.description import COMPLETE, read_description, read_label_table
from cardiosynth.data.formats.files import is_image_file, read_mask, read_volume, stem
from cardiosynth.data.formats.volume import Volume
from cardiosynth.data.layout import FOLDERS, check_codes
from cardiosynth.data.listing import TABLE
from cardiosynth.data.sources.folder import MASK_NAME
from cardiosynth.data.sources.per_structure import MASKS


@runtime_checkable
class Provider(Protocol):
    """Something that gives a mask of named structures for a case."""

    @property
    def name(self) -> str:
        """What it is called in the provenance."""
        ...

    @property
    def roles(self) -> Mapping[str, Role]:
        """The structures that it gives, and their roles."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """JSON-like: ``kind``, ``licence`` and what identifies it. Other facts, other masks."""
        ...

    @property
    def table(self) -> LabelTable | None:
        """The codes of what `run` writes; None where it writes nothing."""
        ...

    def run(self, images: Mapping[str, Path], folder: Path) -> Iterator[tuple[str, str | None]]:
        """Make ``folder/CASE.nii.gz`` of each image; yield the case and, where it failed, why."""
        ...

    def pieces(self, case_id: str, folder: Path) -> list[Piece]:
        """Return the label maps of one case, made by `run` or given."""
        ...


@dataclass(frozen=True)
class Given:
    """Masks that lie in a folder.

    Attributes:
        settings: where, and what is renamed.
        root: folder of ``CASE.nii.gz`` or of ``CASE/STRUCTURE.nii.gz``.
        names: structure -> name in the result.
        codes: of ``CASE.nii.gz``; None for a file per structure.
        roles: name in the result -> role.
        licence: of the masks.
    """

    settings: FilesSettings
    root: Path
    names: Mapping[str, str]
    codes: LabelTable | None
    roles: Mapping[str, Role]
    licence: str
    table: None = None

    @property
    def name(self) -> str:
        """See `Provider`."""
        return str(self.settings.name)

    @property
    def facts(self) -> dict[str, Any]:
        """See `Provider`."""
        return {"kind": "files", "folder": self.root.name, **naming(self.settings), "licence": self.licence}

    def run(self, images: Mapping[str, Path], folder: Path) -> Iterator[tuple[str, str | None]]:
        """Look whether there is a mask for each image."""
        for case_id in images:
            try:
                self.pieces(case_id, folder)
            except InputError as error:
                yield case_id, str(error)

    def pieces(self, case_id: str, folder: Path) -> list[Piece]:
        """Return the label maps of one case.

        Raises:
            InputError: there is none, or it holds a code that the table does not name.
        """
        if self.codes is not None:
            path = _found(self.root, case_id)
            return [Piece(self.name, named_codes(self.codes, self.names), partial(read_labels, path, self.codes))]
        files = _structure_files(self.root, case_id)
        if not files:
            raise InputError(f"{self.root / case_id} holds no mask; add STRUCTURE.nii.gz or leave the case out.")
        return [
            Piece(self.name, {1: name}, partial(read_structure, files[structure]))
            for structure, name in self.names.items()
            if structure in files
        ]


@dataclass(frozen=True)
class Own:
    """The masks that the dataset has already; a case without one gets none from here."""

    dataset: Dataset
    name: str = "own"
    table: None = None

    @property
    def roles(self) -> dict[str, Role]:
        """See `Provider`."""
        return {label.name: label.role for label in self.dataset.labels}

    @property
    def facts(self) -> dict[str, Any]:
        """See `Provider`."""
        return {"kind": "own", "licence": ""}

    def run(self, images: Mapping[str, Path], folder: Path) -> Iterator[tuple[str, str | None]]:
        """Do nothing: what there is is there."""
        return iter(())

    def pieces(self, case_id: str, folder: Path) -> list[Piece]:
        """Return the mask of one case, if it has one."""
        if not self.dataset.has("mask", case_id):
            return []
        path, table = self.dataset.file("mask", case_id), self.dataset.labels
        return [Piece(self.name, {x.code: x.name for x in table}, partial(read_labels, path, table))]


def given_masks(settings: FilesSettings, case_ids: Sequence[str]) -> Given:
    """Return the provider of masks in a folder.

    Raises:
        InputError: no such folder, no label table for a file per case, or a structure renamed that is not there.
    """
    root = settings.folder
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give the folder that holds the masks.")
    if settings.task is not None:
        return _of_task(settings, settings.task)
    if settings.labels is None and not (root / TABLE).exists() and not (root / COMPLETE).exists():
        names = names_of(_structures(root, case_ids), settings)
        targets: dict[str, Role] = dict.fromkeys(names.values(), "target")
        return Given(settings, root, names, None, targets, settings.licence)
    if settings.labels is None and (root / COMPLETE).exists():
        table, root = read_description(root).labels, root / FOLDERS["mask"][0]
    else:
        table = read_label_table(settings.labels or root / TABLE)
    names = names_of([label.name for label in table], settings)
    roles: dict[str, Role] = {names[label.name]: label.role for label in table if label.name in names}
    return Given(settings, root, names, table, roles, settings.licence)


def _of_task(settings: FilesSettings, name: TaskName) -> Given:
    task = TASKS[name]
    names = names_of([*task.names, *task.others], settings, dict(task.names))
    roles: dict[str, Role] = {new: task.roles.get(new, task.role) for new in names.values()}
    return Given(settings, settings.folder, names, None, roles, settings.licence or task.licence(name))


def _structures(root: Path, case_ids: Sequence[str]) -> list[str]:
    """Return the names of all structures of which a case has a file."""
    names = sorted({structure for case_id in case_ids for structure in _structure_files(root, case_id)})
    if not names:
        raise InputError(
            f"{root} holds neither {TABLE} beside masks CASE.nii.gz nor a folder per case with a file per structure; "
            f'write {root / TABLE} as {{"left atrium": 1, ...}}.'
        )
    return names


def _structure_files(root: Path, case_id: str) -> dict[str, Path]:
    """Return structure -> file of a case; an image may lie above a folder of its masks."""
    inner = root / case_id / MASKS
    place = inner if inner.is_dir() else root / case_id
    return {stem(path): path for path in sorted(place.glob("*")) if is_image_file(path) and normalized_name(stem(path))}


def _found(root: Path, case_id: str) -> Path:
    files = [path for path in sorted(root.glob(f"{case_id}*")) if is_image_file(path)]
    for path in files:
        match = MASK_NAME.match(stem(path))
        if case_id in (stem(path), match and match[1]):
            return path
    raise InputError(f"{root / case_id}.nii.gz does not exist; add the mask or leave the case out.")


def named_codes(table: LabelTable, names: Mapping[str, str]) -> dict[int, str]:
    """Return code -> name in the result, for the structures of ``table`` that take part."""
    return {label.code: names[label.name] for label in table if label.name in names}


def read_labels(path: Path, table: LabelTable) -> Volume:
    """Read a label map.

    Raises:
        InputError: it cannot be read, or holds a code that ``table`` does not name.
    """
    volume = read_mask(path)
    check_codes(volume.array, table, path)
    return volume


def read_structure(path: Path) -> Volume:
    """Read a file of one structure: whatever is above one half is 1.

    Raises:
        InputError: it cannot be read.
    """
    volume = read_volume(path)
    return Volume((volume.array > 0.5).astype(np.uint8), volume.affine, volume.spacing_known, volume.facts)
