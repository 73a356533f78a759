from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.data.dataset import Dataset, write_dataset
from cardiosynth.experiments.slice_sheets import SIZE_PX, draw_sheet, main

from .slices import real_slices, synthetic_slices


def copies(real: Dataset, root: Path) -> Dataset:
    """The real slices under other names, in another order."""
    made = [
        real.case(name).with_(case_id=f"made-{number}", provenance={"reference": name})
        for number, name in enumerate(reversed(real.case_ids))
    ]
    return write_dataset(made, root, "made")


def test_a_column_shows_what_was_made_for_the_mask_of_its_line(tmp_path: Path):
    real = real_slices(tmp_path / "real")
    test = real.part("test")
    sheet = draw_sheet(test, {"made": copies(real, tmp_path / "made")}, 2)
    plain = draw_sheet(test, {}, 2)
    assert sheet.shape[1] == plain.shape[1] + SIZE_PX + 4
    made, shown = (sheet[:, -(k + 1) * (SIZE_PX + 4) : -k * (SIZE_PX + 4) or None] for k in (1, 0))
    np.testing.assert_array_equal(made[40:], shown[40:], "copies, line by line")
    assert sheet.shape[0] == plain.shape[0] < draw_sheet(test, {}, 3).shape[0]


def test_masks_without_an_image_are_refused_and_the_command_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    real_slices(tmp_path / "real")
    synthetic_slices(tmp_path / "noise", "p3", 3, reference="p3_ED_slice000")
    main(tmp_path / "out" / "sheet.png", data=tmp_path / "real", made=[tmp_path / "noise"])
    assert (tmp_path / "out" / "sheet.png").exists()
    synthetic_slices(tmp_path / "other", reference="p9_ED_slice000")
    with pytest.raises(InputError, match=r"no mask of .* has an image in all of noise, other"):
        main(tmp_path / "sheet.png", data=tmp_path / "real", made=[tmp_path / "noise", tmp_path / "other"])
