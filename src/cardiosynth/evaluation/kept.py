"""What an evaluation has already measured, case by case, so that one that was killed goes on."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pydantic

from cardiosynth.core.store import append_row, fingerprint, read_rows, whole_file
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.layout import Part

Measured = TypeVar("Measured")


class Kept:
    """Measurements by case and protocol. What is there is not measured again.

    Args:
        folder: where they lie, until whoever has the results written removes it; None keeps nothing.
        protocol: JSON-like; everything besides the case that the numbers depend on.
    """

    def __init__(self, folder: Path | None, protocol: Mapping[str, Any]):
        self._folder, self._protocol = folder, dict(protocol)
        rows = [] if folder is None else read_rows(folder / "rows.jsonl")
        self._rows = {row["key"]: row["value"] for row in rows}

    def value(self, adapter: pydantic.TypeAdapter, key: str, measure: Callable[[], Measured]) -> Measured:
        """Return what ``measure`` returns, of the adapter's type, from an earlier run where it was measured."""
        if key not in self._rows:
            found = measure()
            if self._folder is not None:
                append_row(self._folder / "rows.jsonl", {"key": key, "value": adapter.dump_python(found)})
            return found
        return adapter.validate_python(self._rows[key])

    def arrays(self, key: str, measure: Callable[[], Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
        """Return the arrays that ``measure`` returns, from an earlier run where it was measured."""
        if self._folder is None:
            return measure()
        path = self._folder / f"{key}.npz"
        if not path.exists():
            found = measure()
            with whole_file(path) as partial:
                np.savez(partial, **found)  # pyright: ignore[reportArgumentType]
            return found
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)

    def key(self, what: str, dataset: Dataset, *case_ids: str, beside: str = "") -> str:
        """Return the name of a measurement: it changes with the protocol and with the files of the cases.

        Args:
            what: is measured.
            dataset: of the cases.
            case_ids: the cases it is measured on.
            beside: identifies what else the numbers depend on.
        """
        return fingerprint([what, self._protocol, identity(dataset, case_ids), beside])


def identity(dataset: Dataset, case_ids: Iterable[str]) -> list[Any]:
    """Return what changes when the files of these cases do: their hashes, or sizes and times where none are known."""
    parts: tuple[Part, ...] = ("image", "mask")
    rows = ((case_id, dataset.row(case_id).get("files")) for case_id in case_ids)
    files = [[name, found or [_stamp(dataset.file(part, name)) for part in parts]] for name, found in rows]
    return [str(dataset.root.resolve()), files]


def _stamp(path: Path) -> list[int]:
    """Return size and time of a file whose hash nobody has written down."""
    if not path.exists():
        return []
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
