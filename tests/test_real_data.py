"""The chain on real scans, at toy size: cine MR, and a phantom-trained model shown a real CTA and real masks."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.cli import main
from cardiosynth.data.dataset import read_dataset

SMALL_MR = [
    "intensity.unit=mr", "grid.shape=[32, 32, 8]", "grid.spacing_mm=[4.5, 4.5, 10.0]",
    "autoencoder.crop=[16, 16, 8]", "segmenter.crop=[16, 16, 8]",
]  # fmt: skip


def acdc_of(real_data: Path, patients: int, where: Path) -> Path:
    """A folder with the first patients only."""
    for patient in sorted((real_data / "acdc").glob("patient*"))[:patients]:
        shutil.copytree(patient, where / patient.name)
    return where


@pytest.mark.slow
def test_the_whole_chain_runs_on_cine_mr(real_data: Path, tmp_path: Path):
    data, run, changes = tmp_path / "acdc", tmp_path / "run", [w for s in SMALL_MR for w in ("--set", s)]
    source = acdc_of(real_data, 3, tmp_path / "source")
    main(["prepare", "acdc", str(source), str(data), "--shape", "32", "32", "8", "--spacing-mm", "4.5", "4.5", "10"])
    for stage in ("autoencoder", "diffusion", "control"):
        main(["train", stage, str(data), str(run), "--recipe", "fcas/tiny", *changes])
    main(["masks", str(data), str(tmp_path / "masks"), "--cases", "2", "--recipe", "fcas/tiny"])
    made = tmp_path / "synthetic"
    main(
        ["generate", str(run), str(made), "--templates", str(data), "--masks", str(tmp_path / "masks"), "--cases", "2"]
    )
    main(["train", "segmenter", str(made), str(run), *changes])
    main(["evaluate", str(data), str(made), "--out", str(tmp_path / "results.json")])
    main(["report", str(tmp_path / "results.json"), "--out", str(tmp_path / "report.html")])

    page = re.sub(r"data:image/png;base64,[^\"]+", "", (tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not re.search(r"\bHU\b", page), "magnetic resonance is not measured in Hounsfield units"
    for case in read_dataset(made):
        assert case.intensity_unit == "mr"
        assert {label.name for label in case.labels} == {
            "right_ventricle", "left_ventricular_myocardium", "left_ventricle",
        }  # fmt: skip
        assert "CC BY-NC-SA" in case.provenance["licence"], "the scans' terms travel with what is made from them"


@pytest.mark.slow
def test_a_phantom_trained_model_takes_a_real_cta_as_template_and_real_masks(real_data: Path, tmp_path: Path):
    phantoms, run = tmp_path / "phantoms", tmp_path / "run"
    main(["phantom", str(phantoms), "--cases", "3", "--shape", "32", "32", "32", "--protocols", "1"])
    for stage in ("autoencoder", "diffusion", "control"):
        main(["train", stage, str(phantoms), str(run), "--recipe", "fcas/tiny"])

    scans = tmp_path / "scans"
    for part, file in (("images", "ct_and_masks/ct_cropped"), ("labels", "derived/label_heart1_aorta2_pa3")):
        (scans / part).mkdir(parents=True)
        shutil.copy(real_data / "cta_aorta" / f"{file}.nii.gz", scans / part / "cta.nii.gz")
    (scans / "labels.json").write_text(json.dumps({"heart": 1, "aorta": 2, "pulmonary artery": 3}))
    template = tmp_path / "template"
    main(["prepare", "folder", str(scans), str(template), "--recipe", "fcas/tiny", "--licence", "Apache-2.0"])
    main(["masks", str(template), str(tmp_path / "deformed"), "--cases", "1", "--recipe", "fcas/tiny"])

    masks = tmp_path / "masks"
    main(["prepare", "acdc", str(acdc_of(real_data, 1, tmp_path / "source")), str(masks), "--recipe", "fcas/tiny"])
    made = tmp_path / "synthetic"
    main(["generate", str(run), str(made), "--templates", str(template), "--masks", str(masks), "--cases", "2"])

    references = read_dataset(masks)
    for case, reference in zip(read_dataset(made), references, strict=True):
        assert case.intensity_unit == "hu"
        np.testing.assert_array_equal(case.mask, reference.mask)
        assert case.provenance["template"] == "cta"
        assert set(case.provenance["left_out"]) == {"heart", "aorta"}
        assert "Apache-2.0" in case.provenance["licence"]
        assert "CC BY-NC-SA" in case.provenance["licence"]
