import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.data.sources.dicom import LEAST_SLICES, dicom, pseudonym, series_number, survey
from cardiosynth.data.splits import patient_of
from tests.data.series import numbers, write_series

SLICES = 5
"""As few as these tests ask of a CT series: real ones of 16 take long to write."""
CORONAL = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0]


@pytest.fixture(autouse=True)
def short_series(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(LEAST_SLICES, "CT", SLICES)


def reasons(root: Path, **options) -> dict[str, str]:
    return {series.uid: series.reason for series in survey(root, **options)}


def test_a_series_becomes_a_case_without_the_patients_name(tmp_path: Path):
    write_series(tmp_path / "study of Somebody" / "axial 0.5  B26f", numbers(SLICES), ContrastBolusAgent="something")
    (case,) = dicom(tmp_path, licence="ours")
    assert case.case_id == f"{pseudonym('4711')}-s{series_number('1.2.3.4')}"
    assert patient_of(case.case_id) == case.provenance["patient"] == pseudonym("4711")
    assert (case.image.shape, case.mask, case.intensity_unit) == ((1, 4, 5, 5), None, "hu")
    assert (case.labels, case.origin) == (CARDIAC_CT, "real")
    told = json.dumps(dict(case.provenance))
    assert all(secret not in told for secret in ("Somebody", "4711", "1.2.3"))
    expected = {"model": "Model 1", "kernel": "B26f", "kvp": 100.0, "slice_thickness_mm": 1.0, "contrast_agent": True}
    assert expected.items() <= case.provenance.items()
    assert case.provenance["licence"] == "ours"


def test_another_process_reads_the_same_case(tmp_path: Path):
    write_series(tmp_path, numbers(SLICES))
    stream = dicom(tmp_path)
    sent = pickle.loads(pickle.dumps(stream.reader(stream.case_ids[0])))
    assert np.array_equal(sent().image, next(stream).image)


def test_a_case_is_named_by_its_folder_where_that_is_asked_for(tmp_path: Path):
    write_series(tmp_path / "CASE 7" / "b" / "c", numbers(SLICES))
    stream = dicom(tmp_path, names="folder")
    assert stream.case_ids == (f"CASE-7-s{series_number('1.2.3.4')}",)
    assert stream.reader(stream.case_ids[0])().provenance["patient"] == "CASE-7"
    with pytest.raises(InputError, match="named by 'foldr'"):
        dicom(tmp_path, names="foldr")


def test_scans_share_their_acquisition_where_scanner_kernel_and_voltage_agree(tmp_path: Path):
    for study, kvp in {"1.1": 100, "1.2": 100, "1.3": 120}.items():
        tags = {"uid": f"{study}.5", "StudyInstanceUID": study, "PatientID": study, "KVP": kvp}
        write_series(tmp_path / study, numbers(SLICES), **tags)
    a, b, c = (case.provenance for case in sorted(dicom(tmp_path), key=lambda case: case.provenance["kvp"]))
    assert a["acquisition"] == b["acquisition"] != c["acquisition"]
    assert len({a["patient"], b["patient"], c["patient"]}) == 3


def test_of_every_study_the_largest_series_that_fits_is_taken(tmp_path: Path):
    write_series(tmp_path / "a", numbers(7), uid="1.1")
    write_series(tmp_path / "b", numbers(6), uid="1.2")
    write_series(tmp_path / "c", numbers(8), uid="1.3", ImageOrientationPatient=CORONAL, step=(0.0, 1.0, 0.0))
    write_series(tmp_path / "d", numbers(3), uid="1.4")
    write_series(tmp_path / "e", numbers(8), uid="1.5", Modality="PT")
    write_series(tmp_path / "f", numbers(8), uid="1.6", Modality="MR")
    write_series(tmp_path / "g", numbers(8), uid="1.7", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(tmp_path / "h", numbers(5), uid="1.8", StudyInstanceUID="1.2.9")
    assert reasons(tmp_path) == {
        "1.1": "",
        "1.2": f"series {series_number('1.1')} of its study has as many or more",
        "1.3": "it is not axial",
        "1.4": "it has slices at 3 places, fewer than 5",
        "1.5": "its modality is PT",
        "1.6": "its modality is MR; state the unit mr for it",
        "1.7": "it is a localizer",
        "1.8": "",
    }
    assert [uid for uid, reason in reasons(tmp_path, every_series=True).items() if not reason] == ["1.1", "1.2", "1.8"]
    assert [uid for uid, reason in reasons(tmp_path, intensity_unit="mr").items() if not reason] == ["1.6"]


def test_a_tree_of_mr_alone_needs_no_unit_and_may_lie_as_it_likes(tmp_path: Path):
    values = numbers(6) + np.int16(1000)
    write_series(tmp_path, values, Modality="MR", ImageOrientationPatient=CORONAL, step=(0.0, 8.0, 0.0))
    (case,) = dicom(tmp_path)
    assert (case.intensity_unit, case.image.shape) == ("mr", (1, 4, 6, 5))


def test_other_files_and_copies_are_passed_over_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_series(tmp_path / "a", numbers(SLICES))
    write_series(tmp_path / "copy of a", numbers(SLICES))
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (case,) = dicom(tmp_path)
    assert case.image.shape[3] == 5
    told = capsys.readouterr().err
    assert "5 files passed over, a copy of another" in told
    assert "1 files passed over, no DICOM, e.g. a/notes.txt" in told


def test_phases_of_one_series_become_cases_of_one_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for phase in (75, 40):
        instance = {"of_slice": lambda i, phase=phase: {"SOPInstanceUID": f"1.5.{phase}.{i}"}}
        write_series(tmp_path / str(phase), numbers(SLICES) + np.int16(phase), TriggerTime=phase, **instance)
    early, late = dicom(tmp_path)
    name = f"{pseudonym('4711')}-s{series_number('1.2.3.4')}"
    assert (early.case_id, late.case_id) == (f"{name}-t1", f"{name}-t2")
    assert patient_of(late.case_id) == pseudonym("4711")
    assert (early.provenance["moment"], late.provenance["moment"]) == ("trigger time 40", "trigger time 75")
    assert late.image.min() - early.image.min() == 35
    assert "2 stacks at the same places become a case each, by trigger time" in capsys.readouterr().err


def test_a_broken_series_does_not_hide_the_next(tmp_path: Path):
    write_series(tmp_path / "a", numbers(8), uid="1.1", StudyInstanceUID="1.1.9")
    sorted((tmp_path / "a").iterdir())[4].unlink()
    write_series(tmp_path / "b", numbers(8), uid="1.2", StudyInstanceUID="1.2.9")
    stream = dicom(tmp_path)
    with pytest.raises(InputError, match=r"series \d+ in .*/a \(7 slices\) has a gap, 1 slices are missing"):
        next(stream)
    assert next(stream).image.shape[3] == 8


def test_ct_without_its_intercept_is_refused(tmp_path: Path):
    write_series(tmp_path, numbers(SLICES) * np.int16(9) + np.int16(13000))
    with pytest.raises(InputError, match=r"cannot be HU.*rescale intercept is missing"):
        next(dicom(tmp_path))


def test_a_tilted_gantry_is_told_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_series(tmp_path, numbers(SLICES), step=(0.0, 2 * np.tan(np.radians(20)), 2.0))
    (case,) = dicom(tmp_path)
    assert case.grid.is_sheared
    assert case.provenance["gantry_tilt_degrees"] == pytest.approx(20, abs=0.01)
    assert "tilted by 20.0 degrees" in capsys.readouterr().err


def test_one_number_for_the_patients_of_many_studies_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for study in ("1.1", "1.2"):
        write_series(tmp_path / study, numbers(SLICES), uid=f"{study}.5", StudyInstanceUID=study)
    dicom(tmp_path)
    assert "2 studies give one patient number" in capsys.readouterr().err


def test_what_is_no_tree_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="not a folder"):
        dicom(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no DICOM image"):
        dicom(tmp_path)
    write_series(tmp_path, numbers(3))
    with pytest.raises(InputError, match="none of its 1 series can be used"):
        dicom(tmp_path)
    with pytest.raises(InputError, match=r"hu \(CT\) or mr \(MR\)"):
        dicom(tmp_path, "unknown")


def test_a_real_chest_stands_upright_in_space(real_data: Path):
    (case,) = dicom(real_data / "chest_ct_dicom", names="folder")
    assert case.case_id.startswith("Lung_Dx-A0002-s")
    assert case.image.shape == (1, 512, 512, 30)
    np.testing.assert_allclose(case.spacing_mm, (0.646484375, 0.646484375, 8.0))
    image = case.image[0]
    # The patient lies on the back: a table behind (low second index), nothing but air in front.
    assert image[:, -40:].max() < -900
    assert image[:, :60].max() > 0
    # Under its dome the liver (soft tissue) lies on the patient's right (high first index), the lung on the left.
    dome = (image[:, 200:350, 8] > 30) & (image[:, 200:350, 8] < 100)
    assert dome[300:].sum() > 10 * dome[:200].sum()
    # The spine is bone behind the middle, and the shoulders are bone far from it, at the head's end only.
    bone = image > 250
    assert bone[196:316, 60:256].sum() > 5 * bone[196:316, 256:].sum()
    assert bone[:50, 120:, 26:].sum() > 1000 > 10 * bone[:50, 120:, :4].sum()
