"""A learning rate that falls when the loss no longer does: PyTorch's rule, and a resumed run equals an unbroken one."""

import pytest
import torch
from torch import nn

from cardiosynth.core.errors import InputError
from cardiosynth.core.random import generator
from cardiosynth.core.store import load_tensors, read_rows
from cardiosynth.training.loop import fit
from cardiosynth.training.plateau import Plateau, PlateauSettings
from cardiosynth.training.settings import TrainingSettings

from .tasks import Denoising

LOSSES = torch.rand(400, generator=generator(0, "losses")).double() + torch.linspace(1, 0.2, 400).double().clamp(
    min=0.6
)
SETTINGS = TrainingSettings(
    steps=12, batch_size=1, learning_rate=0.01, log_every=1, checkpoint_every=5, precision="fp32",
    plateau=PlateauSettings(every=2, patience=0, threshold=0.9, factor=0.5),
)  # fmt: skip


@pytest.mark.parametrize("patience", [0, 3])
def test_the_rate_falls_as_pytorchs_does(patience):
    settings = PlateauSettings(every=4, patience=patience, factor=0.3, threshold=0.01, smallest=0.002)
    ours, optimizer = Plateau(settings), torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.3, patience=patience, threshold=0.01, min_lr=0.002, eps=0
    )
    found, expected = [], []
    for average in LOSSES.view(-1, 4):
        for loss in average:
            ours.take(float(loss))
        theirs.step(float(sum(average.tolist()) / 4))
        found.append(ours.share)
        expected.append(optimizer.param_groups[0]["lr"])
    assert found == pytest.approx(expected)
    assert found[0] == 1
    assert found[-1] == (0.002 if patience == 0 else pytest.approx(expected[-1]))


def test_a_stopped_plateau_goes_on_where_it_was():
    whole, first = Plateau(PlateauSettings(every=3, patience=1)), Plateau(PlateauSettings(every=3, patience=1))
    for loss in LOSSES[:100]:
        first.take(float(loss))
    second = Plateau(PlateauSettings(every=3, patience=1))
    second.restore(first.tensor())
    for loss in LOSSES:
        whole.take(float(loss))
    for loss in LOSSES[100:]:
        second.take(float(loss))
    assert torch.equal(second.tensor(), whole.tensor())
    assert whole.share < 1


def test_a_resumed_run_equals_an_unbroken_one(tmp_path):
    fit(Denoising(), SETTINGS, tmp_path / "whole", {})
    fit(Denoising(), SETTINGS, tmp_path / "stopped", {}, stop_at=7)
    fit(Denoising(), SETTINGS, tmp_path / "stopped", {})
    one, other = (
        load_tensors(tmp_path / run / "step-0000012" / "training.safetensors") for run in ("whole", "stopped")
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    rates = [row["learning_rate"] for row in read_rows(tmp_path / "stopped" / "metrics.jsonl")]
    assert rates[:4] == [0.01] * 4  # the first average has nothing to be compared with, the second is no better
    assert rates[4] == 0.005
    assert rates[-1] < rates[4]


def test_a_part_that_a_loss_does_not_have_is_refused(tmp_path):
    settings = SETTINGS.model_copy(update={"plateau": PlateauSettings(every=2, part="perceptual")})
    with pytest.raises(InputError, match="'perceptual' is no part of the loss of 'denoiser'; it has total"):
        fit(Denoising(), settings, tmp_path, {})


def test_a_run_that_was_begun_before_there_were_plateaus_goes_on(tmp_path):
    plain = SETTINGS.model_copy(update={"plateau": None})
    fit(Denoising(), plain, tmp_path, {"later": None}, stop_at=1)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"plateau": null,', ""))
    assert fit(Denoising(), plain, tmp_path, {}, stop_at=2).name == "step-0000002"
    with pytest.raises(InputError, match=r"begun with training\.plateau\.\w+ = nothing"):
        fit(Denoising(), SETTINGS, tmp_path, {})
