import json
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT, label_table
from cardiosynth.data.check.examination import Examined, check_dataset
from cardiosynth.data.dataset import DatasetWriter, write_dataset

from .conftest import found, only

VESSELS = label_table({"coronary artery": 1, "left atrium": 2})


def vessel_case(case_id: str, sides_mm: tuple[float, float, float]) -> Case:
    image, mask = np.zeros((1, 8, 8, 8), np.int16), np.zeros((1, 8, 8, 8), np.uint8)
    image[0, 0, 0, 0], mask[:, 2, 2, 2], mask[:, 5:7, 5:7, 5:7] = 1, 1, 2
    return Case(case_id=case_id, image=image, mask=mask, affine=np.diag([*sides_mm, 1.0]), labels=VESSELS)


def test_a_sound_dataset_has_nothing_to_mend(planted):
    examination = planted()
    assert [f.message for f in examination.findings if f.level != "info"] == []
    assert found(examination, "pairs")[0].facts == {"pairs": 3, "training_pairs": 6}


def test_facts_are_json_and_count_cases_grids_and_structures(planted, clean):
    facts = json.loads(json.dumps(planted().facts()))
    assert facts["cases"] == facts["pairs"] == 3
    assert facts["grids"] == [{"shape": [32, 32, 32], "spacing_mm": [3.75, 3.75, 3.75], "axes": "RAS", "cases": 3}]
    heart = {row["name"]: row for row in facts["structures"]}["left_ventricle"]
    volumes = [(case.required_mask() == 4).sum() * 3.75**3 / 1000 for case in clean]
    assert heart["cases"] == 3
    assert heart["volume_ml"] == pytest.approx(sorted(volumes), abs=0.01)
    assert sum(heart["histogram"]) == pytest.approx(1, abs=1e-3)


def test_every_case_is_handed_on_while_it_is_in_memory(clean, tmp_path: Path):
    write_dataset(clean, tmp_path)
    seen: list[Examined] = []
    check_dataset(tmp_path, each=seen.append)
    assert [each.case.case_id for each in seen] == [case.case_id for case in clean]
    row = json.loads(json.dumps(seen[0].row()))
    code = clean[0].labels.named("left_ventricle").code
    median = np.median(clean[0].required_image()[clean[0].required_mask() == code])
    assert {each["name"]: each for each in row["structures"]}["left_ventricle"]["median"] == median


def test_a_case_that_cannot_be_read_does_not_stop_the_rest(clean, tmp_path: Path):
    write_dataset(clean, tmp_path)
    path = tmp_path / "imagesTr" / f"{clean[1].case_id}_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:-30])
    examination = check_dataset(tmp_path)
    assert [(f.level, f.case_id) for f in found(examination, "unreadable")] == [("error", clean[1].case_id)]
    assert len(examination.grids) == 2


def test_an_empty_mask_is_an_error(planted, clean):
    assert only(planted(mask=clean[2].required_mask() * 0), "empty_mask", "error").case_id == clean[2].case_id


def test_a_case_without_a_mask_is_good_to_know(planted):
    assert "no mask" in only(planted(mask=None), "no_mask", "info").text


def test_an_unknown_voxel_size_is_told(planted):
    assert "voxel size is unknown" in only(planted(spacing_known=False), "unknown_spacing").text


def test_a_sheared_affine_is_told(planted, clean):
    sheared = clean[2].affine + np.diag([0.3, 0, 0], 1)
    examination = planted(affine=sheared)
    assert "prepare" in found(examination, "sheared")[0].text


def test_another_grid_is_told_with_the_command_that_mends_it(planted, clean):
    examination = planted(affine=clean[2].affine @ np.diag([1, 1, 0.9, 1]))
    assert "2 kinds of grid, 2 of 3" in only(examination, "grids").text
    assert "--shape 32 32 32 --spacing-mm 3.75 3.75 3.75" in only(examination, "grids").text


@pytest.mark.parametrize(
    ("sides_mm", "warned"), [((1.25, 1.25, 1.25), False), ((0.5, 0.5, 1.6), True), ((1.6, 1.6, 1.6), True)]
)
def test_the_widest_side_of_a_voxel_decides_whether_coronary_arteries_are_lost(tmp_path, sides_mm, warned):
    write_dataset([vessel_case(name, sides_mm) for name in "ab"], tmp_path)
    assert bool(found(check_dataset(tmp_path), "wide_voxels")) is warned


def test_one_pair_is_too_few_for_training(clean, planted):
    examination = planted([clean[0], clean[1].with_(mask=None)])
    assert "too few for training" in only(examination, "pairs", "error").text


def test_a_missing_description_is_written_once_all_shards_are_there(clean, tmp_path: Path):
    for shard in (0, 1):
        with DatasetWriter(tmp_path, clean[0].labels, shard=(shard, 2)) as writer:
            writer.write(clean[shard])
        if shard == 0:
            assert "not every shard" in found(check_dataset(tmp_path), "unfinished")[0].text
            assert not (tmp_path / "dataset.json").exists()
    (tmp_path / "dataset.json").rename(tmp_path / ".description.json")
    assert not found(check_dataset(tmp_path), "unfinished")
    assert json.loads((tmp_path / "dataset.json").read_text())["numTraining"] == 2


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="dataset folder"):
        check_dataset(tmp_path)


def test_the_default_table_expects_two_coronary_trees():
    assert CARDIAC_CT.named("coronary artery").components == 2
