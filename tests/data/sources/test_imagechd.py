from pathlib import Path

import numpy as np
import pytest

from cardiosynth.data.sources.imagechd import imagechd

from .written import AFFINE, image, mask


def pair(folder: Path, *codes: int, air: int = 24, affine: np.ndarray = AFFINE) -> Path:
    image(folder / "ct_1001_image.nii.gz", air, affine)
    mask(folder / "ct_1001_label.nii.gz", *codes, affine=affine)
    return folder


def test_stored_values_become_hounsfield_units_once(tmp_path: Path):
    case = next(imagechd(pair(tmp_path / "a", 1)))
    assert (case.image.min(), case.image.dtype, case.intensity_unit) == (-1000, np.int16, "hu")
    assert case.provenance["mended"] == ["1024 taken away from stored values, so that they are HU"]
    already = next(imagechd(pair(tmp_path / "b", 1, air=-1000)))
    assert already.image.min() == -1000
    assert "mended" not in already.provenance


def test_codes_of_airways_become_background_and_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    case = next(imagechd(pair(tmp_path, 5, 14, 8)))
    assert sorted(np.unique(case.mask)) == [0, 5]
    assert case.labels.named("left ventricular myocardium").code == 5
    assert "ct_1001: code 14 of the mask (1 voxels) left out" in capsys.readouterr().err
    assert len(case.provenance["mended"]) == 3


def test_voxels_of_one_millimeter_are_a_placeholder(tmp_path: Path):
    assert not next(imagechd(pair(tmp_path / "a", 1, affine=np.diag([-1.0, -1, 1, 1])))).spacing_known
    assert next(imagechd(pair(tmp_path / "b", 1))).spacing_known
    (tmp_path / "a" / "spacing.json").write_text('{"ct_1001": [0.3, 0.3, 0.75]}')
    assert next(imagechd(tmp_path / "a")).spacing_mm == pytest.approx((0.3, 0.3, 0.75))
