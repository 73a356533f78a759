import json
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.data.formats.nifti import write_nifti
from cardiosynth.data.sources.nnunet import nnunet


def raw_folder(root: Path, channel: str, **facts) -> Path:
    for name in ("a", "b"):
        write_nifti(root / "imagesTr" / f"{name}_0000.nii.gz", np.full((1, 4, 5, 6), -9, np.int16), np.eye(4))
        write_nifti(root / "labelsTr" / f"{name}.nii.gz", np.ones((1, 4, 5, 6), np.uint8), np.eye(4))
    content = {"channel_names": {"0": channel}, "labels": {"background": 0, "heart": 1}, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps({**content, **facts}))
    return root


def test_the_cases_of_a_raw_folder_come_with_unit_and_licence(tmp_path: Path):
    cases = list(nnunet(raw_folder(tmp_path, "CT", licence="CC BY 4.0")))
    assert [case.case_id for case in cases] == ["a", "b"]
    assert cases[0].intensity_unit == "hu"
    assert cases[0].provenance["licence"] == "CC BY 4.0"
    assert cases[0].provenance["patient"] == "a"
    assert cases[0].provenance["files"] == {"image": "imagesTr/a_0000.nii.gz", "mask": "labelsTr/a.nii.gz"}


def test_mr_is_known_by_its_channel(tmp_path: Path):
    assert next(nnunet(raw_folder(tmp_path, "cine MRI"))).intensity_unit == "mr"


def test_an_unclear_channel_asks_for_the_unit(tmp_path: Path):
    raw_folder(tmp_path, "contrast A")
    with pytest.raises(InputError, match="state the unit"):
        nnunet(tmp_path)
    assert next(nnunet(tmp_path, intensity_unit="mr")).intensity_unit == "mr"
    with pytest.raises(InputError, match="no intensity unit 'xx'"):
        nnunet(tmp_path, intensity_unit="xx")
