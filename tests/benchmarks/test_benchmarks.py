"""Every benchmark at toy size, so that it still runs when it is needed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def run(script: str, out: Path, *words: str) -> dict[str, Any]:
    """Run one script in a process of its own and return what it wrote."""
    command = [sys.executable, str(FOLDER / script), "--toy", "--out", str(out), *words]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return json.loads(out.read_text())


@pytest.mark.slow
def test_the_released_networks_make_the_same_image(tmp_path: Path):
    found = run("released_networks.py", tmp_path / "results.json", "--sides", "32", "--steps", "2", "--repeats", "1")
    (row,) = found["rows"]
    assert row["difference"]["ours"] < 1e-4
    assert 1e-4 < row["difference"]["ours_bf16"] < 0.1, "random weights are no excuse for more"
    assert row["speedup"] > 0
    assert {"denoise_s", "decode_s", "total_s"} == row["seconds"]["ours"].keys()


@pytest.mark.slow
def test_the_paper_scale_runs_small_on_the_cpu(tmp_path: Path):
    grids = ["--grid", "32", "32", "32", "--training-grid", "32", "32", "32"]
    small = [*grids, "--device", "cpu", "--steps", "2", "--interval", "1", "--budget-gb", "0.002"]
    found = run("gpu_paper_scale.py", tmp_path / "results.json", *small)
    failed = {name: row for name, row in found["measured"].items() if "seconds" not in row}
    assert not failed
    assert len(found["measured"]) == 13
    assert found["ratios"]["fast, times faster than monai (goal 3)"] > 0


@pytest.mark.slow
def test_what_does_not_run_or_comes_too_late_is_told(tmp_path: Path):
    grids = ["--grid", "32", "32", "32", "--training-grid", "32", "32", "32"]
    small = [*grids, "--device", "cpu", "--steps", "2", "--budget-gb", "0.0000001"]
    found = run("gpu_paper_scale.py", tmp_path / "results.json", *small)
    assert "too small" in found["measured"]["ours, 16 GB, decode"]["failed"]
    assert "seconds" in found["measured"]["monai, decode"], "one failure ends one measurement"
    late = run("gpu_paper_scale.py", tmp_path / "late.json", *small, "--minutes", "0")
    assert all(row == {"skipped": "time is up"} for row in late["measured"].values())


@pytest.mark.slow
def test_masks_are_made_beside_those_of_other_libraries(tmp_path: Path):
    found = run("mask_warps.py", tmp_path / "results.json", "--threads", "1")
    ours, monai = found["rows"][:2]
    assert (ours["way"], monai["way"]) == ("ours", "monai")
    assert all(before == after for before, after in ours["pieces_before_and_after"].values())
    before, after = monai["pieces_before_and_after"]["coronary_artery"]
    assert after > before, "vessels of one voxel break under the nearest neighbor"
    assert all(row["peak_gb"] > row["peak_gb_beyond_the_mask"] > 0 for row in (ours, monai))


@pytest.mark.slow
def test_scans_are_prepared_by_one_process_and_by_two(tmp_path: Path):
    found = run("prepare.py", tmp_path / "results.json", "--acdc", str(tmp_path / "nowhere"))
    assert found["not_there"] == ["acdc"]
    assert [(row["set"], row["workers"], row["cases"]) for row in found["rows"]] == [
        ("phantoms", 1, 4), ("phantoms", 2, 4)
    ]  # fmt: skip
    assert all(row["cases_per_minute"] > 0 and row["peak_beyond_imports_mb"] > 0 for row in found["rows"])
