"""Weights from one training to the next."""

from pathlib import Path

import pytest
import torch
from torch import nn

from cardiosynth.core.errors import InputError
from cardiosynth.segmentation.nnunet.weights import transfer_weights


def network(structures: int = 2) -> nn.Module:
    decoder = nn.Module()
    decoder.add_module("seg_layers", nn.ModuleList([nn.Conv3d(4, 1 + structures, 1)]))
    made = nn.Module()
    made.add_module("encoder", nn.Conv3d(1, 4, 3))
    made.add_module("decoder", decoder)
    return made


def saved(module: nn.Module, path: Path) -> Path:
    torch.save({"network_weights": module.state_dict(), "current_epoch": 1}, path)
    return path


@pytest.mark.parametrize("head", [True, False])
def test_the_head_comes_along_only_where_it_is_asked_for(tmp_path: Path, head: bool):
    source, target = network(), network()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    transfer_weights(target, saved(source, tmp_path / "final.pth"), head)
    for name, value in target.state_dict().items():
        wanted = source.state_dict() if head or "encoder" in name else before
        assert torch.equal(value, wanted[name])


def test_another_number_of_labels_needs_a_head_of_its_own(tmp_path: Path):
    checkpoint = saved(network(3), tmp_path / "final.pth")
    with pytest.raises(InputError, match=r"seg_layers.*\(4,\) and \(3,\).*head_transfer=false"):
        transfer_weights(network(2), checkpoint, head=True)
    transfer_weights(network(2), checkpoint, head=False)


def test_weights_that_are_missing_or_foreign_are_refused(tmp_path: Path):
    source = network()
    source.add_module("more", nn.Linear(1, 1))
    with pytest.raises(InputError, match=r"'more.bias' is \(1,\) and nothing"):
        transfer_weights(network(), saved(source, tmp_path / "more.pth"), head=True)
    with pytest.raises(InputError, match=r"'more.bias' is nothing and \(1,\)"):
        transfer_weights(source, saved(network(), tmp_path / "less.pth"), head=True)
    with pytest.raises(InputError, match="finish that training first"):
        transfer_weights(source, tmp_path / "none.pth", head=True)
