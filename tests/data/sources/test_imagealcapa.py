import json
from pathlib import Path

import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.data.sources.imagealcapa import imagealcapa

from .written import image, mask


def test_codes_follow_the_authors_list_and_the_doubt_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    image(tmp_path / "12_image.nii.gz", 24)
    mask(tmp_path / "12_label.nii.gz", 6, 7)
    case = next(imagealcapa(tmp_path))
    assert case.case_id == "alcapa_12"
    assert case.labels.named("left coronary artery").code == 6
    assert "look at a case first" in capsys.readouterr().err


def test_another_table_can_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    image(tmp_path / "1_image.nii.gz", 24)
    mask(tmp_path / "1_label.nii.gz", 2)
    (tmp_path / "mine.json").write_text(json.dumps({"aorta": 2}))
    case = next(imagealcapa(tmp_path, tmp_path / "mine.json"))
    assert case.labels.named("aorta").code == 2
    assert "look at a case" not in capsys.readouterr().err
    mask(tmp_path / "1_label.nii.gz", 3)
    with pytest.raises(InputError, match="holds the code 3"):
        next(imagealcapa(tmp_path, tmp_path / "mine.json"))
