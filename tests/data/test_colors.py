import re
from pathlib import Path

import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.core.labels import CARDIAC_CT, label_table
from cardiosynth.data.colors import ITK_SNAP, SLICER, itksnap_labels, slicer_color_table
from cardiosynth.data.dataset import write_dataset

TABLE = label_table({"Left Atrium": 7, "aorta": 2})


def test_slicer_reads_one_line_per_code_and_no_space_in_a_name():
    lines = slicer_color_table(TABLE).splitlines()
    left_atrium = " ".join(map(str, TABLE.named("left_atrium").color))
    assert lines[:3] == ["# Color table file", "# 3 values", "0 background 0 0 0 0"]
    assert lines[3].startswith("2 aorta ")
    assert lines[4] == f"7 left_atrium {left_atrium} 255"
    assert all(re.fullmatch(r"\d+ \S+( \d{1,3}){4}", line) for line in slicer_color_table(CARDIAC_CT).splitlines()[2:])


def test_itk_snap_reads_numbers_and_a_quoted_name():
    text = itksnap_labels(TABLE)
    assert "\n# ITK-SnAP Label Description File\n" in text
    rows = [line for line in text.splitlines() if not line.startswith("#")]
    read = [re.fullmatch(r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.]+)\s+([01])\s+([01])\s+"([^"]+)"', r) for r in rows]
    assert [match and (match[1], match[8]) for match in read] == [
        ("0", "Clear Label"),
        ("2", "aorta"),
        ("7", "left atrium"),
    ]
    last = read[-1]
    assert last is not None
    assert tuple(int(last[i]) for i in (2, 3, 4)) == TABLE.named("left_atrium").color


def test_every_dataset_folder_carries_both(tmp_path: Path):
    mask = np.full((1, 4, 4, 4), 7, np.uint8)
    write_dataset([Case(case_id="a", image=None, mask=mask, affine=np.eye(4), labels=TABLE)], tmp_path / "d")
    assert (tmp_path / "d" / SLICER).read_text() == slicer_color_table(TABLE)
    assert (tmp_path / "d" / ITK_SNAP).read_text() == itksnap_labels(TABLE)
