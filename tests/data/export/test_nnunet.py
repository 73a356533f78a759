import json
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import label_table
from cardiosynth.data.dataset import Dataset, mark_parts, read_dataset, write_dataset
from cardiosynth.data.export.nnunet import MAPPING, export_nnunet

TABLE = label_table({"pulmonary artery": 85, "left atrium": 7, "aorta": 20})
OBLIQUE = np.array([[0.9, -0.3, 0, 5], [0.3, 0.9, 0, -7], [0, 0, 2.5, 11], [0, 0, 0, 1.0]])
SHEARED = np.array([[1, 0, 0, 0], [0, 1, 0.3, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def case(case_id: str, **changes) -> Case:
    rng = np.random.default_rng(len(case_id))
    values = {
        "image": rng.integers(-1000, 1500, (1, 12, 10, 8)).astype(np.int16),
        "mask": rng.choice(np.array([0, 7, 20, 85], np.uint8), (1, 12, 10, 8)),
        "affine": OBLIQUE,
        "labels": TABLE,
        "origin": "synthetic",
    }
    return Case(case_id=case_id, **{**values, **changes})


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write_dataset([case("a"), case("bb"), case("ccc", mask=None), case("dddd", image=None)], tmp_path / "made")


def test_codes_become_consecutive_and_the_mapping_stands_beside(dataset: Dataset, tmp_path: Path):
    out = tmp_path / "raw" / "Dataset501_Heart"
    made = export_nnunet(dataset, out)
    names = {"background": 0, "left_atrium": 1, "aorta": 2, "pulmonary_artery": 3}
    assert json.loads((out / "dataset.json").read_text())["labels"] == names
    assert list(json.loads((out / "dataset.json").read_text())["labels"].values()) == [0, 1, 2, 3]
    assert json.loads((out / MAPPING).read_text())["aorta"] == {"code": 20, "nnunet": 2}
    assert made.case_ids == ("a", "bb")
    assert json.loads((out / "dataset.json").read_text())["numTraining"] == 2
    for case_id in made.case_ids:
        before, after = dataset.case(case_id), made.case(case_id)
        assert np.array_equal(before.required_image(), after.required_image())
        for name in ("left_atrium", "aorta", "pulmonary_artery"):
            one = before.required_mask() == TABLE.named(name).code
            assert np.array_equal(one, after.required_mask() == names[name])
        np.testing.assert_allclose(before.affine, after.affine, atol=1e-5)
        assert after.origin == "synthetic"


def test_an_interrupted_export_goes_on(dataset: Dataset, tmp_path: Path):
    out = tmp_path / "Dataset501_Heart"
    export_nnunet(dataset, out)
    kept = out / "imagesTr" / "a_0000.nii.gz"
    before = kept.stat().st_mtime_ns
    (out / "labelsTr" / "bb.nii.gz").unlink()
    assert export_nnunet(dataset, out).case_ids == ("a", "bb")
    assert (out / "labelsTr" / "bb.nii.gz").exists()
    assert kept.stat().st_mtime_ns == before


def test_train_and_test_do_not_go_out_together_unsaid(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    mark_parts(dataset.root, {"a": "train", "bb": "test.template"})
    export_nnunet(read_dataset(dataset.root), tmp_path / "Dataset501_Heart")
    assert "test and train go out together" in capsys.readouterr().err
    train = export_nnunet(read_dataset(f"{dataset.root}:train"), tmp_path / "Dataset502_Heart")
    assert train.case_ids == ("a",)
    assert "together" not in capsys.readouterr().err


def test_what_nnunet_could_not_use_is_refused(dataset: Dataset, tmp_path: Path):
    with pytest.raises(InputError, match="name it like Dataset501_Heart"):
        export_nnunet(dataset, tmp_path / "heart")
    alone = write_dataset([case("dddd", image=None)], tmp_path / "masks")
    with pytest.raises(InputError, match="no case with image and mask"):
        export_nnunet(alone, tmp_path / "Dataset501_Heart")
    tilted = write_dataset([case("a"), case("bb", affine=SHEARED)], tmp_path / "tilted")
    with pytest.raises(InputError, match=r"1 cases cannot be exported: case bb: .*sheared.*cardiosynth prepare"):
        export_nnunet(tilted, tmp_path / "Dataset502_Heart")
    assert read_dataset(tmp_path / "Dataset502_Heart").case_ids == ("a",)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_nnunet_finds_nothing_to_complain_of(dataset: Dataset, tmp_path: Path):
    verify = pytest.importorskip(
        "nnunetv2.experiment_planning.verify_dataset_integrity", reason="needs the extra nnunet"
    )
    out = tmp_path / "Dataset501_Heart"
    export_nnunet(dataset, out)
    verify.verify_dataset_integrity(str(out), 1)
    plain = tmp_path / "plain"
    write_dataset([case("a"), case("bb")], plain)
    with pytest.raises(AssertionError, match="consecutive order"):
        verify.verify_dataset_integrity(str(plain), 1)
