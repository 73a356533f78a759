import json
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT, label_table
from cardiosynth.data.formats.nifti import write_nifti
from cardiosynth.data.sources.folder import folder

from . import written


def image(path: Path) -> None:
    write_nifti(path, np.full((1, 4, 5, 6), -100, np.int16), np.eye(4))


def mask(path: Path, code: int = 1) -> None:
    array = np.zeros((1, 4, 5, 6), np.uint8)
    array[:, 1] = code
    write_nifti(path, array, np.eye(4))


def table(root: Path) -> None:
    (root / "labels.json").write_text(json.dumps({"Left Atrium": 1, "aorta": 2}))


def test_two_folders_are_paired_by_name(tmp_path: Path):
    image(tmp_path / "images" / "a.nii.gz")
    mask(tmp_path / "labels" / "a.nii.gz")
    image(tmp_path / "images" / "b_0000.nii.gz")
    mask(tmp_path / "labels" / "b_seg.nii.gz", 2)
    image(tmp_path / "images" / "only image.nii")
    mask(tmp_path / "labels" / "only-mask.nii.gz")
    table(tmp_path)
    cases = {case.case_id: case for case in folder(tmp_path, licence="CC0")}
    assert sorted(cases) == ["a", "b", "only-image", "only-mask"]
    assert cases["only-image"].mask is None
    assert cases["only-mask"].image is None
    assert cases["b"].mask.max() == 2
    assert cases["a"].labels.named("left atrium").code == 1
    assert cases["a"].intensity_unit == "hu"
    assert cases["a"].provenance["licence"] == "CC0"
    assert cases["a"].provenance["files"] == {"image": "images/a.nii.gz", "mask": "labels/a.nii.gz"}


@pytest.mark.parametrize("ending", ["_label", "_labels", "_gt", "_mask", "-seg", ".label"])
def test_masks_beside_their_images_are_known_by_their_names(tmp_path: Path, ending: str):
    image(tmp_path / "case_1.nii.gz")
    mask(tmp_path / f"case_1{ending}.nii.gz")
    table(tmp_path)
    (case,) = folder(tmp_path, intensity_unit="mr")
    assert (case.case_id, case.intensity_unit) == ("case_1", "mr")
    assert case.mask is not None


def test_a_full_label_table_keeps_roles_and_colors(tmp_path: Path):
    image(tmp_path / "a.nii.gz")
    mask(tmp_path / "a_gt.nii.gz", 9)
    (tmp_path / "mine.json").write_text(CARDIAC_CT.model_dump_json())
    (case,) = folder(tmp_path, labels=tmp_path / "mine.json")
    assert case.labels == CARDIAC_CT
    assert next(folder(tmp_path, labels=label_table({"lung": 9}))).labels.codes == (9,)


def test_without_a_table_the_codes_are_told_and_the_file_to_write(tmp_path: Path):
    image(tmp_path / "a.nii.gz")
    mask(tmp_path / "a_gt.nii.gz", 5)
    with pytest.raises(InputError, match=r'hold the codes 5; write .*labels\.json as \{"structure 5": 5\}'):
        folder(tmp_path)


def test_images_alone_need_no_table(tmp_path: Path):
    image(tmp_path / "a.nii.gz")
    assert next(folder(tmp_path)).labels == CARDIAC_CT


def test_what_is_no_such_folder_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="is not a folder"):
        folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no"):
        folder(tmp_path)
    image(tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="no intensity unit 'ct'"):
        folder(tmp_path, intensity_unit="ct")
    image(tmp_path / "a.nii")
    with pytest.raises(InputError, match="would both be the case 'a'"):
        folder(tmp_path)


@pytest.mark.parametrize("content", ["[1, 2]", '{"heart": 300}', '{"heart": "one"}', "{"])
def test_a_broken_label_table_is_refused_by_name(tmp_path: Path, content: str):
    mask(tmp_path / "a_gt.nii.gz")
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(InputError, match=r"labels\.json"):
        folder(tmp_path)


def test_nrrd_pairs_are_read_and_other_formats_are_not(tmp_path: Path):
    written.image(tmp_path / "a.nrrd")
    written.mask(tmp_path / "a_msk.nrrd", 2)
    (tmp_path / "picture.png").touch()
    table(tmp_path)
    (case,) = folder(tmp_path)
    assert (case.case_id, case.provenance["patient"], case.mask.max()) == ("a", "a", 2)


def test_a_missing_or_misplaced_mask_is_told(tmp_path: Path):
    image(tmp_path / "a.nii.gz")
    table(tmp_path)
    written.mask(tmp_path / "a_seg.nii.gz", 1)
    with pytest.raises(InputError, match=r"a\.nii\.gz and .*a_seg\.nii\.gz have shapes"):
        next(folder(tmp_path))
    mask(tmp_path / "a_seg.nii.gz", 7)
    with pytest.raises(InputError, match=r"a_seg\.nii\.gz holds the code 7"):
        next(folder(tmp_path))


def test_real_hearts_without_images_are_cases(real_data: Path):
    labels = label_table({"heart": 1, "bone": 2, "coronary_calcium": 3})
    stream = folder(real_data / "lidc_heart_masks", labels, licence="CC BY 3.0")
    assert stream.case_ids == ("0187", "0506", "0909", "0987")
    case = next(stream)
    assert case.image is None
    assert case.grid.shape == (512, 512, 143)
    np.testing.assert_allclose(case.spacing_mm, (0.68, 0.68, 2.5))
    assert sorted(np.unique(case.mask)) == [0, 1, 2]
    assert case.provenance["stored_as"]["axis_codes"] == "LPS"


def test_the_real_cta_is_read_with_the_mask_on_its_grid(real_data: Path, tmp_path: Path):
    cta = real_data / "cta_aorta"
    for name, path in (("images", cta / "ct_and_masks" / "ct_cropped.nii.gz"), ("labels", cta / "derived")):
        (tmp_path / name).mkdir()
        source = path if path.is_file() else path / "label_heart1_aorta2_pa3.nii.gz"
        (tmp_path / name / "cta.nii.gz").symlink_to(source)
    case = next(folder(tmp_path, label_table({"heart": 1, "aorta": 2, "pulmonary_artery": 3})))
    assert (case.grid.shape, case.intensity_unit) == ((120, 126, 164), "hu")
    blood = case.image[case.mask == 2]
    assert 150 < np.median(blood) < 600  # contrast in the aorta
