"""Several processes are one: run as real processes that talk through gloo, and stopped by real signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cardiosynth.core.errors import InputError
from cardiosynth.core.random import generator
from cardiosynth.core.store import checkpoints, read_rows
from cardiosynth.training.loop import TrainingSettings, fit
from cardiosynth.training.processes import Processes

from .tasks import Adversarial, Denoising, Following, names

SETTINGS = TrainingSettings(
    steps=6, batch_size=4, learning_rate=1e-2, log_every=2, checkpoint_every=3, precision="fp32"
)

WORKER = """
import sys, time
from pathlib import Path
import torch.distributed as dist
sys.path.insert(0, {tests!r})
from training.tasks import Adversarial, Denoising, Following
from cardiosynth.training.loop import TrainingSettings, fit
TASKS = {{
    "Adversarial": Adversarial, "Following": Following, "Denoising": lambda: Denoising(dropout={dropout}, norm={norm})
}}
settings = TrainingSettings.model_validate_json({settings!r})
if {slow}:
    class Slow(Denoising):
        def batch(self, generators):
            time.sleep(0.05)
            return super().batch(generators)
    TASKS["Denoising"] = Slow
for name in {names!r}:
    fit(TASKS[name](), settings, Path({run!r}) / name, {{"stage": "toy"}})
if dist.is_initialized():
    dist.destroy_process_group()
"""


FAILING = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from training.tasks import Denoising
from cardiosynth.core.errors import InputError
from cardiosynth.training.loop import TrainingSettings, fit
from cardiosynth.training.processes import join_processes
rank = join_processes("cpu").rank
class Failing(Denoising):
    def loss(self, batch):
        parts = super().loss(batch)
        return parts | {{"extra": parts["total"].detach() / (rank == 0 or int(batch["step"]) != 3)}}
try:
    fit(Failing(), TrainingSettings.model_validate_json({settings!r}), Path({run!r}), {{"stage": "toy"}})
except InputError as error:
    Path({run!r}, f"said-{{rank}}").write_text(str(error))
"""


def script(
    folder: Path, names: list[str], settings: TrainingSettings, *, dropout: float, norm: bool, slow: bool
) -> Path:
    tests = str(Path(__file__).parents[1])
    text = WORKER.format(
        tests=tests, names=names, settings=settings.model_dump_json(), run=str(folder / "run"), dropout=dropout,
        norm=norm, slow=slow,
    )  # fmt: skip
    (folder / "worker.py").write_text(text)
    return folder / "worker.py"


def assert_close(one: Path, other: Path) -> None:
    a, b = load_file(one / "training.safetensors"), load_file(other / "training.safetensors")
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=0, atol=1e-6, msg=key)


@pytest.mark.slow
def test_two_processes_equal_one_with_the_same_global_batch(tmp_path):
    worker = script(tmp_path, ["Adversarial", "Denoising", "Following"], SETTINGS, dropout=0.0, norm=False, slow=False)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(worker)]
    done = subprocess.run(launch, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    for task in (Adversarial(), Denoising(dropout=0, norm=False), Following()):
        name = type(task).__name__
        alone = fit(task, SETTINGS, tmp_path / "alone" / name, {"stage": "toy"})
        together = tmp_path / "run" / name
        assert_close(checkpoints(together)[-1], alone)
        rows = zip(read_rows(together / "metrics.jsonl"), read_rows(alone.parent / "metrics.jsonl"), strict=True)
        for a, b in rows:
            assert a == pytest.approx(b, abs=1e-6)


@pytest.mark.slow
def test_a_loss_that_one_process_finds_not_finite_stops_all_of_them(tmp_path):
    facts = {"tests": str(Path(__file__).parents[1]), "settings": SETTINGS.model_dump_json(), "run": str(tmp_path)}
    (tmp_path / "failing.py").write_text(FAILING.format(**facts))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "failing.py"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(launch, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    said = [(tmp_path / f"said-{rank}").read_text() for rank in range(2)]
    drawn = Denoising().batch([generator(SETTINGS.seed, "batch", 3, index) for index in (2, 3)])
    seen = ", ".join(sorted(set(names(drawn))))  # by the second process, which has the later half of the batch
    assert said[0] == said[1]
    assert f"the loss (extra) of 'denoiser' at step 4 is not finite on the cases {seen};" in said[0]


@pytest.mark.slow
def test_sigterm_in_mid_run_and_the_same_command_again_give_the_same_bits(tmp_path):
    settings = SETTINGS.model_copy(update={"steps": 60, "checkpoint_every": 50, "log_every": 1})
    worker = script(tmp_path, ["Denoising"], settings, dropout=0.3, norm=True, slow=True)
    process = subprocess.Popen([sys.executable, str(worker)], stderr=subprocess.PIPE, text=True)
    run = tmp_path / "run" / "Denoising"
    deadline = time.monotonic() + 120
    while len(read_rows(run / "metrics.jsonl")) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "of 60; the same command goes on from there." in said
    assert len(checkpoints(run)) == 1
    assert 3 <= int(checkpoints(run)[0].name.removeprefix("step-")) < 60
    subprocess.run([sys.executable, str(worker)], check=True, capture_output=True)
    straight = fit(Denoising(), settings, tmp_path / "straight", {"stage": "toy"})
    for name in ("model.safetensors", "training.safetensors", "record.json"):
        assert (checkpoints(run)[-1] / name).read_bytes() == (straight / name).read_bytes()
    assert (run / "metrics.jsonl").read_bytes() == (straight.parent / "metrics.jsonl").read_bytes()


def test_examples_are_shared_out_in_order():
    shares = [Processes(rank, 3, torch.device("cpu")).own_examples(6) for rank in range(3)]
    assert [list(share) for share in shares] == [[0, 1], [2, 3], [4, 5]]


def test_a_batch_that_cannot_be_shared_out_is_refused():
    with pytest.raises(InputError, match="batch_size 5 cannot be shared by 2 processes"):
        Processes(0, 2, torch.device("cpu")).own_examples(5)
