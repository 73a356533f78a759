from pathlib import Path

import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.data.sources.hvsmr2 import hvsmr2

from .written import image, mask


def test_ends_of_vessels_are_not_read_and_a_mask_of_its_own_comes_first(tmp_path: Path):
    image(tmp_path / "pat7_cropped_norm.nii.gz", 0)
    mask(tmp_path / "pat7_cropped_seg.nii.gz", 1)
    mask(tmp_path / "pat7_cropped_seg_endpoints.nii.gz", 99)
    assert next(hvsmr2(tmp_path)).mask.max() == 1
    mask(tmp_path / "pat7_cropped_norm_seg.nii.gz", 8)
    case = next(hvsmr2(tmp_path))
    assert (case.case_id, case.mask.max(), case.provenance["form"]) == ("pat7", 8, "cropped_norm")
    assert case.labels.named("inferior vena cava").code == 8


def test_a_patient_in_two_forms_is_refused(tmp_path: Path):
    image(tmp_path / "orig" / "pat7_orig.nii.gz", 0)
    image(tmp_path / "cropped" / "pat7_cropped.nii.gz", 0)
    with pytest.raises(InputError, match=r"would both be the case 'pat7'; take one of them away"):
        hvsmr2(tmp_path)
