from pathlib import Path

import pytest

from cardiosynth.data.sources.imagecas import imagecas

from .written import image, mask


def pair(folder: Path, stem: str = "") -> None:
    image(folder / f"{stem}img.nii.gz")
    mask(folder / f"{stem}label.nii.gz", 1)


def test_numbers_are_in_order_and_padded(tmp_path: Path):
    for number in (2, 10, 1000):
        pair(tmp_path / "archive", f"{number}.")
    assert imagecas(tmp_path).case_ids == ("imagecas_0002", "imagecas_0010", "imagecas_1000")


def test_duplicates_of_the_earlier_release_are_passed_over_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    pair(tmp_path / "10016975")
    pair(tmp_path / "10016975(1)")
    stream = imagecas(tmp_path)
    assert stream.case_ids == ("imagecas_10016975",)
    assert next(stream).labels.named("coronary artery").code == 1
    assert "1 duplicates" in capsys.readouterr().err


def test_one_patients_folder_is_enough(tmp_path: Path):
    pair(tmp_path / "10016975")
    assert imagecas(tmp_path / "10016975").case_ids == ("imagecas_10016975",)
