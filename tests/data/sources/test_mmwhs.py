from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.data.sources.mmwhs import NAMES, mmwhs

from .written import image, mask


def pair(root: Path, name: str, *codes: int, air: int = -1000) -> None:
    image(root / f"{name}_image.nii.gz", air)
    mask(root / f"{name}_label.nii.gz", *codes)


def test_every_value_becomes_the_code_of_its_structure(tmp_path: Path):
    pair(tmp_path, "ct_train_1001", *list(NAMES)[:6])
    case = next(mmwhs(tmp_path, "ct"))
    line = case.mask[0, ::-1, 2, 1]  # stored as LPS
    assert [CARDIAC_CT.named(name).code for name in list(NAMES.values())[:6]] == line.tolist()
    assert {label.name for label in case.labels} == set(NAMES.values())


def test_the_stray_value_is_taken_as_the_left_atrium_and_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pair(tmp_path, "mr_train_1010", 420, 421, 850, air=0)
    case = next(mmwhs(tmp_path, "mr"))
    assert np.count_nonzero(case.mask == case.labels.named("left_atrium").code) == 2
    assert case.provenance["mended"] == ["code 421 of the mask (1 voxels) taken as 420, the left atrium"]
    assert "code 421" in capsys.readouterr().err


def test_modalities_are_taken_apart_and_test_scans_have_no_mask(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pair(tmp_path / "ct_train", "ct_train_1001", 205)
    pair(tmp_path / "mr_train", "mr_train_1001", 205, air=0)
    image(tmp_path / "ct_test" / "ct_test_2001_image.nii.gz")
    cases = {case.case_id: case for case in mmwhs(tmp_path, "ct")}
    assert list(cases) == ["ct_test_2001", "ct_train_1001"]
    assert cases["ct_test_2001"].mask is None
    assert cases["ct_train_1001"].provenance["source"].endswith("CT")
    assert "1 images of the other modality are passed over" in capsys.readouterr().err
    assert next(mmwhs(tmp_path, "mr")).intensity_unit == "mr"
