"""Which structure of a source becomes which of the dataset: by name, never by code."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from cardiosynth.core.config import Settings, parse_settings
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.labels import CARDIAC_CT, Label, LabelTable, label_table, normalized_name
from cardiosynth.core.store import checkpoints, latest_checkpoint, read_json
from cardiosynth.data.description import read_description, read_label_table

BACKGROUND = "background"
CARDIAC = "cardiac_ct"
"""Name of the default table, FCaS's eight structures and nine surroundings."""


class LabelMapping(Settings):
    """How the structures of a source are named in the dataset.

    Attributes:
        table: the dataset's table; None keeps the source's, with the names changed.
        names: name in the source -> name in the dataset, or None where the structure becomes background. Several may
            become one; what is not listed keeps its name.
    """

    table: LabelTable | None = None
    names: dict[str, str | None] = pydantic.Field(default_factory=dict)

    def resolve(self, source: LabelTable) -> dict[str, Label | None]:
        """Return what each structure of ``source`` becomes, None for background.

        Raises:
            InputError: a name that ``source`` does not have, or a structure that the dataset's table does not.
        """
        known = [label.name for label in source]
        for name in self.names:
            if name not in known:
                raise InputError(f"--map {name}: the source has no such structure" + suggest(name, known))
        wanted = {name: self.names.get(name, name) for name in known}
        table = self.table or _renamed(source, wanted)
        labels = {label.name: label for label in table}
        lacking = [name for name, new in wanted.items() if new is not None and new not in labels]
        if lacking:
            raise InputError(_lacking(lacking, wanted, sorted(labels)))
        return {name: None if new is None else labels[new] for name, new in wanted.items()}

    def target(self, source: LabelTable) -> LabelTable:
        """Return the table that masks of ``source`` get."""
        if self.table is not None:
            return self.table
        becomes = {label.code: label for label in self.resolve(source).values() if label is not None}
        if not becomes:
            raise InputError("--map drops every structure of the source; keep at least one.")
        return LabelTable(labels=tuple(becomes[code] for code in sorted(becomes)))

    def apply(self, mask: np.ndarray, source: LabelTable) -> np.ndarray:
        """Return ``mask`` (any shape, uint8, codes of ``source``) in the codes of the dataset."""
        codes = np.zeros(256, np.uint8)
        becomes = self.resolve(source)
        for label in source:
            new = becomes[label.name]
            codes[label.code] = 0 if new is None else new.code
        return codes[mask]


def _renamed(source: LabelTable, wanted: Mapping[str, str | None]) -> LabelTable:
    """Return the source's table under the names wanted; of structures that become one, the first gives the code."""
    own = {label.name: label for label in source}
    labels: dict[str, Label] = {}
    for name, new in wanted.items():
        if new is None or new in labels:
            continue
        if new in own and wanted[new] == new:
            labels[new] = own[new]
        else:
            labels[new] = next(iter(label_table({new: own[name].code})))
    # Where nothing is left, the mask is refused by whoever asks for the table.
    return LabelTable(labels=tuple(labels.values())) if labels else source


def _lacking(names: list[str], wanted: Mapping[str, str | None], allowed: list[str]) -> str:
    first = names[0]
    hint = suggest(str(wanted[first]), allowed)
    return (
        f"the dataset's label table has no {', '.join(names)}; say what each becomes with --map '{first}=NAME', or "
        f"--map '{first}={BACKGROUND}' to leave it out{hint}"
    )


def read_mapping(texts: Iterable[str]) -> dict[str, str | None]:
    """Read ``--map``: ``"source name=name"`` each, or a JSON file ``{"source name": "name", "other": null}``.

    ``null`` and ``background`` both leave a structure out.

    Raises:
        InputError: neither of these, or one structure that would become two.
    """
    names: dict[str, str | None] = {}
    for text in texts:
        pairs: Mapping[str, Any] = dict([text.split("=", 1)]) if "=" in text else _mapping_file(Path(text))
        for source, new in pairs.items():
            _add(names, source, new, text)
    return names


def _add(names: dict[str, str | None], source: str, new: Any, origin: str) -> None:
    if not isinstance(new, str | None):
        raise InputError(f"--map {origin}: '{source}' becomes {new!r}; one structure becomes one name, or null.")
    name, wish = normalized_name(source), normalized_name(new or BACKGROUND)
    target = None if wish in ("", BACKGROUND, "null") else wish
    if name in names and names[name] != target:
        raise InputError(
            f"--map {origin}: '{name}' is to become '{names[name] or BACKGROUND}' already; a name cannot split a "
            "structure, draw the two parts first."
        )
    names[name] = target


def _mapping_file(path: Path) -> Mapping[str, Any]:
    if path.suffix != ".json":
        raise InputError(f"--map {path}: write it as 'source name=name', or give a JSON file of such pairs.")
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f'{path} is no mapping; write it as {{"source name": "name", ...}}.')
    return content


def read_target_table(text: str) -> LabelTable:
    """Return the label table that ``--to-labels`` names.

    Args:
        text: ``cardiac_ct``, a dataset folder, a stage's folder or a checkpoint, or a JSON file ``{"name": code}``.

    Raises:
        InputError: none of these.
    """
    if normalized_name(text) == CARDIAC:
        return CARDIAC_CT
    path = Path(text)
    if path.is_dir() and (checkpoints(path) or (path / "record.json").exists()):
        record = latest_checkpoint(path) / "record.json"
        return parse_settings(LabelTable, read_json(record).get("labels", {}), str(record))
    if path.is_dir():
        return read_description(path).labels
    if not path.exists():
        raise InputError(f"--to-labels {text}: there is no such file or folder, and the built-in table is {CARDIAC}.")
    return read_label_table(path)
