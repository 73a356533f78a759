from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cardiosynth.data.check.examination import check_dataset
from cardiosynth.data.check.files import contradictions
from cardiosynth.data.dataset import write_dataset
from cardiosynth.data.formats.header import read_header
from cardiosynth.data.formats.nifti import write_nifti

from .conftest import found


def stored(tmp_path: Path, change) -> list[str]:
    """What is said of a file whose header was changed."""
    image = nib.Nifti1Image(np.zeros((20, 20, 20), np.int16), np.diag([2.0, 2, 2, 1]))
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    change(image)
    nib.save(image, tmp_path / "a.nii.gz")
    return contradictions(read_header(tmp_path / "a.nii.gz"), tmp_path / "a.nii.gz")


def test_missing_changed_and_orphaned_files_are_named(clean, tmp_path: Path):
    write_dataset(clean, tmp_path)
    one, two, three = (tmp_path / "labelsTr" / f"{case.case_id}.nii.gz" for case in clean)
    one.unlink()
    write_nifti(two, clean[2].required_mask(), clean[1].affine)
    write_nifti(tmp_path / "imagesTr" / "stray_0000.nii.gz", clean[0].required_image(), np.eye(4))
    examination = check_dataset(tmp_path)
    assert [f.case_id for f in found(examination, "missing_file")] == [clean[0].case_id]
    assert [f.case_id for f in found(examination, "changed_file")] == [clean[1].case_id]
    assert "stray_0000.nii.gz is in no manifest" in found(examination, "orphaned_file")[0].text
    assert three.name not in " ".join(f.text for f in examination.findings if f.level != "info")


def test_a_sound_header_contradicts_nothing(tmp_path: Path):
    assert stored(tmp_path, lambda image: None) == []


def test_two_affines_that_differ_are_told_in_millimeters(tmp_path: Path):
    def flip(image):
        image.set_qform(np.diag([-2.0, 2, 2, 1]), code=1)

    # The corners of 20 voxels of 2 mm, mirrored at the first: 2 x 38 mm apart.
    assert "76 mm apart" in stored(tmp_path, flip)[0]


def test_voxels_that_differ_between_affine_and_pixdim_are_told(tmp_path: Path):
    def widen(image):
        image.set_qform(None, code=0)
        image.header["pixdim"][1:4] = (2, 2, 5)

    assert "2 x 2 x 2 mm by its affine and of 2 x 2 x 5" in stored(tmp_path, widen)[0]


def test_a_file_without_an_affine_is_told(tmp_path: Path):
    def forget(image):
        image.set_sform(None, code=0)
        image.set_qform(None, code=0)

    assert "neither sform nor qform" in stored(tmp_path, forget)[0]


@pytest.mark.parametrize("origin", ["real", "phantom"])
def test_a_simulated_image_is_marked_in_header_and_manifest(clean, tmp_path: Path, origin: str):
    stored = {"real": "phantom", "phantom": "real"}[origin]
    write_dataset([case.with_(origin=stored) for case in clean], tmp_path)
    path = tmp_path / "manifest.jsonl"
    path.write_text(path.read_text().replace(f'"origin": "{stored}"', f'"origin": "{origin}"'))
    told = found(check_dataset(tmp_path), "header")
    assert len(told) == 3
    assert f"the manifest says {origin}" in told[0].text


@pytest.mark.parametrize(
    ("factor", "what"), [(0.001, "voxels of 0.00375"), (0.1, "field of view of 12"), (8, "voxels")]
)
def test_a_header_in_another_unit_is_told(planted, clean, factor: float, what: str):
    cases = [case.with_(affine=np.diag([factor] * 3 + [1]) @ case.affine) for case in clean]
    told = found(planted(cases), "header")
    assert len(told) == 3
    assert "another unit" in told[0].text
    assert what in told[0].text


def test_the_header_of_every_image_is_read(planted, clean, tmp_path: Path):
    planted()
    path = tmp_path / "data" / "imagesTr" / f"{clean[0].case_id}_0000.nii.gz"
    image = nib.load(path)
    image.set_qform(image.affine @ np.diag([-1, 1, 1, 1]), code=1)
    nib.save(image, path)
    (tmp_path / "data" / "manifest.jsonl").unlink()
    told = [f for f in found(check_dataset(tmp_path / "data"), "header") if "apart" in f.text]
    assert [f.case_id for f in told] == [clean[0].case_id]
