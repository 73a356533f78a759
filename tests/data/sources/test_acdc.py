from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.data.formats.nifti import write_nifti
from cardiosynth.data.sources.acdc import LABELS, acdc


def frame(folder: Path, number: int) -> None:
    name = f"{folder.name}_frame{number:02d}"
    write_nifti(folder / f"{name}.nii.gz", np.full((1, 6, 6, 4), 50, np.int16), np.diag([1.5, 1.5, 10, 1]))
    mask = np.zeros((1, 6, 6, 4), np.uint8)
    mask[:, 2, 2, :3] = 1, 2, 3
    write_nifti(folder / f"{name}_gt.nii.gz", mask, np.diag([1.5, 1.5, 10, 1]))


def test_frames_of_one_patient_share_the_acquisition_and_the_first_is_diastole(tmp_path: Path):
    frame(tmp_path / "patient007", 1)
    frame(tmp_path / "patient007", 12)
    first, last = acdc(tmp_path)
    assert (first.case_id, last.case_id) == ("patient007_frame01", "patient007_frame12")
    assert first.provenance["acquisition"] == last.provenance["acquisition"] == "patient007"
    assert (first.provenance["phase"], last.provenance["phase"]) == ("end-diastole", "end-systole")
    assert first.provenance["licence"] == "CC BY-NC-SA 4.0"
    assert (first.intensity_unit, first.labels) == ("mr", LABELS)


def test_as_downloaded_the_phase_comes_from_info_and_the_series_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "training" / "patient007"
    frame(folder, 2)
    frame(folder, 14)
    (folder / "Info.cfg").write_text("ED: 14\nES: 2\nGroup: DCM\nHeight: 160.0\n")
    write_nifti(folder / "patient007_4d.nii.gz", np.zeros((1, 4, 4, 4), np.int16), np.eye(4))
    cases = {case.provenance["phase"]: case for case in acdc(tmp_path)}
    assert cases["end-diastole"].case_id == "patient007_frame14"
    assert cases["end-diastole"].provenance["group"] == "DCM"
    assert "1 4D series are passed over" in capsys.readouterr().err


def test_without_any_mask_the_frames_are_images_alone(tmp_path: Path):
    frame(tmp_path / "patient101", 1)
    (tmp_path / "patient101" / "patient101_frame01_gt.nii.gz").unlink()
    assert next(acdc(tmp_path)).mask is None


def test_another_folder_is_refused(tmp_path: Path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="patient001"):
            acdc(root)


def test_the_real_patients_are_all_found(real_data: Path):
    cases = acdc(real_data / "acdc")
    assert cases.__length_hint__() == 140
    assert set(np.unique(next(cases).mask)) == {0, 1, 2, 3}
