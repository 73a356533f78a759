"""Files that are whole or absent: atomic writes, JSON, append-only rows, and checkpoints without pickle.

A checkpoint is a folder ``step-0000100/`` with ``model.safetensors`` (what one uses: the averaged weights),
``training.safetensors`` (raw weights and optimizer state, to go on training) and ``record.json`` (what it is).
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from cardiosynth.core.errors import InputError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` (same suffixes); on success it becomes ``path``, else it is removed.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".partial-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); free space or choose another folder."
        ) from error
    finally:
        with suppress(OSError):  # what went wrong has been said; there may be no folder to clean
            partial.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it replaces ``path``, else it is removed."""
    path = Path(path)
    partial = path.with_name(f".partial-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        partial.mkdir(parents=True)
        yield partial
        shutil.rmtree(path, ignore_errors=True)
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); free space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as readable JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        InputError: the file is missing or broken.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); write it anew.") from error


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append one JSON line to ``path``, flushed to disk. A line that a kill cut short is removed first.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    line = (json.dumps(dict(row), ensure_ascii=False) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.truncate(_end_of_lines(file))
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); free space or choose another folder."
        ) from error


def _end_of_lines(file: BinaryIO) -> int:
    """Return the position after the last line break, 0 where there is none."""
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - 4096)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; a last line cut short by a kill is passed over. A missing file has no rows."""
    if not path.exists():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            rows += [json.loads(line)] if line else []
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise InputError(f"{path}, line {number} is not JSON ({error}); remove that line.") from error
    return rows


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(value: Any) -> str:
    """Return 16 hexadecimal digits that identify a JSON-like value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


Tensors = Mapping[str, Any]


def save_checkpoint(run: Path, step: int, model: Tensors, training: Tensors, record: Mapping[str, Any]) -> Path:
    """Write ``run/step-NNNNNNN/``, whole or not at all.

    Args:
        run: the stage's folder.
        step: optimizer steps taken.
        model: name -> tensor, the weights one uses (averaged).
        training: name -> tensor, everything else that resuming needs.
        record: JSON-like description; ``step`` and the weights' ``fingerprint`` are added.

    Returns:
        The checkpoint's folder.
    """
    target = run / f"step-{step:07d}"
    with whole_folder(target) as partial:
        save_tensors(model, partial / "model.safetensors")
        save_tensors(training, partial / "training.safetensors")
        digest = file_sha256(partial / "model.safetensors")[:16]
        write_json(partial / "record.json", {**record, "step": step, "fingerprint": digest})
    return target


def checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a stage's folder, oldest first."""
    return sorted(p for p in run.glob("step-*") if (p / "record.json").exists())


def latest_checkpoint(run: Path) -> Path:
    """Return the newest checkpoint of a stage's folder, or ``run`` itself where it is one.

    Raises:
        InputError: there is none.
    """
    if (run / "record.json").exists():
        return run
    found = checkpoints(run)
    if not found:
        raise InputError(f"{run} holds no checkpoint; train this stage first or name another run.")
    return found[-1]


def save_tensors(tensors: Tensors, path: Path) -> None:
    """Write name -> tensor as a safetensors file.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: value.detach().contiguous().cpu() for name, value in tensors.items()}, path)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def load_tensors(path: Path) -> dict[str, Any]:
    """Read a safetensors file.

    Raises:
        InputError: missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read as weights ({error}); train the stage anew.") from error


def remove_old(run: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints of a stage's folder."""
    for path in checkpoints(run)[:-keep]:
        shutil.rmtree(path, ignore_errors=True)


def remove_partial(folder: Path) -> None:
    """Remove what killed writers left half-written in ``folder``; only for a folder that nobody else writes now."""
    for path in folder.glob(".partial-*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
