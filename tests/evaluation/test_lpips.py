"""LPIPS with weights made up here; the package itself was compared once, with weights of both networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cardiosynth.core.errors import InputError
from cardiosynth.evaluation.lpips import load_lpips, slice_lpips

ALEX = {"slice1.0": (64, 3, 11), "slice2.3": (192, 64, 5), "slice3.6": (384, 192, 3), "slice4.8": (256, 384, 3)}
ALEX["slice5.10"] = (256, 256, 3)


def alexnet() -> dict[str, torch.Tensor]:
    """Two features of the first layer: 1, and the brightness of each window's center where it is above the mean."""
    weights = {}
    for index, (name, (out, given, side)) in enumerate(ALEX.items()):
        weights[f"net.{name}.weight"] = torch.zeros(out, given, side, side)
        weights[f"net.{name}.bias"] = torch.zeros(out)
        weights[f"lin{index}.model.1.weight"] = torch.ones(1, out, 1, 1)
    weights["net.slice1.0.bias"][0] = 1
    weights["net.slice1.0.weight"][1, 1, 5, 5] = 1
    return weights


@pytest.fixture
def lpips(tmp_path: Path):
    save_file(alexnet(), tmp_path / "alex.safetensors")
    return load_lpips(tmp_path / "alex.safetensors")


def flat(value: float, shape=(40, 40)) -> np.ndarray:
    return np.full(shape, value, np.float32)


def expected(x: float, y: float) -> float:
    features = [np.array([1, max((2 * v - 1 + 0.088) / 0.448, 0)]) for v in (x, y)]
    one, other = (f / np.linalg.norm(f) for f in features)
    return float(np.square(one - other).sum())


def test_flat_images_by_hand(lpips):
    assert slice_lpips(lpips, flat(0.9), flat(0.6)) == pytest.approx(expected(0.9, 0.6), rel=1e-4)
    assert slice_lpips(lpips, flat(0.6), flat(0.9)) == pytest.approx(expected(0.9, 0.6), rel=1e-4)
    assert slice_lpips(lpips, flat(0.6), flat(0.6)) == 0


def test_every_plane_counts_alike_and_small_slices_do_not(lpips):
    one, other = flat(0.9, (40, 40, 3)), flat(0.6, (40, 40, 3))
    assert slice_lpips(lpips, one, other) == pytest.approx(expected(0.9, 0.6), rel=1e-4)
    assert np.isnan(slice_lpips(lpips, flat(0.9, (20, 40)), flat(0.6, (20, 40))))


def test_the_title_tells_network_and_file(lpips, tmp_path: Path):
    changed = alexnet() | {"lin0.model.1.weight": torch.zeros(1, 64, 1, 1)}
    torch.save(changed, tmp_path / "other.pth")
    other = load_lpips(tmp_path / "other.pth")
    assert lpips.title.startswith("LPIPS AlexNet ")
    assert other.title != lpips.title
    assert slice_lpips(other, flat(0.9), flat(0.6)) == 0


def test_other_weights_are_no_lpips(tmp_path: Path):
    weights = alexnet()
    del weights["lin3.model.1.weight"]
    save_file(weights, tmp_path / "backbone.safetensors")
    with pytest.raises(InputError, match="no weights of LPIPS"):
        load_lpips(tmp_path / "backbone.safetensors")
