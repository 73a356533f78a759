import json
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import label_table
from cardiosynth.data.sources.per_structure import per_structure

from .written import SHAPE, image, mask, write


def structure(folder: Path, name: str, voxels: slice) -> None:
    array = np.zeros(SHAPE, np.uint8)
    array[voxels, 2, 1] = 1
    write(folder / "segmentations" / f"{name}.nii.gz", array)


def two_cases(root: Path) -> Path:
    for name in ("s0001", "s0002"):
        image(root / name / "ct.nii.gz")
        structure(root / name, "aorta", slice(0, 3))
        structure(root / name, "heart_atrium_left", slice(2, 5))
    structure(root / "s0002", "spleen", slice(5, 6))
    return root


def line(case) -> list[int]:
    return case.mask[0, ::-1, 2, 1].tolist()  # stored as LPS


def test_the_first_of_the_table_keeps_what_overlaps_and_it_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    two_cases(tmp_path)
    (tmp_path / "labels.json").write_text(json.dumps({"heart_atrium_left": 3, "aorta": 2}))
    first, second = per_structure(tmp_path, licence="CC BY 4.0")
    assert line(first) == line(second) == [2, 2, 3, 3, 3, 0]
    assert first.provenance["overlaps"] == {"heart_atrium_left over aorta": 1}
    said = capsys.readouterr().err
    assert "1 of 3 structures are not in the table and passed over" in said
    assert "s0001: structures overlap, the first keeps the voxels: heart_atrium_left over aorta (1 voxels)" in said
    assert first.provenance["files"] == {"image": "s0001/ct.nii.gz", "masks": "s0001/segmentations"}
    assert (first.provenance["patient"], first.provenance["licence"]) == ("s0001", "CC BY 4.0")
    turned = label_table({"aorta": 2, "heart_atrium_left": 3})
    assert line(next(per_structure(tmp_path, turned))) == [2, 2, 2, 3, 3, 0]


def test_without_a_table_all_structures_are_taken_by_name(tmp_path: Path):
    cases = list(per_structure(two_cases(tmp_path)))
    assert [label.name for label in cases[0].labels] == ["aorta", "heart_atrium_left", "spleen"]
    assert [line(case) for case in cases] == [[1, 1, 1, 2, 2, 0], [1, 1, 1, 2, 2, 3]]


def test_mr_is_known_by_its_name(tmp_path: Path):
    image(tmp_path / "s0001" / "mri.nii.gz", 0)
    structure(tmp_path / "s0001", "aorta", slice(0, 1))
    assert next(per_structure(tmp_path)).intensity_unit == "mr"


def test_bad_folders_are_named_with_the_mend(tmp_path: Path):
    with pytest.raises(InputError, match="holds no CASE/segmentations/; give the folder that holds CASE/ct"):
        per_structure(tmp_path)
    two_cases(tmp_path)
    with pytest.raises(InputError, match="s0001 holds no CASE/segmentations/"):
        per_structure(tmp_path / "s0001")
    with pytest.raises(InputError, match="name some of aorta, heart_atrium_left, spleen"):
        per_structure(tmp_path, label_table({"kidney": 1}))
    mask(tmp_path / "s0001" / "segmentations" / "aorta.nii.gz", 1, affine=np.diag([-0.5, -0.5, 3.0, 1]))
    with pytest.raises(InputError, match=r"aorta\.nii\.gz have different affines"):
        next(per_structure(tmp_path))
    (tmp_path / "s0001" / "ct.nii.gz").unlink()
    with pytest.raises(InputError, match=r"s0001/ct\.nii\.gz does not exist"):
        next(per_structure(tmp_path))


def test_real_structures_of_one_scan_are_merged(real_data: Path, tmp_path: Path):
    scan = real_data / "cta_aorta" / "ct_and_masks"
    case = tmp_path / "cta"
    (case / "segmentations").mkdir(parents=True)
    (case / "ct.nii.gz").symlink_to(scan / "ct_cropped.nii.gz")
    for name in ("aorta_true_lumen", "aorta_false_lumen", "vertebrae_T12"):
        (case / "segmentations" / f"{name}.nii.gz").symlink_to(scan / f"{name}.nii.gz")
    names = {"aorta_true_lumen": 1, "aorta_false_lumen": 2, "vertebrae_T12": 3}
    found = next(per_structure(tmp_path, label_table(names)))
    assert found.grid.shape == (120, 126, 164)
    assert {1, 2} <= set(np.unique(found.mask).tolist()) <= {0, 1, 2, 3}
