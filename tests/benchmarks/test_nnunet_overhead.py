"""The overhead of confidence in nnU-Net, measured at toy size."""

from pathlib import Path

import pytest

from tests.benchmarks.test_benchmarks import run


@pytest.mark.slow
def test_both_trainers_take_turns(tmp_path: Path):
    pytest.importorskip("nnunetv2", reason="needs the extra nnunet: pip install 'cardiosynth[nnunet]'")
    found = run("nnunet_overhead.py", tmp_path / "results.json")
    parts = {f"{part}, {origin}" for part in ("batch", "step") for origin in ("synthetic", "real")}
    assert found["median"].keys() == found["overhead"].keys() == parts
    for row in found["overhead"].values():
        for overhead in row.values():
            assert -1 < overhead["low"] <= overhead["median"] <= overhead["high"]
