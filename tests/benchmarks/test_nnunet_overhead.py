"""The overhead of confidence in nnU-Net, measured at toy size."""

from pathlib import Path

import pytest

from tests.benchmarks.test_benchmarks import run


@pytest.mark.slow
def test_both_trainers_take_turns(tmp_path: Path):
    pytest.importorskip("nnunetv2", reason="needs the extra nnunet: pip install 'cardiosynth[nnunet]'")
    found = run("nnunet_overhead.py", tmp_path / "results.json")
    assert found["median"].keys() == found["overhead"].keys() == {"batch", "step"}
    for name, row in found["median"].items():
        for clock, overhead in found["overhead"][name].items():
            assert overhead == pytest.approx(row["ours"][clock] / row["stock"][clock] - 1)
