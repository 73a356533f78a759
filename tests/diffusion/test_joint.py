"""Autoencoder and denoiser in one loop: each learns from its own term, and what is left are two ordinary stages."""

import pytest
import torch

from cardiosynth.autoencoder.codec import load_codec
from cardiosynth.autoencoder.task import train_autoencoder
from cardiosynth.core.errors import InputError
from cardiosynth.core.store import latest_checkpoint, load_tensors, read_json
from cardiosynth.data.dataset import write_dataset
from cardiosynth.data.loader import CaseCache
from cardiosynth.diffusion.joint import Together, _task, train_joint
from cardiosynth.diffusion.records import load_diffusion
from cardiosynth.diffusion.stages import train_diffusion
from cardiosynth.training.loop import fit as real_fit

from .small import TRAINING
from .test_label_stage import AUTOENCODER, SCALE, STAGE, cut

FIRST = AUTOENCODER.model_copy(update={"held_out": 0})
LOOP = TRAINING.model_copy(update={"steps": 3})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a joint training, and its slices."""
    root = tmp_path_factory.mktemp("joint")
    cases = write_dataset([cut(index) for index in range(4)], root / "data")
    train_joint(cases, root / "run", FIRST, STAGE, LOOP, SCALE)
    return cases, root / "run"


def test_what_is_left_are_two_ordinary_stages(trained):
    _, run = trained
    codec = load_codec(run)
    network, stage, record = load_diffusion(run, codec, "cpu")
    assert stage == STAGE
    together = load_tensors(latest_checkpoint(run / "joint") / "model.safetensors")
    for part, module in (("autoencoder", codec.autoencoder), ("denoiser", network)):
        assert all(torch.equal(value, together[f"{part}.{name}"]) for name, value in module.state_dict().items())
    assert record["statistics"]["mean"] == pytest.approx(together["center"].tolist())
    assert read_json(run / "autoencoder" / "verdict.json")["fingerprint"] == codec.fingerprint


def test_the_autoencoder_learns_as_it_does_alone(trained, tmp_path):
    """Nothing of the denoiser's loss reaches it, bit for bit."""
    cases, run = trained
    train_autoencoder(cases, tmp_path, FIRST.model_copy(update={"training": LOOP}), SCALE)
    alone, beside = (load_codec(path).autoencoder.state_dict() for path in (tmp_path, run))
    assert all(torch.equal(alone[name], beside[name]) for name in alone)


def test_the_denoisers_loss_moves_no_other_network(trained):
    cases, _ = trained
    task = _task(CaseCache(cases, SCALE), FIRST, STAGE, 0, None)
    batch = {**task.batch([torch.Generator().manual_seed(0)]), "step": torch.tensor(0)}
    player = task.players()[-1]
    player.loss(batch)["total"].backward()
    reached = [name for name, parameter in task.module.named_parameters() if parameter.grad is not None]
    assert player.name == "denoiser"
    assert reached
    assert all(name.startswith("denoiser.") for name in reached)


def test_a_stopped_training_ends_like_an_unbroken_one(trained, tmp_path, monkeypatch):
    cases, run = trained

    def stopping(*args, **options):
        real_fit(*args, **options, stop_at=1)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("cardiosynth.diffusion.joint.fit", stopping)
        with pytest.raises(SystemExit):
            train_joint(cases, tmp_path, FIRST, STAGE, LOOP, SCALE)
    train_joint(cases, tmp_path, FIRST, STAGE, LOOP, SCALE)
    for stage in ("joint", "autoencoder", "diffusion"):
        first, second = (load_tensors(latest_checkpoint(r / stage) / "model.safetensors") for r in (run, tmp_path))
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert train_joint(cases, tmp_path, FIRST, STAGE, LOOP, SCALE).name == "step-0000003"


def test_the_first_batch_sets_the_statistics_and_later_ones_move_them(trained):
    together = _task(CaseCache(trained[0], SCALE), FIRST, STAGE, 0, None).module
    assert isinstance(together, Together)
    batch = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 5 + 2
    together.take_in(batch, 0)
    normalized = together.normalized(batch)
    torch.testing.assert_close(normalized.mean((0, 2, 3)), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(normalized.square().mean((0, 2, 3)), torch.ones(2), atol=1e-5, rtol=0)
    center = together.center.clone()
    together.take_in(batch + 100, 1)
    torch.testing.assert_close(together.center, center + 1)


def test_what_cannot_be_trained_together_is_refused(trained, tmp_path):
    cases, run = trained
    with pytest.raises(InputError, match=r"autoencoder\.crop=\[16, 16\]"):
        train_joint(cases, tmp_path, FIRST.model_copy(update={"crop": (8, 8)}), STAGE, LOOP, SCALE)
    with pytest.raises(InputError, match="told of masks"):
        train_joint(cases, tmp_path, FIRST, STAGE.model_copy(update={"condition": None}), LOOP, SCALE)
    train_diffusion(cases, tmp_path, STAGE, autoencoder=run)
    with pytest.raises(InputError, match="'diffusion' that was trained by itself"):
        train_joint(cases, tmp_path, FIRST, STAGE, LOOP, SCALE)
