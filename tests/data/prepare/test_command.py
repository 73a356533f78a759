"""The verb as it is typed: what it shows, what it refuses, and how it ends."""

import json
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.cli import main
from cardiosynth.data.dataset import read_dataset, write_dataset

from .scans import scan

GOOD = scan(np.eye(4))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three patients, the last without a drawing in his mask."""
    cases = [GOOD.with_(case_id=name) for name in ("p1", "p2")]
    empty = GOOD.with_(case_id="p3", mask=np.zeros_like(GOOD.mask))
    return write_dataset([*cases, empty], tmp_path / "source").root


def run(source: Path, out: Path, *words: str) -> None:
    main(["prepare", "nnunet", str(source), str(out), "--shape", "16", "16", "16", *words])


def test_a_broken_case_ends_with_exit_code_2_unless_asked_to_keep_going(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        run(source, tmp_path / "out")
    assert ended.value.code == 2
    assert "case p3: the mask is empty" in capsys.readouterr().err
    run(source, tmp_path / "out", "--keep-going", "--split", "train=2,test=1")
    assert len(read_dataset(tmp_path / "out")) == 2


def test_a_dry_run_shows_structures_and_writes_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run(source, tmp_path / "out", "--dry-run", "--sample", "1", "--map", "heart=left ventricle", "--json")
    printed = capsys.readouterr().out
    found = json.loads(printed[printed.index('{\n  "cases"') :])
    assert [(row["source"], row["target"]) for row in found["structures"]] == [
        ("heart", "left_ventricle"),
        ("rib", "rib"),
    ]
    assert (found["looked_at"], found["cases"]) == (1, 3)
    with pytest.raises(SystemExit) as ended:
        run(source, tmp_path / "out", "--dry-run", "--to-labels", "cardiac_ct")
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert "heart -> ?" in shown.out
    assert "--map 'heart=NAME'" in shown.err
    assert not (tmp_path / "out").exists()


def test_one_part_of_a_split_is_opened_where_a_dataset_is_asked_for(source: Path, tmp_path: Path):
    run(source, tmp_path / "out", "--keep-going", "--split", "train=1,test=rest")
    train, test = (read_dataset(f"{tmp_path}/out:{part}").case_ids for part in ("train", "test"))
    assert sorted([*train, *test]) == ["p1", "p2"]
    main(["masks", f"{tmp_path}/out:train", str(tmp_path / "masks"), "--cases", "1", "--recipe", "fcas/tiny"])
    assert tuple(read_dataset(tmp_path / "masks")[0].provenance["parents"]) == train
