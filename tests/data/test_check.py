import json
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT, label_table
from cardiosynth.data.check import check_dataset
from cardiosynth.data.dataset import DatasetWriter, write_dataset
from cardiosynth.data.formats.nifti import write_nifti

TABLE = label_table({"coronary artery": 1, "left atrium": 2})


def make_case(case_id: str, **changes) -> Case:
    mask = np.zeros((1, 8, 8, 8), np.uint8)
    mask[:, 1:3, 1:3, 1:3], mask[:, 5:7, 5:7, 5:7] = 1, 2
    image = np.full((1, 8, 8, 8), -50, np.int16)
    facts = {"case_id": case_id, "image": image, "mask": mask, "affine": np.eye(4), "labels": TABLE}
    return Case(**{**facts, **changes})


def messages(root: Path, level: str) -> str:
    return "\n".join(f.message for f in check_dataset(root) if f.level == level)


def test_a_sound_dataset_has_nothing_to_mend(tmp_path: Path):
    write_dataset([make_case("a"), make_case("b")], tmp_path)
    findings = check_dataset(tmp_path)
    assert [f.level for f in findings] == ["info"]
    assert "2 cases, 2 of them" in findings[0].message


def test_missing_changed_and_orphaned_files_are_named(tmp_path: Path):
    write_dataset([make_case("a"), make_case("b"), make_case("c")], tmp_path)
    (tmp_path / "labelsTr" / "a.nii.gz").unlink()
    write_nifti(tmp_path / "labelsTr" / "b.nii.gz", make_case("b").mask * 2 % 3, np.eye(4))
    write_nifti(tmp_path / "imagesTr" / "stray_0000.nii.gz", make_case("a").image, np.eye(4))
    errors, warnings = messages(tmp_path, "error"), messages(tmp_path, "warning")
    assert "a.nii.gz is missing" in errors
    assert "b.nii.gz has changed" in errors
    assert "stray_0000.nii.gz is in no manifest" in warnings


def test_a_damaged_file_is_an_error_of_its_case(tmp_path: Path):
    write_dataset([make_case("a"), make_case("b"), make_case("c")], tmp_path)
    path = tmp_path / "imagesTr" / "a_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:-30])
    assert [f.case_id for f in check_dataset(tmp_path) if "truncated or damaged" in f.message] == ["a"]


@pytest.mark.parametrize(
    ("changes", "level", "part"),
    [
        ({"mask": np.zeros((1, 8, 8, 8), np.uint8)}, "error", "mask is empty"),
        ({"mask": make_case("a").mask % 2}, "warning", "lacks left_atrium"),
        ({"mask": None}, "info", "no mask"),
        ({"image": np.linspace(0, 4000, 512, dtype=np.float32).reshape(1, 8, 8, 8)}, "error", "cannot be HU"),
        ({"spacing_known": False}, "warning", "voxel size is unknown"),
        ({"affine": np.diag([1, 1, 3.0, 1])}, "warning", "3 mm wide lose coronary arteries"),
        ({"affine": np.diag([1, 1, 3.0, 1])}, "warning", "2 kinds of grid"),
        ({"affine": np.eye(4) + np.diag([0.3, 0, 0], 1)}, "warning", "sheared"),
        ({"mask": np.where(make_case("a").mask > 0, 2, 0).astype(np.uint8)}, "warning", "left_atrium is in 2 pieces"),
    ],
)
def test_every_finding_fires(tmp_path: Path, changes: dict, level: str, part: str):
    write_dataset([make_case("a"), make_case("b"), make_case("odd", **changes)], tmp_path)
    assert part in messages(tmp_path, level)


@pytest.mark.parametrize(
    ("sides_mm", "warned"), [((1.25, 1.25, 1.25), False), ((0.5, 0.5, 1.6), True), ((1.6, 1.6, 1.6), True)]
)
def test_the_widest_side_of_a_voxel_decides_whether_coronary_arteries_are_lost(tmp_path, sides_mm, warned):
    affine = np.diag([*sides_mm, 1.0])
    write_dataset([make_case("a", affine=affine), make_case("b", affine=affine)], tmp_path)
    assert ("lose coronary arteries" in messages(tmp_path, "warning")) is warned


def test_wide_voxels_without_coronary_arteries_are_fine(tmp_path: Path):
    mask = (make_case("a").mask // 2 * 2).astype(np.uint8)
    cases = [make_case(name, affine=np.diag([3.0, 3.0, 3.0, 1.0]), mask=mask) for name in "ab"]
    write_dataset(cases, tmp_path)
    assert "lose coronary arteries" not in messages(tmp_path, "warning")


def test_one_pair_is_too_few_for_training(tmp_path: Path):
    write_dataset([make_case("a"), make_case("b", mask=None)], tmp_path)
    assert "too few for training" in messages(tmp_path, "error")


def test_a_missing_description_is_written_once_all_shards_are_there(tmp_path: Path):
    for shard in (0, 1):
        with DatasetWriter(tmp_path, TABLE, shard=(shard, 2)) as writer:
            writer.write(make_case(f"case-{shard}"))
        if shard == 0:
            assert "not every shard" in messages(tmp_path, "warning")
            assert not (tmp_path / "dataset.json").exists()
    (tmp_path / "dataset.json").rename(tmp_path / ".description.json")
    assert "not every shard" not in messages(tmp_path, "warning")
    assert json.loads((tmp_path / "dataset.json").read_text())["numTraining"] == 2


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="dataset folder"):
        check_dataset(tmp_path)


def test_the_default_table_expects_two_coronary_trees():
    assert CARDIAC_CT.named("coronary artery").components == 2
