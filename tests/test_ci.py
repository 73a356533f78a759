"""The checks of the checks: a skip for a missing extra fails where every extra must be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SKIPS = {
    "inside": "import pytest\ndef test_it():\n    pytest.skip('needs the extra dicom')\n",
    "outside": "import pytest\npytest.skip('needs the extra dicom', allow_module_level=True)\n",
    "no data": "import pytest\ndef test_it():\n    pytest.skip('no real data here')\n",
}


@pytest.mark.parametrize(("kind", "fails"), [("inside", True), ("outside", True), ("no data", False)])
def test_a_skip_for_a_missing_extra_fails_in_ci_only(tmp_path: Path, kind: str, fails: bool):
    (tmp_path / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text())
    (tmp_path / "test_one.py").write_text(SKIPS[kind])
    for ci in ("", "1"):
        environment = {**os.environ, "CARDIOSYNTH_CI": ci}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
        assert (ended.returncode in (1, 2)) == (fails and ci == "1")
