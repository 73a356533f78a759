import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT, LabelTable, label_table
from cardiosynth.core.store import read_json, read_rows
from cardiosynth.data.dataset import DatasetWriter, read_dataset, write_dataset
from cardiosynth.data.formats.nifti import write_nifti

TABLE = label_table({"heart": 1, "aorta": 2})
AFFINE = np.array([[0.9, -0.3, 0, 5], [0.3, 0.9, 0, -7], [0, 0, 2.5, 11], [0, 0, 0, 1.0]])


def make_case(index: int, **changes) -> Case:
    rng = np.random.default_rng(index)
    shape = (1, 6, 7, 8)
    facts = {
        "case_id": f"case-{index}",
        "image": rng.integers(-1000, 1500, shape).astype(np.int16),
        "mask": rng.integers(0, 3, shape).astype(np.uint8),
        "confidence": rng.random(shape, np.float32),
        "affine": AFFINE,
        "labels": TABLE,
        "origin": "synthetic",
        "provenance": {"parents": ["a", "b"], "seed": 3, "mask": {"alpha": 1.5}},
    }
    return Case(**{**facts, **changes})


def assert_equal(found: Case, written: Case) -> None:
    for part in ("image", "mask"):
        one, two = getattr(found, part), getattr(written, part)
        assert (one is None and two is None) or np.array_equal(one, two), part
    if written.confidence is not None:
        np.testing.assert_allclose(found.confidence, written.confidence, atol=1 / 509)
    np.testing.assert_allclose(found.affine, written.affine, atol=1e-5)
    for name in ("case_id", "labels", "intensity_unit", "spacing_known", "origin", "provenance"):
        assert getattr(found, name) == getattr(written, name), name


def test_what_is_written_is_read_again(tmp_path: Path):
    cases = [
        make_case(0),
        make_case(1, confidence=None, origin="real", provenance={"licence": "CC0"}),
        make_case(2, image=None, confidence=None, spacing_known=False),
        make_case(3, mask=None, confidence=None, origin="phantom"),
    ]
    dataset = write_dataset(cases, tmp_path / "d")
    assert dataset.case_ids == tuple(case.case_id for case in cases)
    for found, written in zip(dataset, cases, strict=True):
        assert_equal(found, written)
    assert dataset.with_masks().case_ids == ("case-0", "case-1", "case-2")
    assert dataset.with_images().case_ids == ("case-0", "case-1", "case-3")
    assert dataset[1:3].case_ids == ("case-1", "case-2")
    assert dataset.subset(["case-3", "case-0"])[0].case_id == "case-3"


def test_a_slice_is_a_slice_after_the_round_trip(tmp_path: Path):
    cases = [
        make_case(i, image=c.image[..., 0], mask=c.mask[..., 0], confidence=None) for i in (0, 1) if (c := make_case(i))
    ]
    for found, written in zip(write_dataset(cases, tmp_path / "d"), cases, strict=True):
        assert_equal(found, written)


def test_the_folder_is_what_nnu_net_expects(tmp_path: Path):
    write_dataset([make_case(0), make_case(1)], tmp_path, name="hearts")
    facts = read_json(tmp_path / "dataset.json")
    assert facts["channel_names"] == {"0": "CT"}
    assert facts["labels"] == {"background": 0, "heart": 1, "aorta": 2}
    assert (facts["numTraining"], facts["file_ending"]) == (2, ".nii.gz")
    image = nib.load(tmp_path / "imagesTr" / "case-0_0000.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert bytes(image.header["descrip"]).startswith(b"SYNTHETIC")
    assert nib.load(tmp_path / "labelsTr" / "case-0.nii.gz").get_data_dtype() == np.uint8
    confidence = nib.load(tmp_path / "confidenceTr" / "case-0.nii.gz")
    assert confidence.get_data_dtype() == np.uint8
    assert confidence.dataobj.slope == pytest.approx(1 / 255)


def test_the_card_tells_origin_terms_and_marks_what_is_simulated(tmp_path: Path):
    real = make_case(1, origin="real", provenance={"licence": "CC BY 4.0", "source": "the clinic"})
    write_dataset([make_case(0), real], tmp_path, name="hearts")
    card = (tmp_path / "README.md").read_text()
    for part in ("# hearts", "1 real", "1 synthetic", "CC BY 4.0", "the clinic", "SYNTHETIC", "| 2 | aorta | target |"):
        assert part in card


def test_a_real_image_carries_no_mark(tmp_path: Path):
    write_dataset([make_case(0, origin="real")], tmp_path)
    header = nib.load(tmp_path / "imagesTr" / "case-0_0000.nii.gz").header
    assert b"SYNTHETIC" not in bytes(header["descrip"])


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 60000.5), (100.2, 900.7)])
def test_mr_of_any_scale_keeps_its_contrast(tmp_path: Path, low: float, high: float):
    image = np.random.default_rng(0).uniform(low, high, (1, 6, 7, 8)).astype(np.float32)
    case = make_case(0, image=image, intensity_unit="mr")
    found = write_dataset([case], tmp_path)[0].image
    np.testing.assert_allclose(found, image, atol=(high - low) / 60000)


def test_ct_is_rounded_to_whole_hounsfield_units(tmp_path: Path):
    image = np.random.default_rng(0).uniform(-1000, 40000, (1, 6, 7, 8)).astype(np.float32)
    found = write_dataset([make_case(0, image=image)], tmp_path)[0].image
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, np.rint(image).clip(-32768, 32767))


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path):
    def cases():
        yield make_case(0)
        yield make_case(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(cases(), tmp_path)
    assert not (tmp_path / "dataset.json").exists()
    assert len(read_dataset(tmp_path)) == 2, "what is there can be read meanwhile"
    with (tmp_path / "manifest.jsonl").open("a") as file:
        file.write('{"case_id": "case-2", "ori')
    (tmp_path / "labelsTr" / "case-1.nii.gz").rename(tmp_path / "labelsTr" / ".partial-0-case-1.nii.gz")
    with DatasetWriter(tmp_path, TABLE) as writer:
        assert [writer.has(f"case-{i}") for i in range(3)] == [True, False, False]
        for index in (1, 2):
            writer.write(make_case(index))
    assert len(read_dataset(tmp_path)) == 3
    assert not list(tmp_path.rglob(".partial*"))
    assert len(read_rows(tmp_path / "manifest.jsonl")) == 4
    assert_equal(read_dataset(tmp_path)[2], make_case(2))


def test_the_last_shard_to_finish_writes_the_description(tmp_path: Path):
    for shard in (2, 0, 1):
        assert not (tmp_path / "dataset.json").exists()
        with DatasetWriter(tmp_path, TABLE, shard=(shard, 3)) as writer:
            writer.write(make_case(shard))
    assert read_json(tmp_path / "dataset.json")["numTraining"] == 3
    assert read_dataset(tmp_path).case_ids == ("case-0", "case-1", "case-2")


def test_a_shard_without_a_case_is_no_obstacle(tmp_path: Path):
    with DatasetWriter(tmp_path, TABLE, shard=(1, 2)):
        pass
    with DatasetWriter(tmp_path, TABLE, shard=(0, 2)) as writer:
        writer.write(make_case(0))
    assert len(read_dataset(tmp_path)) == 1
    assert (tmp_path / "dataset.json").exists()


def test_cases_in_shards_are_the_same_files_as_in_one_run(tmp_path: Path):
    write_dataset([make_case(0), make_case(1)], tmp_path / "one")
    for shard in (0, 1):
        with DatasetWriter(tmp_path / "two", TABLE, shard=(shard, 2)) as writer:
            writer.write(make_case(shard))
    assert read_dataset(tmp_path / "one").rows == read_dataset(tmp_path / "two").rows
    one = (tmp_path / "one" / "dataset.json").read_text()
    assert one == (tmp_path / "two" / "dataset.json").read_text()


def test_a_full_disk_leaves_no_row_and_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with DatasetWriter(tmp_path, TABLE) as writer:
        writer.write(make_case(0))
        monkeypatch.setattr(Path, "write_bytes", _no_space)
        with pytest.raises(InputError, match="No space left"):
            writer.write(make_case(1))
        monkeypatch.undo()
    assert read_dataset(tmp_path).case_ids == ("case-0",)
    assert not list(tmp_path.rglob("*case-1*"))


def _no_space(self: Path, content: bytes) -> int:
    raise OSError(28, "No space left on device")


def test_a_folder_takes_only_what_belongs_together(tmp_path: Path):
    write_dataset([make_case(0)], tmp_path)
    with pytest.raises(InputError, match="another label table"):
        write_dataset([make_case(1, labels=CARDIAC_CT)], tmp_path)
    with pytest.raises(InputError, match="'hu', not 'mr'"):
        write_dataset([make_case(1, intensity_unit="mr")], tmp_path)
    with pytest.raises(InputError, match="other settings"), DatasetWriter(tmp_path, TABLE, facts={"a": 1}):
        pass
    with pytest.raises(InputError, match="in 'mr'"):
        write_dataset([make_case(1), make_case(2, intensity_unit="mr")], tmp_path / "new")
    assert read_dataset(tmp_path).case_ids == ("case-0",)


def test_no_case_is_no_dataset(tmp_path: Path):
    with pytest.raises(InputError, match="no case to write"):
        write_dataset([], tmp_path / "d")
    with pytest.raises(InputError, match="no case to write"), DatasetWriter(tmp_path / "d", TABLE):
        pass
    assert not (tmp_path / "d").exists()


def test_a_replaced_case_loses_the_parts_it_no_longer_has(tmp_path: Path):
    write_dataset([make_case(0)], tmp_path)
    write_dataset([make_case(0, confidence=None)], tmp_path)
    assert read_dataset(tmp_path)[0].confidence is None


def plain_folder(root: Path, labels: dict, cases: int = 2, **facts) -> Path:
    rng = np.random.default_rng(0)
    for index in range(cases):
        image = rng.integers(-900, 900, (1, 5, 6, 7)).astype(np.int16)
        write_nifti(root / "imagesTr" / f"heart_{index:03d}_0000.nii.gz", image, np.diag([-1.0, -1, 2, 1]))
        mask = rng.integers(0, 3, (1, 5, 6, 7)).astype(np.uint8)
        write_nifti(root / "labelsTr" / f"heart_{index:03d}.nii.gz", mask, np.diag([-1.0, -1, 2, 1]))
    content = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": cases, "file_ending": ".nii.gz", **facts}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def test_a_plain_nnu_net_folder_is_a_dataset(tmp_path: Path):
    dataset = read_dataset(plain_folder(tmp_path, {"background": 0, "Left ventricle": 1, "aorta": 2}))
    assert dataset.case_ids == ("heart_000", "heart_001")
    case = dataset[0]
    assert (case.intensity_unit, case.origin) == ("hu", "real")
    assert case.grid.axis_codes == "RAS"
    assert [label.name for label in case.labels] == ["left_ventricle", "aorta"]
    assert isinstance(dataset.labels, LabelTable)


def test_hidden_files_are_no_cases(tmp_path: Path):
    root = plain_folder(tmp_path, {"background": 0, "heart": 1, "aorta": 2})
    (root / "imagesTr" / "._heart_000_0000.nii.gz").write_bytes(b"a double that macOS makes")
    assert read_dataset(root).case_ids == ("heart_000", "heart_001")


def test_the_older_way_to_list_labels_is_understood(tmp_path: Path):
    dataset = read_dataset(plain_folder(tmp_path, {"0": "background", "1": "heart", "2": "aorta"}))
    assert dataset.labels.named("aorta").code == 2


@pytest.mark.parametrize(
    ("labels", "facts", "part"),
    [
        ({"background": 0, "whole": [1, 2]}, {}, "region"),
        ({"background": 0, "heart": 1, "ignore": 2}, {}, "ignore"),
        ({"background": 0, "heart": 300}, {}, "from 0 to 255"),
        ({"background": 0}, {}, "names no structure"),
        ({"background": 0, "heart": 1}, {"channel_names": {"0": "CT", "1": "PET"}}, "2 channels"),
        ({"background": 0, "heart": 1}, {"file_ending": ".png"}, "png"),
    ],
)
def test_what_cannot_be_used_of_nnu_net_is_refused(tmp_path: Path, labels: dict, facts: dict, part: str):
    with pytest.raises(InputError, match=part) as caught:
        read_dataset(plain_folder(tmp_path, labels, **facts))
    assert "dataset.json" in str(caught.value)


def test_files_that_do_not_belong_together_are_named(tmp_path: Path):
    dataset = read_dataset(plain_folder(tmp_path, {"background": 0, "heart": 1, "aorta": 2}))
    write_nifti(tmp_path / "labelsTr" / "heart_000.nii.gz", np.zeros((1, 5, 6, 7), np.uint8), np.eye(4))
    with pytest.raises(InputError, match=r"heart_000_0000\.nii\.gz and .*heart_000\.nii\.gz have different affines"):
        dataset.case("heart_000")
    write_nifti(
        tmp_path / "labelsTr" / "heart_001.nii.gz", np.full((1, 5, 6, 7), 9, np.uint8), np.diag([-1.0, -1, 2, 1])
    )
    with pytest.raises(InputError, match=r"heart_001\.nii\.gz holds the code 9"):
        dataset.case("heart_001")
    with pytest.raises(InputError, match="did you mean 'heart_00"):
        dataset.case("heart_00")


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="does not exist"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no dataset\.json"):
        read_dataset(tmp_path)
    plain_folder(tmp_path, {"background": 0, "heart": 1}, cases=0)
    with pytest.raises(InputError, match="holds no case"):
        read_dataset(tmp_path)
    with pytest.raises(InputError, match="did not write"):
        write_dataset([make_case(0)], tmp_path)
