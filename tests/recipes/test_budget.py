import json

import pytest
import torch

from cardiosynth.autoencoder.networks import build_autoencoder
from cardiosynth.core.config import with_overrides
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.random import generator
from cardiosynth.diffusion.unet import TemplateUNet
from cardiosynth.recipes import advice, fqcdm, rates
from cardiosynth.recipes.advice import changes, make_fit
from cardiosynth.recipes.budget import examine, in_words
from cardiosynth.recipes.demand import STAGES, Demand, sampling_demand, training_demand
from cardiosynth.recipes.fcas import TINY
from cardiosynth.recipes.rates import machine_rates
from cardiosynth.recipes.sizes import PAPER
from cardiosynth.segmentation.networks import build_segmenter, target_classes
from cardiosynth.training.cost import Cost
from tests.recipes.measured import measure

CONTROLLED = with_overrides(
    TINY, ["control.condition.inject=control", "control.condition.features=16", "control.training.batch_size=4"]
)


MASK_AWARE = with_overrides(TINY, ["autoencoder.network.mask_features=4"])


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.slow
def test_parameters_are_those_of_the_networks():
    codec, sizes = TINY.autoencoder.network, (4, 4, 3, TINY.diffusion.denoiser)
    real = {
        "autoencoder": build_autoencoder(codec),
        "diffusion": TemplateUNet(*sizes, None, CARDIAC_CT),
        "control": TemplateUNet(*sizes, TINY.control.condition, CARDIAC_CT),
        "segmenter": build_segmenter(TINY.segmenter.network, target_classes(CARDIAC_CT)),
    }
    for stage, network in real.items():
        demand = training_demand(TINY, stage, gpu=False)
        assert demand.parameters == demand.trained == count(network), stage
    assert sampling_demand(TINY, gpu=False).parameters == count(real["control"])


@pytest.mark.slow
def test_slices_are_counted_stage_by_stage():
    facts = examine(fqcdm.TINY)["recipe"]
    assert list(facts["training"]) == ["autoencoder", "diffusion", "segmenter"]
    codec = fqcdm.TINY.autoencoder.network
    sizes = (codec.latent_channels, codec.compression, 2, fqcdm.TINY.diffusion.denoiser)
    network = TemplateUNet(*sizes, fqcdm.TINY.diffusion.condition, CARDIAC_CT)
    assert facts["training"]["diffusion"]["parameters"] == facts["sampling"]["parameters"] == count(network)
    assert all(told["tflop"] > 0 for told in facts["training"].values())
    assert "slices of 32 x 32 pixels" in in_words(examine(fqcdm.TINY))


@pytest.mark.parametrize(
    ("recipe", "stage"),
    [(TINY, "autoencoder"), (MASK_AWARE, "autoencoder"), (TINY, "segmenter"), (fqcdm.TINY, "autoencoder")],
)
def test_the_batches_that_are_counted_are_those_that_are_made(recipe, stage: str):
    task, shapes, settings = STAGES[stage](recipe)
    batch = task.batch([generator(0, "batch", index) for index in range(settings.batch_size)])
    assert {name: (tuple(batch[name].shape), batch[name].dtype) for name in shapes} == shapes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "side"),
    [(what, side) for what in ("autoencoder", "control", "sample") for side in (64, 80, 96)]
    # The demo's decoder is so lean that smaller volumes drown in what libraries take.
    + [("decode", side) for side in (128, 160, 192)],
)
def test_memory_is_what_is_foretold(what: str, side: int):
    found = measure(what, side, "fp32")
    assert found["predicted"] == pytest.approx(found["measured"], rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["autoencoder", "diffusion", "segmenter", "sample"])
def test_memory_in_bfloat16_is_what_is_foretold(what: str):
    found = measure(what, 96, "bf16")
    assert found["predicted"] == pytest.approx(found["measured"], rel=0.2)


@pytest.mark.slow
def test_what_does_not_fit_is_changed_in_the_order_of_least_harm():
    demand = training_demand(CONTROLLED, "control", gpu=True)
    settings, smaller = make_fit(CONTROLLED, "control", demand, 0.7 * demand.step.peak_bytes, gpu=True)
    assert settings[0] == "diffusion.denoiser.checkpointing=true"
    assert smaller.step.peak_bytes <= 0.7 * demand.step.peak_bytes


def test_where_nothing_helps_everything_was_tried(monkeypatch: pytest.MonkeyPatch):
    demand = Demand(1, 1, 0, Cost(1, 1, 100), 1)
    monkeypatch.setattr(advice, "training_demand", lambda recipe, stage, gpu: demand)
    settings, smallest = make_fit(CONTROLLED, "control", demand, 0.0, gpu=True)
    wanted = ["diffusion.denoiser.checkpointing=true", "control.training.batch_size=1", "control.freeze_unet=true"]
    assert settings == wanted, "a crop of 32 voxels is not halved"
    assert smallest is demand


def test_crops_are_halved_along_their_longest_axes_to_what_the_networks_take():
    demand = Demand(1, 1, 0, Cost(1, 1, 100), 1)
    alone = with_overrides(PAPER, ["control.training.batch_size=1"])
    assert list(changes(alone, "control", demand, 50)) == ["control.crop=[256, 256, 128]"]


def test_a_gpu_that_is_not_here_is_assumed_and_said_to_be():
    facts = examine(TINY, gpu_mem_gb=24, gpu_tflops=None)
    text = in_words(facts)
    assert "24.0 GB" in text
    assert f"{rates.ASSUMED_TFLOPS:.0f} TFLOP/s" in text
    assert "assumed" in text
    assert machine_rates(24, 50.0, bfloat16=True).tflops == 50.0
    stage = facts["recipe"]["training"]["control"]
    seconds = stage["tflop"] / rates.ASSUMED_TFLOPS
    assert stage["seconds"] > seconds, "movement is added to arithmetic"
    assert stage["hours"] == pytest.approx(stage["seconds"] * TINY.control.training.steps / 3600)


@pytest.mark.slow
def test_a_gpu_that_is_too_small_is_told_what_would_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rates, "GPU_OVERHEAD_GB", 0.0)
    facts = examine(CONTROLLED, gpu_mem_gb=0.008)
    text = in_words(facts)
    assert "does not fit" in text
    assert any("change" in stage for stage in facts["recipe"]["training"].values())
    json.dumps(facts)


def test_this_machine_is_measured():
    found = machine_rates(None, None, bfloat16=False)
    assert 1e-3 < found.tflops < 1e3
    assert 0.1 < found.gb_per_s < 1e5
    assert "measured" in found.origin


def test_guidance_and_second_order_solvers_call_the_network_more_often():
    assert sampling_demand(TINY, gpu=True).evaluations == TINY.sampler.steps
    more = with_overrides(TINY, ["sampler.solver=heun", "sampler.guidance_mask=1.5"])
    assert sampling_demand(more, gpu=True).evaluations == 4 * TINY.sampler.steps


def test_a_confidence_map_adds_what_it_asks_for():
    settings = ["sampler.confidence.mask_shift=1", "sampler.confidence.kind=latent", "sampler.guidance_mask=1.5"]
    found, steps = sampling_demand(with_overrides(TINY, settings), gpu=True), TINY.sampler.steps
    assert (found.embeddings, found.evaluations, found.decodes) == (2 * (1 + steps), 2 * 2 * steps, 1)
