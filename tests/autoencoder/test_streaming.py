import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cardiosynth.autoencoder import planning
from cardiosynth.autoencoder.chain import Chain
from cardiosynth.autoencoder.codebook import CodebookSettings
from cardiosynth.autoencoder.layers import Layer, Normalize
from cardiosynth.autoencoder.networks import AutoencoderSettings, build_autoencoder
from cardiosynth.autoencoder.planning import make_plan
from cardiosynth.autoencoder.streaming import decode, encode, plan_decode, plan_encode, run
from cardiosynth.core.errors import InputError
from cardiosynth.training.cost import Meter

from .random_networks import SMALL, random_autoencoder, two_regions

DEEP = SMALL.model_copy(update={"num_res_blocks": (2, 2, 2)})
COMPACT = AutoencoderSettings(channels=(8, 16), num_res_blocks=(1, 2))
SLICES = COMPACT.model_copy(update={"spatial_dims": 2})
VQGAN = AutoencoderSettings(
    kind="vqgan", spatial_dims=2, channels=(8, 16, 16), num_res_blocks=(1, 1, 1), norm_groups=4,
    codebook=CodebookSettings(codes=8),
)  # fmt: skip


def measured(compute):
    """Return a result and its cost."""
    with Meter() as meter, torch.no_grad():
        result = compute()
        return result, meter.take()


def error(found, expected):
    """Return the largest difference relative to the range."""
    assert found.shape == expected.shape
    assert float(expected.std()) > 1e-3
    return float((found - expected).abs().max() / (expected.max() - expected.min()))


@pytest.mark.parametrize(
    ("settings", "latent", "batch"),
    [
        (SMALL, (17, 5, 7), 1),
        (SMALL, (5, 13, 7), 2),
        pytest.param(DEEP, (3, 4, 19), 1, marks=pytest.mark.slow),
        (COMPACT, (41, 3, 5), 2),
        (SLICES, (11, 43), 1),
        (VQGAN, (11, 43), 2),
    ],
)
def test_decoding_in_slabs_is_decoding_the_whole(settings, latent, batch):
    autoencoder = random_autoencoder(settings)
    z = two_regions((batch, 4, *latent))
    whole, cost = measured(lambda: autoencoder.decode(z.clone()))
    budget_gb = 0.5 * cost.peak_bytes / 1e9
    found, streamed = measured(lambda: decode(autoencoder, z.clone(), budget_gb))
    plan = plan_decode(autoencoder, tuple(z.shape), budget_gb)
    assert error(found, whole) < 1e-5
    assert streamed.flops == plan.flops
    assert streamed.peak_bytes <= 1.05e9 * budget_gb
    assert plan.untiled_flops == cost.flops


@pytest.mark.parametrize(
    ("settings", "image"),
    [
        (SMALL, (67, 19, 14)),
        pytest.param(DEEP, (13, 17, 53), marks=pytest.mark.slow),
        (COMPACT, (20, 164, 12)),
        (SLICES, (64, 260)),
        (VQGAN, (67, 258)),
    ],
)
def test_encoding_in_slabs_is_encoding_the_whole(settings, image):
    autoencoder = random_autoencoder(settings)
    x = two_regions((1, 1, *image), shift=0.5)
    whole, cost = measured(lambda: autoencoder.encode(x.clone()))
    budget_gb = 0.5 * cost.peak_bytes / 1e9
    found, streamed = measured(lambda: encode(autoencoder, x.clone(), budget_gb))
    plan = plan_encode(autoencoder, tuple(x.shape), budget_gb)
    assert error(found[0], whole[0]) < 1e-5
    assert settings.codebook is not None or error(found[1], whole[1]) < 1e-5
    assert streamed.flops == plan.flops
    assert streamed.peak_bytes <= 1.05e9 * budget_gb


def test_a_quarter_of_the_memory_is_enough_and_predicted():
    autoencoder = random_autoencoder(SMALL)
    z = two_regions((1, 4, 31, 5, 6))
    whole, cost = measured(lambda: autoencoder.decode(z.clone()))
    plan = plan_decode(autoencoder, tuple(z.shape), 0.24 * cost.peak_bytes / 1e9)
    found, streamed = measured(lambda: run(autoencoder.decoding(), plan, z.clone()))
    assert error(found, whole) < 1e-5
    assert plan.passes[-1].slabs >= 8
    assert streamed.peak_bytes <= cost.peak_bytes / 4
    assert 1e9 * plan.peak_gb == pytest.approx(streamed.peak_bytes, rel=0.02)
    assert 1e9 * plan.untiled_peak_gb == pytest.approx(cost.peak_bytes, rel=0.02)
    assert streamed.flops == plan.flops > plan.untiled_flops == cost.flops


def test_tiles_with_statistics_of_their_own_are_far_off():
    """Halos of twelve latents, beyond every receptive field: what remains is the norms."""
    autoencoder = random_autoencoder(SMALL)
    z = two_regions((1, 4, 48, 4, 4))
    whole = autoencoder.decode(z)
    tiled = autoencoder.decode(z[:, :, :24])[:, :, :48]
    assert error(tiled, whole[:, :, :48]) > 0.05
    untiled = plan_decode(autoencoder, tuple(z.shape), None).untiled_peak_gb
    assert error(decode(autoencoder, z, untiled / 3), whole) < 1e-5


def test_more_memory_never_costs_more_operations_and_all_of_it_costs_none():
    autoencoder = random_autoencoder(SMALL)
    whole = plan_decode(autoencoder, (17, 9, 10), None)
    plans = [plan_decode(autoencoder, (17, 9, 10), share * whole.untiled_peak_gb) for share in (0.3, 0.6)]
    flops = [plan.flops for plan in [*plans, whole]]
    assert flops == sorted(flops, reverse=True)
    assert whole.untiled_flops == whole.flops
    assert whole.untiled_peak_gb == whole.peak_gb
    assert all(p.peak_gb <= share * whole.untiled_peak_gb for p, share in zip(plans, (0.3, 0.6), strict=True))


def test_a_budget_that_cannot_be_met_names_the_smallest_that_can():
    autoencoder = random_autoencoder(SMALL)
    with pytest.raises(InputError, match=r"smallest possible is ([0-9.]+) GB") as caught:
        plan_decode(autoencoder, (61, 20, 20), 1e-4)
    smallest = float(str(caught.value).split("possible is ")[1].split(" ")[0])
    assert plan_decode(autoencoder, (61, 20, 20), smallest).peak_gb <= smallest
    with pytest.raises(InputError, match="smallest"):
        plan_decode(autoencoder, (61, 20, 20), 0.98 * smallest)


class LargestTensor(TorchDispatchMode):
    """Remembers the most values that any operation made."""

    def __init__(self):
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.values = max(self.values, result.numel())
        return result


@pytest.mark.parametrize("budget_gb", [None, 1.0])
def test_no_tensor_has_more_values_than_allowed_but_the_image(budget_gb):
    autoencoder = random_autoencoder(SMALL)
    z = two_regions((1, 4, 15, 6, 7))
    with LargestTensor() as whole:
        expected = autoencoder.decode(z)
    largest = whole.values // 6
    assert expected.numel() < largest
    with LargestTensor() as streamed:
        found = decode(autoencoder, z, budget_gb, largest=largest)
    assert streamed.values <= largest
    assert error(found, expected) < 1e-5
    plan = plan_decode(autoencoder, tuple(z.shape), budget_gb, largest=largest)
    assert plan.flops < 1.3 * plan.untiled_flops


def test_under_bfloat16_slabs_differ_from_the_whole_by_its_rounding():
    autoencoder = random_autoencoder(SMALL)
    z = two_regions((1, 4, 23, 6, 7))
    exact = autoencoder.decode(z)
    with torch.autocast("cpu", torch.bfloat16):
        whole, cost = measured(lambda: autoencoder.decode(z.clone()))
        budget_gb = 0.4 * cost.peak_bytes / 1e9
        found, streamed = measured(lambda: decode(autoencoder, z.clone(), budget_gb))
    plan = plan_decode(autoencoder, tuple(z.shape), budget_gb, torch.bfloat16)
    assert found.dtype == torch.float32
    assert float((found - whole).std()) < 2 * float((whole - exact).std()) < 0.05 * float(exact.std())
    assert streamed.peak_bytes <= 1.2e9 * budget_gb
    assert 1e9 * plan.peak_gb == pytest.approx(streamed.peak_bytes, rel=0.2)
    assert streamed.flops == plan.flops


def test_tensors_may_wait_in_host_memory(monkeypatch):
    monkeypatch.setattr(planning, "HOST_FLOPS_PER_BYTE", 10)
    autoencoder = random_autoencoder(SMALL)
    z = two_regions((1, 4, 23, 6, 7))
    here = plan_decode(autoencoder, tuple(z.shape), None)
    budget_gb = 0.2 * here.untiled_peak_gb
    plan = plan_decode(autoencoder, tuple(z.shape), budget_gb, host=True)
    assert "host" in plan.kept.values()
    assert "kept in host memory: decoder" in plan.in_words()
    assert plan.flops < plan_decode(autoencoder, tuple(z.shape), budget_gb).flops
    assert error(run(autoencoder.decoding(), plan, z), autoencoder.decode(z)) < 1e-5


def test_networks_without_data_are_planned_alike():
    with torch.device("meta"):
        empty = build_autoencoder(SMALL)
    real = random_autoencoder(SMALL)
    assert plan_decode(empty, (64, 64, 32), 2.0) == plan_decode(real, (64, 64, 32), 2.0)
    assert plan_encode(empty, (255, 256, 130), 1.0) == plan_encode(real, (255, 256, 130), 1.0)


def test_a_plan_reads_as_words():
    words = plan_decode(random_autoencoder(SMALL), (64, 64, 32), 0.4).in_words()
    assert "whole volume at once" in plan_decode(random_autoencoder(SMALL), (64, 64, 32), None).in_words()
    assert "slabs along axis 0" in words
    assert "times the untiled" in words
    assert "computed again: decoder.blocks." in words


def test_a_grid_that_cannot_be_folded_is_refused():
    with pytest.raises(InputError, match="halved"):
        plan_encode(random_autoencoder(COMPACT), (20, 44, 11), None)


def test_a_chain_may_begin_with_a_norm():
    norm = torch.nn.GroupNorm(2, 4)
    chain = Chain((Normalize("norm", norm, activated=True),))
    x = two_regions((1, 4, 16, 3, 3))
    plan = make_plan(chain, tuple(x.shape), None, largest=x.numel() // 3)
    assert plan.num_slabs > 1
    with torch.no_grad():
        assert error(run(chain, plan, x), chain.forward(x)) < 1e-6


def test_the_base_of_all_layers_is_the_identity():
    x = two_regions((1, 4, 16, 3, 3))
    assert torch.equal(Layer("nothing").forward(x), x)


PEAK = """
import re, sys, torch
from pathlib import Path
from cardiosynth.autoencoder.networks import AutoencoderSettings, build_autoencoder
from cardiosynth.autoencoder.streaming import decode, plan_decode
torch.set_num_threads(1)
settings = AutoencoderSettings(kind="maisi", channels=(64, 128, 256), num_res_blocks=(2, 2, 2), norm_groups=32)
autoencoder = build_autoencoder(settings).eval().requires_grad_(False)
def memory(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1e6
with torch.no_grad():
    decode(autoencoder, torch.randn(1, 4, 8, 8, 8))
    z = torch.randn(1, 4, 41, 41, 2)
    untiled = plan_decode(autoencoder, tuple(z.shape), None).untiled_peak_gb
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    if sys.argv[1] == "whole":
        autoencoder.decode(z)
    else:
        decode(autoencoder, z, 0.18 * untiled)
print(memory("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux, which tells a process its peak")
def test_a_process_really_uses_a_quarter_of_the_memory():
    """Released sizes: of smaller tensors torch's convolutions make columns 27 times as large.

    The C library keeps freed blocks of less than 32 MB unless told to give them back.
    """
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    whole, streamed = (
        float(
            subprocess.run([sys.executable, "-c", PEAK, how], capture_output=True, check=True, env=environment).stdout
        )
        for how in ("whole", "streamed")
    )
    assert streamed <= whole / 4
