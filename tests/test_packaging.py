"""The wheel: built, installed beside nothing of the source tree, and run."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_installs_and_runs(tmp_path: Path):
    # The wheel is built from the source archive, so that both are complete.
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("cardiosynth-*.whl")
    home = tmp_path / "installed"
    install = ["install", "--no-deps", "--no-index", "--target", str(home), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    environment = {"PYTHONPATH": str(home), "PATH": "", "OMP_NUM_THREADS": "1"}

    def python(*words: str) -> str:
        command = [sys.executable, *words]
        return subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    assert str(home) in python("-c", "import cardiosynth; print(cardiosynth.__file__)")
    assert python("-m", "cardiosynth", "--version").strip() == "0.1.0"
    python("-m", "cardiosynth", "phantom", "data", "--cases", "1", "--shape", "24", "24", "24")
    assert (tmp_path / "data" / "imagesTr" / "phantom-00000_0000.nii.gz").exists()
    shipped = Path(python("-m", "cardiosynth", "weights", "shipped").strip())
    assert shipped.is_relative_to(home)
    python("-c", f"import cardiosynth; cardiosynth.load_generator({str(shipped)!r})")
    assert list(home.glob("cardiosynth/report/*.html*")), "the report's template is part of the wheel"
    assert list(home.glob("cardiosynth-*.dist-info/licenses/LICENSE"))
