"""What the README and the examples tell people to type, typed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def environment() -> dict[str, str]:
    scripts = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": scripts + os.pathsep + os.environ["PATH"]}


@pytest.mark.slow
def test_the_commands_and_the_examples_run_as_written(tmp_path: Path):
    (script,) = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    shell = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(shell, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count("SYNTHETIC")
    assert len(list((tmp_path / "data/synthetic/confidenceTr").glob("*.nii.gz"))) == 2

    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    subprocess.run([sys.executable, "-W", "error", "-c", snippet], cwd=tmp_path, check=True)

    example = [sys.executable, str(ROOT / "examples/one_case.py"), "run", "data/train", "one"]
    said = subprocess.run(example, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert "mean confidence" in said
    assert len(list((tmp_path / "one/imagesTr").glob("*.nii.gz"))) == 1


def test_every_file_the_readme_links_to_is_there():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_make_knows_the_two_commands():
    for goal, command in (("demo", "cardiosynth demo"), ("test", "pytest")):
        plan = subprocess.run(["make", "-n", goal], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        assert command in plan
