import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import label_table
from cardiosynth.data.sources.slices import slices
from cardiosynth.data.splits import patient_of

ROWS = np.arange(12, dtype=np.uint8).reshape(3, 4)
HVSMR = label_table({"lv": 1, "rv": 2, "la": 3, "ra": 4, "aorta": 5, "pa": 6, "svc": 7, "ivc": 8})
CHD68 = label_table({"lv": 1, "rv": 2, "la": 3, "ra": 4, "myocardium": 5, "aorta": 6, "pa": 7})
HOCM = label_table({"av": 1, "mv": 2, "aorta": 3, "la": 4, "lv": 5, "myocardium": 6, "excised": 7})


def picture(path: Path, rows: np.ndarray = ROWS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rows).save(path)


def two_slices(root: Path) -> Path:
    for name in ("1001_63", "1001_179"):
        picture(root / "images" / f"{name}.png")
        picture(root / "masks" / f"{name}.png", ROWS % 3)
    (root / "labels.json").write_text(json.dumps({"aorta": 1, "left atrium": 2}))
    return root


def test_slices_of_a_patient_stay_together_and_nothing_is_made_up(tmp_path: Path):
    cases = list(slices(two_slices(tmp_path), licence="CC BY 4.0"))
    assert [case.case_id for case in cases] == ["1001_slice179", "1001_slice63"]
    assert {patient_of(case.case_id) for case in cases} == {case.provenance["patient"] for case in cases} == {"1001"}
    assert {case.intensity_unit for case in cases} == {"unknown"}
    assert cases[0].spacing_mm is None
    assert cases[0].provenance["licence"] == "CC BY 4.0"
    assert cases[0].provenance["files"] == {"image": "images/1001_179.png", "mask": "masks/1001_179.png"}
    assert np.array_equal(cases[0].mask, cases[0].image % 3)
    assert next(slices(tmp_path, intensity_unit="mr")).intensity_unit == "mr"
    (tmp_path / "spacing.json").write_text('{"1001": [0.4, 0.5]}')
    assert next(slices(tmp_path)).spacing_mm == pytest.approx((0.4, 0.5))


def test_of_several_masks_the_codes_are_taken_and_the_colors_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    two_slices(tmp_path)
    for name in ("1001_63", "1001_179"):
        picture(tmp_path / "color_masks" / f"{name}.png", np.stack([ROWS, 0 * ROWS, ROWS], -1))
    assert next(slices(tmp_path)).mask.max() == 2
    assert "color_masks is passed over" in capsys.readouterr().err
    for path in (tmp_path / "masks").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"color_masks/1001_179\.png holds colors; export one gray value"):
        slices(tmp_path)


def test_images_alone_are_cases(tmp_path: Path):
    picture(tmp_path / "images" / "a.png")
    case = next(slices(tmp_path))
    assert (case.case_id, case.mask) == ("a", None)


def test_bad_folders_are_named_with_the_mend(tmp_path: Path):
    with pytest.raises(InputError, match="holds no images/ with PNG files; give the folder"):
        slices(tmp_path)
    two_slices(tmp_path)
    with pytest.raises(InputError, match="images holds no images/ with PNG"):
        slices(tmp_path / "images")
    picture(tmp_path / "masks" / "1001_63.png", ROWS)
    stream = slices(tmp_path)
    next(stream)
    with pytest.raises(InputError, match=r"masks/1001_63\.png holds the code 3, 4"):
        next(stream)
    picture(tmp_path / "masks" / "1001_63.png", ROWS[:2] % 3)
    with pytest.raises(InputError, match=r"shapes \(4, 3\) and \(4, 2\)"):
        slices(tmp_path).reader("1001_slice63")()
    (tmp_path / "masks" / "1001_179.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"masks/1001_179\.png is truncated, damaged or no PNG"):
        next(slices(tmp_path))
    (tmp_path / "masks" / "1001_63.png").unlink()
    with pytest.raises(InputError, match=r"images/1001_63\.png has no mask in .*masks; add it"):
        slices(tmp_path)
    picture(tmp_path / "labels" / "1001_63.png")
    with pytest.raises(InputError, match="leave one of the folders"):
        slices(tmp_path)


@pytest.mark.parametrize(
    ("name", "labels", "patients"),
    [("chd68_slices", CHD68, 7), ("hocm_slices", HOCM, 2), ("hvsmr2_slices", HVSMR, 5)],
)
def test_real_slices_are_read_with_their_patients(real_data: Path, name: str, labels, patients: int):
    stream = slices(real_data / name, labels)
    assert len(stream.case_ids) == 36
    assert len({patient_of(case_id) for case_id in stream.case_ids}) == patients
    cases = [stream.reader(case_id)() for case_id in stream.case_ids[::7]]
    assert {case.grid.shape for case in cases} == {(512, 512)}
    assert len(set(np.unique([case.mask for case in cases]).tolist())) > 4
    assert not any(case.spacing_known for case in cases)
