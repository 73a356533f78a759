"""FQCDM's stages under torchrun: the codebook and the running statistics of latents are those of the whole batch."""

import json
from pathlib import Path

import pytest
from test_fqcdm import cut
from test_torchrun import EVERY, WORKER, assert_alike, assert_same_bits, torchrun

from cardiosynth.cli import main
from cardiosynth.core.store import checkpoints, load_tensors
from cardiosynth.data.dataset import write_dataset

STAGES = ("autoencoder", "diffusion", "joint")
# Published are batch norms and an adaptive weight of the opponent: statistics of each process's part of the batch.
OPPONENT = [
    "autoencoder.adversarial.norm=instance", "autoencoder.adversarial.adaptive=false",
    "autoencoder.adversarial.warmup_steps=1",
]  # fmt: skip
OF_A_PART = ("autoencoder/codes_met", "autoencoder/perplexity")
"""What is logged is the mean over processes of what each has met."""


def command(stage: str, data: Path, root: Path, *more: str, **changes) -> list[str]:
    """The words of `cardiosynth train STAGE`, in a run of its own for the joint training."""
    place = "joint" if stage == "joint" else f"{stage}.training"
    settings = [*OPPONENT, *(f"{place}.{name}={value}" for name, value in {**EVERY, **changes}.items())]
    words = ["train", stage, str(data), str(root / where(stage)), "--recipe", "fqcdm/tiny", "--accept-verdict", *more]
    return [*words, *(word for setting in settings for word in ("--set", setting))]


def where(stage: str) -> str:
    """Return the run of a stage."""
    return "jointly" if stage == "joint" else "apart"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every stage in two processes, unbroken and stopped half-way, and in one, on the same autoencoder."""
    root = tmp_path_factory.mktemp("torchrun")
    data = write_dataset([cut(index) for index in range(4)], root / "data").root
    together = root / "together"
    earlier = {"diffusion": ("--autoencoder", str(together / "apart"))}
    (root / "worker.py").write_text(WORKER)
    first = [command(stage, data, together) for stage in STAGES]
    first += [command(stage, data, root / "stopped", *earlier.get(stage, ()), steps=2) for stage in STAGES]
    torchrun("worker.py", json.dumps(first), cwd=root)
    second = [command(stage, data, root / "stopped", *earlier.get(stage, ())) for stage in STAGES]
    torchrun("worker.py", json.dumps(second), cwd=root)
    for stage in STAGES:
        main(command(stage, data, root / "alone", *earlier.get(stage, ())))
    return root


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_equal_one_and_go_on_to_the_same_bits(ran: Path, stage: str):
    together, alone, stopped = (ran / name / where(stage) / stage for name in ("together", "alone", "stopped"))
    assert_alike(together, alone, besides=OF_A_PART)
    assert_same_bits(together, stopped)


@pytest.mark.slow
def test_the_codes_have_begun_and_are_those_of_one_process(ran: Path):
    """They follow averages of latents over the whole batch, by no gradient that the loop could average."""
    found = []
    for name in ("together", "alone"):
        for stage in ("autoencoder", "joint"):
            weights = load_tensors(checkpoints(ran / name / where(stage) / stage)[-1] / "model.safetensors")
            found.append({key: value for key, value in weights.items() if "codebook" in key})
    assert all(found)
    for one, other in zip(found[:2], found[2:], strict=True):
        for key, value in one.items():
            assert value.float().numpy() == pytest.approx(other[key].float().numpy(), rel=1e-3, abs=1e-5), key
