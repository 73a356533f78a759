"""What is said of real scans: true things, and little else."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from cardiosynth.cli import main
from cardiosynth.data.check.examination import check_dataset

PATIENTS = 4


@pytest.mark.slow
def test_cine_mr_whose_orientation_was_lost_is_one_warning(real_data: Path, tmp_path: Path):
    for patient in sorted((real_data / "acdc").glob("patient*"))[:PATIENTS]:
        shutil.copytree(patient, tmp_path / "source" / patient.name)
    words = ["--shape", "128", "128", "10", "--axes", "image"]
    main(["prepare", "acdc", str(tmp_path / "source"), str(tmp_path / "data"), *words])
    found = check_dataset(tmp_path / "data").findings
    # Patient 2's right ventricle is in three pieces at end-systole, as it was annotated.
    assert Counter(f.kind for f in found if f.level != "info") == {"orientation": 1, "fragments": 1}
    (whole,) = (finding for finding in found if finding.kind == "orientation")
    assert whole.facts["reversed"] == ["front-back"]
    assert whole.facts["count"] == 2 * PATIENTS


@pytest.mark.slow
def test_a_real_cta_measures_what_contrast_ct_should(real_data: Path, tmp_path: Path):
    scans = tmp_path / "scans"
    for folder, file in (("images", "ct_and_masks/ct_cropped"), ("labels", "derived/label_heart1_aorta2_pa3")):
        (scans / folder).mkdir(parents=True)
        shutil.copy(real_data / "cta_aorta" / f"{file}.nii.gz", scans / folder / "cta.nii.gz")
    (scans / "labels.json").write_text('{"heart": 1, "aorta": 2, "pulmonary artery": 3}')
    main(["prepare", "folder", str(scans), str(tmp_path / "data"), "--shape", "96", "96", "96"])
    examination = check_dataset(tmp_path / "data")
    warned = [finding for finding in examination.findings if finding.level == "warning"]
    # Two voxels within the model-made mask of the aorta have no label.
    assert [(f.kind, f.facts) for f in warned] == [("cavity", {"structure": "aorta", "voxels": [1, 1]})]
    medians = {name: total.medians[0] for name, total in examination.structures.items()}
    assert 200 < medians["aorta"] < medians["heart"] < medians["pulmonary_artery"] < 600
