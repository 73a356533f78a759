import json
from pathlib import Path

import pytest
import torch

from cardiosynth.core.errors import InputError
from cardiosynth.core.store import (
    append_row,
    checkpoints,
    file_sha256,
    fingerprint,
    latest_checkpoint,
    load_tensors,
    read_json,
    read_rows,
    remove_old,
    save_checkpoint,
    whole_file,
    whole_folder,
    write_json,
    write_text,
)


def test_a_file_is_whole_or_absent(tmp_path: Path):
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "one")
    with pytest.raises(UnicodeEncodeError), whole_file(path) as partial:
        partial.write_text("half \ud800", encoding="utf-8")
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match=r"a\.txt cannot be written \(No space left on device\); free space"):
        write_text(tmp_path / "a.txt", "one")
    with pytest.raises(InputError, match="No space left"), whole_folder(tmp_path / "folder") as partial:
        (partial / "b").write_text("x")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path):
    target = tmp_path / "folder"
    with whole_folder(target) as partial:
        (partial / "old").write_text("1")
    with whole_folder(target) as partial:
        (partial / "new").write_text("2")
    assert [p.name for p in target.iterdir()] == ["new"]
    with pytest.raises(RuntimeError), whole_folder(target):
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_json_is_read_again_and_damage_is_named(tmp_path: Path):
    write_json(tmp_path / "a.json", {"a": [1, None, "ü"]})
    assert read_json(tmp_path / "a.json") == {"a": [1, None, "ü"]}
    (tmp_path / "b.json").write_text("{")
    for name, part in (("b.json", "not valid JSON"), ("c.json", "cannot be read")):
        with pytest.raises(InputError, match=part):
            read_json(tmp_path / name)


def test_rows_survive_a_kill_in_mid_line(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    assert read_rows(path) == []
    first = {"a": 1, "text": "line\u2028separator\nand break"}
    append_row(path, first)
    with path.open("a") as file:
        file.write('{"a": 2, "half')
    assert read_rows(path) == [first]
    append_row(path, {"a": 3})
    assert read_rows(path) == [first, {"a": 3}]
    path.write_text('{"only half')
    append_row(path, {"a": 4})
    assert read_rows(path) == [{"a": 4}]


def test_a_long_half_line_is_removed_too(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    append_row(path, {"a": 1})
    with path.open("a") as file:
        file.write("x" * 10000)
    append_row(path, {"a": 2})
    assert read_rows(path) == [{"a": 1}, {"a": 2}]


def test_damage_in_the_middle_is_named(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\nbroken\n{"a": 2}\n')
    with pytest.raises(InputError, match="line 2 is not JSON"):
        read_rows(tmp_path / "rows.jsonl")


def test_a_row_that_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="cannot be written"):
        append_row(tmp_path / "file" / "rows.jsonl", {})


def test_fingerprints_depend_on_content_only(tmp_path: Path):
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_checkpoint_holds_weights_state_and_record(tmp_path: Path):
    weights, state = {"w": torch.arange(6.0).reshape(2, 3).T}, {"m": torch.ones(2)}
    folder = save_checkpoint(tmp_path, 100, weights, state, {"recipe": "tiny"})
    assert folder.name == "step-0000100"
    assert torch.equal(load_tensors(folder / "model.safetensors")["w"], weights["w"])
    assert torch.equal(load_tensors(folder / "training.safetensors")["m"], state["m"])
    record = json.loads((folder / "record.json").read_text())
    assert (record["recipe"], record["step"], len(record["fingerprint"])) == ("tiny", 100, 16)


def test_the_newest_checkpoint_is_found_and_old_ones_go(tmp_path: Path):
    with pytest.raises(InputError, match="holds no checkpoint"):
        latest_checkpoint(tmp_path)
    for step in (5, 40, 300):
        save_checkpoint(tmp_path, step, {"w": torch.zeros(1)}, {}, {})
    (tmp_path / "step-9999999").mkdir()
    assert latest_checkpoint(tmp_path).name == "step-0000300"
    assert latest_checkpoint(tmp_path / "step-0000005").name == "step-0000005"
    remove_old(tmp_path, keep=2)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-0000040", "step-0000300"]


def test_damaged_weights_are_named(tmp_path: Path):
    (tmp_path / "w.safetensors").write_bytes(b"no weights")
    for name in ("w.safetensors", "none.safetensors"):
        with pytest.raises(InputError, match="cannot be read as weights"):
            load_tensors(tmp_path / name)
