from pathlib import Path

import numpy as np
import pytest

from cardiosynth.cli import main
from cardiosynth.core.case import Case
from cardiosynth.data.dataset import read_dataset, write_dataset


@pytest.mark.parametrize(("kind", "name"), [("nnunet", "Dataset007_Heart"), ("dicom", "out")])
def test_a_dataset_goes_out_by_one_command(tmp_path: Path, kind: str, name: str, capsys: pytest.CaptureFixture[str]):
    if kind == "dicom":
        pytest.importorskip("highdicom", reason="needs the extra dicom")
    image = np.arange(-200, 300, dtype=np.int16)[:60].reshape(1, 5, 4, 3)
    write_dataset(
        [Case(case_id="a", image=image, mask=np.ones_like(image, np.uint8), affine=np.eye(4))], tmp_path / "d"
    )
    main(["export", kind, str(tmp_path / "d"), str(tmp_path / name)])
    assert f"1 cases as {kind}" in capsys.readouterr().err
    if kind == "nnunet":
        assert read_dataset(tmp_path / name).case_ids == ("a",)
    else:
        assert len(list((tmp_path / name / "a" / "image").iterdir())) == 3
