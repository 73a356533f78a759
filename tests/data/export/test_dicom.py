import json
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT, label_table
from cardiosynth.data.dataset import Dataset, write_dataset
from cardiosynth.data.export.dicom import MANIFEST, SEGMENTS, export_dicom
from cardiosynth.data.export.segmentation import SNOMED
from cardiosynth.data.formats.dicom import read_frames
from cardiosynth.data.formats.stack import read_stack
from cardiosynth.data.sources.dicom import LEAST_SLICES, dicom

pydicom = pytest.importorskip("pydicom", reason="needs the extra dicom")
highdicom = pytest.importorskip("highdicom", reason="needs the extra dicom")

TABLE = label_table({"left atrium": 7, "aorta": 20, "something of ours": 85})
STRAIGHT = np.array([[0.7, 0, 0, -12.5], [0, 0.8, 0, 40], [0, 0, 1.5, -300.25], [0, 0, 0, 1.0]])


def oblique() -> np.ndarray:
    a, b = np.radians(25), np.radians(-10)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tip = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tip @ np.diag([0.7, 0.8, 1.5])
    affine[:3, 3] = 10, -20, 1 / 3
    return affine


def case(case_id: str, **changes) -> Case:
    shape = changes.pop("shape", (9, 8, 4))
    rng = np.random.default_rng(3)
    image = rng.integers(-1024, 3071, (1, *shape)).astype(np.int16)
    image[0].flat[:2] = -32768, 32767
    mask = np.zeros((1, *shape), np.uint8)
    mask[0, 2:5, 1:6], mask[0, 6:], mask[0, 0, 0] = 7, 20, 85
    values = {"image": image, "mask": mask, "affine": STRAIGHT, "labels": TABLE, "origin": "synthetic"}
    return Case(case_id=case_id, **{**values, **changes})


def exported(tmp_path: Path, *cases: Case) -> tuple[Dataset, Path]:
    dataset = write_dataset(cases, tmp_path / "made")
    export_dicom(dataset, tmp_path / "out")
    return dataset, tmp_path / "out"


def on_grid(volume, like: Case) -> np.ndarray:
    """Return the voxels of a highdicom volume on the grid of ``like``, each where its affine puts it, others 0."""
    found = np.zeros(like.grid.shape, volume.array.dtype)
    index = np.argwhere(np.ones(volume.array.shape, bool))
    to_ours = np.linalg.inv(like.affine) @ np.diag([-1, -1, 1, 1]) @ volume.affine
    places = to_ours @ np.c_[index, np.ones(len(index))].T
    assert np.abs(places - np.rint(places)).max() < 1e-3
    found[tuple(np.rint(places[:3]).astype(int))] = volume.array[tuple(index.T)]
    return found


def mask_of(folder: Path, like: Case) -> np.ndarray:
    """Return segment numbers on the grid of ``like``."""
    return on_grid(highdicom.seg.segread(folder / "segmentation.dcm").get_volume(combine_segments=True), like)


@pytest.mark.parametrize("affine", [STRAIGHT, oblique()], ids=["straight", "oblique"])
def test_our_reader_gives_back_voxels_and_geometry(tmp_path: Path, affine: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(LEAST_SLICES, "CT", 4)
    before, out = exported(tmp_path, case("a", affine=affine))
    (after,) = dicom(out)
    assert np.array_equal(after.required_image(), before.case("a").required_image())
    assert after.grid.same_as(before.case("a").grid, 1e-4)
    assert after.origin == "synthetic"


@pytest.mark.parametrize("affine", [STRAIGHT, oblique()], ids=["straight", "oblique"])
def test_highdicom_gives_back_voxels_and_mask_in_their_places(tmp_path: Path, affine: np.ndarray):
    _, out = exported(tmp_path, case("a", affine=affine))
    expected = case("a", affine=affine)
    slices = [pydicom.dcmread(path) for path in (out / "a" / "image").iterdir()]
    image = on_grid(highdicom.get_volume_from_series(slices), expected)
    assert np.array_equal(image, expected.required_image()[0])
    codes = {int(number): row["code"] for number, row in json.loads((out / SEGMENTS).read_text()).items()}
    assert codes == {1: 7, 2: 20, 3: 85}
    found = mask_of(out / "a", expected)
    assert np.array_equal(np.vectorize({0: 0, **codes}.get)(found), expected.required_mask()[0])


def test_images_say_what_they_are(tmp_path: Path):
    _, out = exported(tmp_path, case("a"), case("b", origin="real"))
    for case_id, synthetic, mark in (("a", "YES", "SYNTHETIC"), ("b", "NO", "DERIVED")):
        slices = [pydicom.dcmread(path) for path in sorted((out / case_id / "image").iterdir())]
        mask = pydicom.dcmread(out / case_id / "segmentation.dcm")
        assert len(slices) == 4
        for one in (*slices, mask):
            assert one.SyntheticData == synthetic
            assert one.SeriesDescription.startswith(mark)
            assert str(one.PatientName) == f"{mark}^{case_id}"
        assert slices[0].ImageType[:2] == ["DERIVED", "SECONDARY"]
        assert (slices[0].Modality, mask.Modality, slices[0].BurnedInAnnotation) == ("CT", "SEG", "NO")
        assert (slices[0].RescaleSlope, slices[0].RescaleIntercept) == (1, 0)
        assert [float(one.ImagePositionPatient[2]) for one in slices] == sorted(-300.25 + 1.5 * i for i in range(4))
        identifiers = {(one.StudyInstanceUID, one.FrameOfReferenceUID) for one in (*slices, mask)}
        assert len(identifiers) == 1
        assert len({one.SOPInstanceUID for one in (*slices, mask)}) == 5


def test_segments_carry_names_colors_and_codes(tmp_path: Path):
    _, out = exported(tmp_path, case("a"))
    segments = pydicom.dcmread(out / "a" / "segmentation.dcm").SegmentSequence
    assert [segment.SegmentLabel for segment in segments] == ["left atrium", "aorta", "something of ours"]
    kinds = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in segments]
    assert [kind.CodingSchemeDesignator for kind in kinds] == ["SCT", "SCT", "99CARDIOSYNTH"]
    assert (kinds[0].CodeValue, kinds[0].CodeMeaning) == ("82471001", "Left atrium")
    for segment, name in zip(segments, ("left_atrium", "aorta", "something_of_ours"), strict=True):
        color = highdicom.color.CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue).to_rgb()
        assert np.abs(np.subtract(color, TABLE.named(name).color)).max() <= 2


def test_every_concept_is_one_that_pydicom_knows():
    from pydicom.sr.codedict import codes

    assert all(getattr(codes.SCT, keyword).value.isdigit() for keyword in SNOMED.values())
    assert {label.name for label in CARDIAC_CT.targets} <= SNOMED.keys()


def test_identifiers_follow_from_the_content(tmp_path: Path):
    series = []
    for name, image in (("one", case("a").image), ("two", case("a").image), ("three", case("a").image + np.int16(1))):
        dataset = write_dataset([case("a", image=image)], tmp_path / name)
        export_dicom(dataset, tmp_path / "out" / name)
        series.append(pydicom.dcmread(tmp_path / "out" / name / "a" / "image" / "0001.dcm").SeriesInstanceUID)
    assert series[0] == series[1] != series[2]


def test_a_killed_export_goes_on_and_a_changed_case_is_written_anew(tmp_path: Path):
    dataset, out = exported(tmp_path, case("a"), case("b"))
    kept = out / "a" / "image" / "0001.dcm"
    before = kept.stat().st_mtime_ns
    (out / "b" / "image" / "0003.dcm").unlink()
    (out / ".partial-12345678-c").mkdir()
    export_dicom(dataset, out)
    assert (out / "b" / "image" / "0003.dcm").exists()
    assert kept.stat().st_mtime_ns == before
    assert not list(out.glob(".partial-*"))
    changed = write_dataset([case("a", image=case("a").image + np.int16(1))], tmp_path / "made")
    export_dicom(changed, out)
    assert kept.stat().st_mtime_ns > before


def test_an_error_half_way_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dataset = write_dataset([case("a")], tmp_path / "made")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(highdicom.seg.Segmentation, "save_as", full)
    with pytest.raises(InputError, match="No space left"):
        export_dicom(dataset, tmp_path / "out")
    assert not list((tmp_path / "out").glob("**/*.dcm"))
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_mr_slices_and_empty_masks_go_out_too(tmp_path: Path):
    flat = case("a", shape=(9, 8), intensity_unit="mr", image=np.full((1, 9, 8), 0.25, np.float32))
    dataset = write_dataset([flat.with_(mask=np.zeros((1, 9, 8), np.uint8), confidence=None)], tmp_path / "made")
    export_dicom(dataset, tmp_path / "out")
    frames, _ = read_frames(tmp_path / "out" / "a" / "image" / "0001.dcm")
    volume = read_stack(frames, "a")
    np.testing.assert_allclose(volume.array, 0.25, atol=1e-4)
    np.testing.assert_allclose(volume.affine, STRAIGHT, atol=1e-6)
    assert not mask_of(tmp_path / "out" / "a", case("a", shape=(9, 8, 1))).any()


def test_what_dicom_cannot_say_is_refused_and_the_rest_goes_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sheared = STRAIGHT.copy()
    sheared[1, 2] = 0.5
    confident = case("good", confidence=np.ones((1, 9, 8, 4), np.float32))
    cases = [confident, case("sheared", affine=sheared), case("sizeless", spacing_known=False), case("m", image=None)]
    dataset = write_dataset(cases, tmp_path / "made")
    with pytest.raises(InputError, match=r"2 cases .*sheared: its grid is sheared.*prepare.*sizeless: its voxel size"):
        export_dicom(dataset, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == ["good"]
    told = capsys.readouterr().err
    assert "1 cases have no image" in told
    assert "confidence maps are not exported" in told
    unknown = write_dataset([case("a", intensity_unit="unknown")], tmp_path / "unknown")
    with pytest.raises(InputError, match="neither HU nor MR"):
        export_dicom(unknown, tmp_path / "out 2")
    alone = write_dataset([case("m", image=None)], tmp_path / "alone")
    with pytest.raises(InputError, match="holds no image to export"):
        export_dicom(alone, tmp_path / "out 3")
