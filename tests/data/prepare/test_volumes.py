import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.volume import Grid, resample
from cardiosynth.data.formats.files import read_image
from cardiosynth.data.prepare.run import prepare
from cardiosynth.data.prepare.settings import PrepareSettings
from cardiosynth.data.prepare.volumes import prepare_case
from cardiosynth.data.sources.acdc import acdc
from cardiosynth.data.sources.folder import folder

from .scans import scan


def ball_center_mm(case: Case) -> np.ndarray:
    index = np.argwhere(case.mask[0] == 1).mean(0)
    return case.affine[:3, :3] @ np.resize([*index, 0], 3) + case.affine[:3, 3]


def tilted(degrees: float, spacing=(1.0, 1.0, 1.0), shear: float = 0.0) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([[1, 0, 0], [0, 1, shear], [0, 0, 1]]) * spacing
    affine[:3, 3] = np.array([10, 12, 14]) - affine[:3, :3] @ ((np.array([30, 32, 28]) - 1) / 2)
    return affine


def test_the_heart_comes_to_the_middle_of_the_shape_asked_for():
    affine = np.eye(4)
    affine[:3, 3] = -3, -1, 1
    done = prepare_case(scan(affine), PrepareSettings(shape=(20, 22, 24)))
    assert done.grid.shape == (20, 22, 24)
    np.testing.assert_allclose(ball_center_mm(done), (10, 12, 14), atol=0.01)
    np.testing.assert_allclose(done.grid.center_mm, (10, 12, 14), atol=0.51)


def test_a_crop_changes_no_value_and_a_pad_is_air():
    case = scan(np.eye(4))
    done = prepare_case(case, PrepareSettings(shape=(16, 16, 60)))
    offset = np.rint(done.affine[:3, 3]).astype(int)
    assert offset[2] < 0
    inner = case.image[:, offset[0] : offset[0] + 16, offset[1] : offset[1] + 16]
    assert np.array_equal(done.image[..., -offset[2] : -offset[2] + 28], inner)
    assert (done.image[..., : -offset[2]] == -1024).all()
    assert (done.mask[..., : -offset[2]] == 0).all()
    mr = prepare_case(case.with_(intensity_unit="mr"), PrepareSettings(shape=(16, 16, 60)))
    assert (mr.image[..., 0] == 0).all()


@pytest.mark.parametrize("affine", [tilted(25), tilted(0, shear=0.3), tilted(20, (0.8, 1.2, 1.0), 0.2)])
def test_oblique_and_sheared_scans_become_straight_and_keep_the_ball(affine: np.ndarray):
    done = prepare_case(scan(affine), PrepareSettings(spacing_mm=(1.0, 1.0, 1.0)))
    np.testing.assert_allclose(done.affine[:3, :3], np.eye(3), atol=1e-9)
    np.testing.assert_allclose(ball_center_mm(done), (10, 12, 14), atol=0.1)
    assert (done.mask == 1).sum() == pytest.approx(4 / 3 * np.pi * 6**3, rel=0.05)
    inside = done.image[0][tuple(np.rint(np.linalg.inv(done.affine) @ (10, 12, 14, 1))[:3].astype(int))]
    assert inside == 400


def test_a_sheared_affine_is_told(capsys: pytest.CaptureFixture[str]):
    prepare_case(scan(tilted(0, shear=0.3)), PrepareSettings())
    assert "sheared" in capsys.readouterr().err


def test_an_oblique_scan_keeps_its_own_axes_when_asked(capsys: pytest.CaptureFixture[str]):
    case = scan(tilted(25, (1.0, 1.0, 4.0)))
    same = prepare_case(case, PrepareSettings(axes="image"))
    assert same.grid.same_as(case.grid)
    assert np.array_equal(same.image, case.image)
    assert capsys.readouterr().err == ""
    prepare_case(case, PrepareSettings())
    assert "axes=image" in capsys.readouterr().err


def test_without_a_structure_the_image_center_is_taken_and_told(capsys: pytest.CaptureFixture[str]):
    done = prepare_case(scan(np.eye(4), mask=None), PrepareSettings(shape=(8, 8, 8)))
    np.testing.assert_allclose(done.grid.center_mm, (14.5, 15.5, 13.5), atol=0.51)
    assert "image's center" in capsys.readouterr().err


def test_a_slice_stays_in_its_plane():
    affine = tilted(0)
    affine[:3, 3] = 0
    case = scan(affine, shape=(30, 32))
    done = prepare_case(case, PrepareSettings(shape=(16, 12), spacing_mm=(1.5, 1.5)))
    assert done.grid.shape == (16, 12)
    np.testing.assert_allclose(ball_center_mm(done), (10, 12, 0), atol=0.2)


def test_confidence_follows_the_image_and_is_zero_outside():
    confidence = np.full((1, 30, 32, 28), 0.75, np.float32)
    done = prepare_case(scan(np.eye(4), confidence=confidence), PrepareSettings(shape=(16, 16, 60)))
    assert set(np.unique(done.confidence)) == {0, 0.75}


def test_unknown_spacing_stays_unknown_and_is_asked_for_in_millimeters():
    case = scan(np.eye(4), spacing_known=False)
    assert not prepare_case(case, PrepareSettings(shape=(16, 16, 16))).spacing_known
    with pytest.raises(InputError, match="voxel size is unknown"):
        prepare_case(case, PrepareSettings(spacing_mm=(1.0, 1.0, 1.0)))


@pytest.mark.parametrize(
    ("case", "settings", "part"),
    [
        (scan(np.eye(4)), {"shape": (8, 8)}, "one number per axis"),
        (scan(np.eye(4)), {"spacing_mm": (1.0, 1.0)}, "one number per axis"),
        (scan(np.eye(4), mask=np.zeros((1, 30, 32, 28), np.uint8)), {}, "mask is empty"),
    ],
)
def test_what_cannot_be_prepared_is_refused(case: Case, settings: dict, part: str):
    with pytest.raises(InputError, match=part):
        prepare_case(case, PrepareSettings(**settings))


@pytest.fixture
def real_cta(real_data: Path, tmp_path: Path) -> Path:
    """The real CTA as a user would lay it out."""
    source = tmp_path / "scans"
    for part, file in (("images", "ct_and_masks/ct_cropped"), ("labels", "derived/label_heart1_aorta2_pa3")):
        (source / part).mkdir(parents=True)
        shutil.copy(real_data / "cta_aorta" / f"{file}.nii.gz", source / part / "cta.nii.gz")
    (source / "labels.json").write_text(json.dumps({"heart": 1, "aorta": 2, "pulmonary artery": 3}))
    return source


def test_the_real_cta_is_prepared_around_its_heart(real_cta: Path, tmp_path: Path):
    settings = PrepareSettings(shape=(64, 64, 64), spacing_mm=(2.5, 2.5, 2.5))
    case = prepare(folder(real_cta, licence="Apache-2.0"), tmp_path / "out", settings)[0]
    assert case.grid.axis_codes == "RAS"
    assert set(np.unique(case.mask)) == {0, 1, 2, 3}
    heart, air = case.image[case.mask == 1], case.image.min()
    assert 200 < np.median(heart) < 600, "contrast-filled heart"
    assert air < -900
    raw = read_image(real_cta / "images" / "cta.nii.gz")
    voxels = (read_image(real_cta / "labels" / "cta.nii.gz").array == 1).sum() * 1.5**3
    assert (case.mask == 1).sum() * 2.5**3 == pytest.approx(voxels, rel=0.02)
    again = resample(case.image, case.grid, Grid(raw.array.shape[1:], raw.affine), -1024)[0]
    inner = (slice(40, 80), slice(40, 80), slice(50, 90))
    assert np.corrcoef(again[inner].ravel(), raw.array[0][inner].ravel())[0, 1] > 0.9


def test_a_real_mask_on_another_grid_is_refused_by_name(real_cta: Path, real_data: Path):
    shutil.copy(real_data / "cta_aorta" / "pulmonary_grid" / "heart.nii.gz", real_cta / "labels" / "cta.nii.gz")
    with pytest.raises(InputError, match=r"images/cta\.nii\.gz and .*labels/cta\.nii\.gz have shapes"):
        next(folder(real_cta))


def test_a_real_empty_mask_is_refused(real_cta: Path, real_data: Path, tmp_path: Path):
    empty = [p for p in (real_data / "cta_aorta" / "ct_and_masks").glob("*.nii.gz") if not read_image(p).array.any()]
    assert len(empty) == 3
    shutil.copy(empty[0], real_cta / "labels" / "cta.nii.gz")
    with pytest.raises(InputError, match="mask is empty"):
        prepare(folder(real_cta), tmp_path / "out", PrepareSettings(shape=(32, 32, 32)))
    assert not (tmp_path / "out").exists()


def test_the_real_sheared_ct_is_straightened_and_its_brightest_place_stays(real_data: Path):
    volume = read_image(real_data / "odd_files" / "shear.nii.gz")
    case = Case(case_id="shear", image=volume.array, affine=volume.affine)
    done = prepare_case(case, PrepareSettings(shape=(64, 64, 48), spacing_mm=(2.5, 2.5, 2.5), center="image"))
    assert done.grid.axis_codes == "RAS"
    assert not done.grid.is_sheared
    bone_before = _center_of(volume.array[0] > 300, volume.affine)
    bone_after = _center_of(done.image[0] > 300, done.affine)
    np.testing.assert_allclose(bone_after, bone_before, atol=3)


def _center_of(where: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return affine[:3, :3] @ np.argwhere(where).mean(0) + affine[:3, 3]


def test_real_acdc_frames_come_to_one_grid(real_data: Path, tmp_path: Path):
    for patient in ("patient001", "patient004"):
        shutil.copytree(real_data / "acdc" / patient, tmp_path / "acdc" / patient)
    settings = PrepareSettings(shape=(96, 96, 8), spacing_mm=(1.5, 1.5, 10.0))
    dataset = prepare(acdc(tmp_path / "acdc"), tmp_path / "out", settings)
    assert len(dataset) == 4
    for case in dataset:
        assert case.grid.shape == (96, 96, 8)
        assert set(np.unique(case.mask)) == {0, 1, 2, 3}
        blood, muscle = case.image[case.mask == 3].mean(), case.image[case.mask == 2].mean()
        assert blood > 1.3 * muscle, "blood is bright and myocardium dark in cine MR"
    sizes = {case.provenance["phase"]: (case.mask == 3).sum() for case in dataset.subset(dataset.case_ids[:2])}
    assert sizes["end-diastole"] > sizes["end-systole"], "the ventricle is larger when it is filled"
