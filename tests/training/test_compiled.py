"""torch.compile takes whole losses or says why not. In processes of their own, where shapes are not checked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cardiosynth.core.store import read_rows

TRAIN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from cardiosynth.core.errors import InputError
from cardiosynth.training.loop import TrainingSettings, fit
from training.tasks import Adversarial, Denoising
settings = TrainingSettings(steps=3, batch_size=2, log_every=1, precision="fp32", compile=True)
plain = settings.model_copy(update={"compile": False})
fit(Denoising(dropout=0, norm=False), settings, Path("compiled"), {})
fit(Denoising(dropout=0, norm=False), plain, Path("plain"), {})
try:
    fit(Adversarial(), settings, Path("refused"), {})
except InputError as error:
    Path("said").write_text(str(error))
"""

ONE_GRAPH = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from cardiosynth.diffusion.process import VariancePreserving
from diffusion.test_task import (
    CARDIAC_CT, DENOISER, ConditionSettings, DiffusionTask, FakeLatents, Objective, ObjectiveSettings, RectifiedFlow,
    TemplateUNet, cache, control_task, generators, network,
)
flow, ddpm = (RectifiedFlow(), "flow", ObjectiveSettings()), (VariancePreserving(), "epsilon", ObjectiveSettings())
told = Objective(*flow, spacings_mm={index: torch.ones(3) for index in range(4)})
spade = ConditionSettings(kind="mask", encoding="one_hot", inject="spade", stem="area", features=4)
of_masks = TemplateUNet(2, 4, 3, DENOISER, spade, CARDIAC_CT)
tasks = [
    DiffusionTask(network(spacing_input=True), FakeLatents(), told), control_task("both", objective=Objective(*ddpm)),
    DiffusionTask(of_masks, FakeLatents(), Objective(*ddpm), cases=cache()),
]
found = []
for task in tasks:
    batch = task.batch(generators(1)) | {"step": torch.tensor(0)}
    graph = torch.compile(task.loss, fullgraph=True, backend="eager")
    found.append([task.loss(batch)["total"].item(), graph(batch)["total"].item()])
Path("found").write_text(json.dumps(found))
"""


def run(script: str, folder: Path) -> None:
    (folder / "worker.py").write_text(script)
    words = [sys.executable, "worker.py", str(Path(__file__).parents[1])]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.compile
def test_a_compiled_run_is_the_run_and_what_cannot_be_compiled_is_refused(tmp_path):
    run(TRAIN, tmp_path)
    rows = [read_rows(tmp_path / name / "metrics.jsonl") for name in ("compiled", "plain")]
    for one, other in zip(*rows, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    said = (tmp_path / "said").read_text()  # its weight of the opponent is a Python number made from a tensor
    assert "the loss of 'maker' cannot be compiled here" in said
    assert "set training.compile=false" in said


@pytest.mark.slow
@pytest.mark.compile
def test_losses_of_both_diffusion_stages_and_of_fqcdms_are_one_graph(tmp_path):
    run(ONE_GRAPH, tmp_path)
    found = json.loads((tmp_path / "found").read_text())
    assert len(found) == 3
    for plain, compiled in found:
        assert compiled == pytest.approx(plain, rel=1e-5)
