"""Every stage under torchrun: two processes equal one with the same batch, and stopped ones go on to the same bits.

What runs is the command line; a file of commands saves the minutes of importing torch anew for each.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from diffusion.small import dataset
from safetensors.torch import load_file

from cardiosynth.cli import main
from cardiosynth.core.store import checkpoints, read_json, read_rows

STAGES = ("autoencoder", "diffusion", "control", "segmenter")
WORKER = """
import json, sys
from cardiosynth.cli import main
for command in json.loads(sys.argv[1]):
    main(command)
"""
EVERY = {"steps": 4, "batch_size": 2, "schedule": "constant", "warmup_steps": 0, "checkpoint_every": 2, "log_every": 1,
         "precision": "fp32"}  # fmt: skip
OWN = {
    "autoencoder": ["autoencoder.adversarial={warmup_steps: 1, layers: 1, channels: 8}"],
    "diffusion": ["diffusion.watch={cases: 1, validate_every: 2, sheet_every: 4, sheet_cases: 1}"],
    "control": ["control.watch={cases: 1, validate_every: 2, sheet_every: 4, sheet_cases: 1}"],
    "segmenter": [],
}


def command(stage: str, data: Path, run: Path, *more: str, **changes) -> list[str]:
    """The words of `cardiosynth train STAGE`."""
    settings = [*OWN[stage], *(f"{stage}.training.{name}={value}" for name, value in {**EVERY, **changes}.items())]
    words = ["train", stage, str(data), str(run), "--recipe", "fcas/tiny", *more]
    if stage in ("diffusion", "control"):
        words.append("--accept-verdict")
    return [*words, *(word for setting in settings for word in ("--set", setting))]


def torchrun(*words: str, cwd: Path) -> str:
    """Run two processes and return what they said."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words]
    done = subprocess.run(launch, capture_output=True, text=True, cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return done.stderr


def assert_alike(*folders: Path, besides: tuple[str, ...] = ()) -> None:
    """See that two stages of four steps are the same training but for rounding, ``besides`` some of what is logged."""
    rows = [
        [
            {name: value for name, value in row.items() if name not in besides}
            for row in read_rows(folder / "metrics.jsonl")
        ]
        for folder in folders
    ]
    assert [row["step"] for row in rows[0]] == [1, 2, 3, 4]
    for one, other in zip(*rows, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    one, other = (load_file(checkpoints(folder)[-1] / "training.safetensors") for folder in folders)
    assert one.keys() == other.keys()
    for name, value in one.items():
        if name.endswith("exp_avg"):
            torch.testing.assert_close(value, other[name], rtol=0, atol=1e-6, msg=name)
        elif name.endswith("exp_avg_sq"):
            # AdamW follows the sign of gradients that are rounding errors, as of a bias before a normalization.
            weight = f"raw.{name.removesuffix('.exp_avg_sq').split('.', 2)[2]}"
            felt = value > 1e-12
            torch.testing.assert_close(one[weight][felt], other[weight][felt], rtol=0, atol=2e-5, msg=weight)


def assert_same_bits(*folders: Path) -> None:
    """See that two stages end with the same bits after four steps."""
    ends = [checkpoints(folder)[-1] for folder in folders]
    assert [end.name for end in ends] == ["step-0000004"] * 2
    for name in ("model.safetensors", "training.safetensors"):
        assert ends[0].joinpath(name).read_bytes() == ends[1].joinpath(name).read_bytes()
    rows = [folder / "metrics.jsonl" for folder in folders]
    assert rows[0].read_bytes() == rows[1].read_bytes()


class Ran(NamedTuple):
    data: Path
    together: Path
    stopped: Path
    alone: Path
    said: str


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Every stage in two processes, unbroken and stopped half-way, and in one, on the same earlier stages."""
    root = tmp_path_factory.mktemp("torchrun")
    data = dataset(root / "data", 6).root
    together, stopped, alone = root / "together", root / "stopped", root / "alone"
    earlier = {
        "autoencoder": (), "segmenter": (), "diffusion": ("--autoencoder", str(together)),
        "control": ("--autoencoder", str(together), "--diffusion", str(together)),
    }  # fmt: skip
    (root / "worker.py").write_text(WORKER)
    first = [command(stage, data, together) for stage in STAGES]
    first += [command(stage, data, stopped, *earlier[stage], steps=2) for stage in STAGES]
    said = torchrun("worker.py", json.dumps(first), cwd=root)
    second = [command(stage, data, stopped, *earlier[stage]) for stage in STAGES]
    torchrun("worker.py", json.dumps(second), cwd=root)
    for stage in STAGES:
        main(command(stage, data, alone, *earlier[stage]))
    return Ran(data, together, stopped, alone, said)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_equal_one_with_twice_the_batch(ran, stage):
    assert_alike(ran.together / stage, ran.alone / stage)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_go_on_to_the_same_bits(ran, stage):
    assert_same_bits(ran.together / stage, ran.stopped / stage)


@pytest.mark.slow
def test_one_of_two_processes_writes_and_speaks(ran):
    assert ran.said.count("encode: 3/3 done") == 2  # of 6 cases, for each of the two runs
    for stage in STAGES:
        assert ran.said.count(f"train {stage}: 4/4 done") == 1
    assert len(list((ran.together / "latents").rglob("*.safetensors"))) == 6
    assert read_json(ran.together / "autoencoder" / "verdict.json")["fingerprint"]
    assert read_json(ran.together / "recipe.json")["name"] == "fcas/tiny"
    assert not list(ran.together.rglob(".partial-*"))
    for stage in ("diffusion", "control"):
        assert [path.name for path in (ran.together / stage / "samples").iterdir()] == ["step-0000004.png"]


@pytest.mark.slow
def test_the_command_itself_runs_under_torchrun(ran, tmp_path):
    words = command("segmenter", ran.data, tmp_path / "run", steps=1)
    torchrun("-m", "cardiosynth", *words, cwd=tmp_path)
    assert [path.name for path in checkpoints(tmp_path / "run" / "segmenter")] == ["step-0000001"]
