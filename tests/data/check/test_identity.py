import json
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.data.check.examination import check_dataset
from cardiosynth.data.check.identity import identity
from cardiosynth.data.dataset import write_dataset

from .conftest import found, only


def renamed(case, name: str, **changes):
    return case.with_(case_id=name, provenance={**case.provenance, "patient": name}, **changes)


def with_splits(root: Path, splits: dict[str, str]) -> None:
    path = root / "manifest.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "split": splits[row["case_id"]]}) + "\n" for row in rows))


def test_the_same_image_under_another_name_is_found(planted, clean):
    finding = only(planted([*clean, renamed(clean[0], "copy")]), "duplicate_image")
    assert finding.facts["cases"] == ["copy", clean[0].case_id]


def test_the_same_image_in_other_numbers_is_found(planted, clean):
    image = clean[0].required_image()
    other = (image.astype(np.int16) + 24).astype(np.int16)
    finding = found(planted([*clean, renamed(clean[0], "copy", image=other)]), "duplicate_image")[0]
    assert "other numbers" in finding.text
    assert finding.facts["cases"] == ["copy", clean[0].case_id]


@pytest.mark.parametrize("change", [lambda v: v.astype(np.float32), lambda v: v * np.float32(0.37) - 5])
def test_type_slope_and_offset_do_not_hide_an_image(clean, change):
    case = clean[0]
    other = case.with_(image=change(case.required_image()).astype(np.float32))
    assert identity(case, {}).picture == identity(other, {}).picture
    assert identity(case, {}).picture != identity(clean[1], {}).picture


def test_the_same_mask_on_another_image_is_found(planted, clean):
    moved = clean[1].with_(mask=clean[0].required_mask())
    finding = found(planted([clean[0], moved, clean[2]]), "duplicate_mask")[0]
    assert finding.facts["cases"] == [clean[0].case_id, clean[1].case_id]


def test_one_mask_may_make_many_synthetic_images(planted, clean):
    cases = [renamed(clean[0], name, origin="synthetic", image=case.required_image())
             for name, case in zip("abc", clean, strict=True)]  # fmt: skip
    assert not found(planted(cases), "duplicate_mask")


def test_a_patient_in_two_splits_is_an_error(planted, clean, tmp_path: Path):
    cases = [case.with_(case_id=f"patient{i // 2}_frame{i}", provenance={}) for i, case in enumerate(clean)]
    planted(cases)
    names = [case.case_id for case in cases]
    with_splits(tmp_path / "data", dict(zip(names, ("train", "test", "test"), strict=True)))
    finding = only(check_dataset(tmp_path / "data"), "leak", "error")
    assert finding.facts == {"cases": names[:2], "splits": ["test", "train"]}
    with_splits(tmp_path / "data", dict.fromkeys(names, "train"))
    assert not found(check_dataset(tmp_path / "data"), "leak")


def test_a_patient_here_and_there_is_found_by_name(planted, clean, tmp_path: Path):
    planted()
    image = clean[0].required_image() + np.int16(1) * (clean[0].required_image() > 0)
    write_dataset([clean[0].with_(case_id="again", image=image, mask=None)], tmp_path / "test")
    finding = only(check_dataset(tmp_path / "data", [tmp_path / "test"]), "leak", "error")
    assert finding.facts["cases"] == [clean[0].case_id, f"{tmp_path / 'test'}:again"]


def test_patients_of_other_sources_may_share_a_name(planted, clean, tmp_path: Path):
    planted()
    other = clean[0].with_(
        provenance={**clean[0].provenance, "seed": 7}, image=clean[0].required_image()[:, ::-1].copy()
    )
    write_dataset([other], tmp_path / "test")
    assert not found(check_dataset(tmp_path / "data", [tmp_path / "test"]), "leak")


def test_names_without_a_source_are_a_doubt(planted, clean, tmp_path: Path):
    planted([case.with_(provenance={}, origin="real") for case in clean])
    other = clean[0].with_(provenance={}, origin="real", image=clean[0].required_image()[:, ::-1].copy())
    write_dataset([other], tmp_path / "test")
    finding = found(check_dataset(tmp_path / "data", [tmp_path / "test"]), "leak")[0]
    assert finding.level == "warning"
    assert "if these are the same patients" in finding.text


def test_an_image_here_and_there_is_an_error_whatever_its_name(planted, clean, tmp_path: Path):
    planted()
    write_dataset([renamed(clean[1], "other")], tmp_path / "test")
    finding = found(check_dataset(tmp_path / "data", [tmp_path / "test"]), "duplicate_image")[0]
    assert finding.level == "error"
    assert finding.facts["cases"] == [clean[1].case_id, f"{tmp_path / 'test'}:other"]


def test_children_of_the_test_set_are_told(planted, clean, tmp_path: Path):
    made = [case.with_(case_id=f"made-{i}", origin="synthetic", provenance={"parents": [case.case_id], "template": "t"})
            for i, case in enumerate(clean)]  # fmt: skip
    planted(made)
    write_dataset([renamed(clean[0], clean[0].case_id, image=clean[0].required_image()[:, ::-1].copy(), mask=None)],
                  tmp_path / "test")  # fmt: skip
    finding = found(check_dataset(tmp_path / "data", [tmp_path / "test"]), "leak")[0]
    assert finding.facts["cases"] == ["made-0"]
    assert "made from masks or templates" in finding.text


def test_two_parts_of_one_folder_are_two_datasets(planted, clean, tmp_path: Path):
    planted([*clean, renamed(clean[0], "copy")])
    names = [case.case_id for case in clean]
    with_splits(tmp_path / "data", {names[0]: "train", names[1]: "train", names[2]: "test", "copy": "test"})
    examination = check_dataset(f"{tmp_path / 'data'}:train", [f"{tmp_path / 'data'}:test"])
    assert set(examination.grids) == set(names[:2])
    finding = only(examination, "duplicate_image", "error")
    assert finding.facts["cases"] == [names[0], f"{tmp_path / 'data'}:test:copy"]
