"""What this machine has, and what a recipe asks of it before anything runs: parameters, memory, time, disk."""

import math
import os
import platform
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from cardiosynth import __version__
from cardiosynth.autoencoder.networks import Autoencoder, build_autoencoder
from cardiosynth.autoencoder.planning import Plan
from cardiosynth.autoencoder.streaming import plan_decode, plan_encode
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.progress import track
from cardiosynth.evaluation.results import environment
from cardiosynth.recipes.advice import make_fit
from cardiosynth.recipes.demand import (
    Demand,
    SamplingDemand,
    computes_in_bfloat16,
    sampling_demand,
    stages_of,
    training_demand,
)
from cardiosynth.recipes.fcas import FcasRecipe
from cardiosynth.recipes.rates import Rates, machine_rates
from cardiosynth.recipes.recipe import Recipe
from cardiosynth.training.cost import Cost
from cardiosynth.training.settings import uses_bfloat16

EXTRAS = {"nnunet": "nnunetv2", "dicom": "pydicom", "medsam": "transformers", "ray": "ray", "slurm": "submitit"}


def examine(recipe: Recipe, gpu_mem_gb: float | None = None, gpu_tflops: float | None = None) -> dict[str, Any]:
    """Return JSON-like facts.

    Args:
        recipe: what is to be run.
        gpu_mem_gb: memory of the GPU that it is to run on, 1e9 bytes; None for this machine.
        gpu_tflops: what that GPU sustains, where known.

    Returns:
        ``version``, ``machine``, ``packages``; ``rates`` (what the predictions rest on) and ``recipe``: its ``name``,
        ``shape``, ``spacing_mm`` (None where a recipe fixes none), and under ``training`` (by stage), ``sampling``,
        ``encoding`` and ``disk`` what it asks for.
    """
    rates = machine_rates(gpu_mem_gb, gpu_tflops, bfloat16=uses_bfloat16("auto", torch.device("cpu")))
    stages = stages_of(recipe)
    return {
        "version": __version__,
        "machine": _machine(),
        "packages": environment(),
        "rates": rates._asdict(),
        "recipe": {
            "name": recipe.name,
            "shape": list(recipe.shape),
            "spacing_mm": list(recipe.grid.spacing_mm) if isinstance(recipe, FcasRecipe) else None,
            "training": {stage: _training(recipe, stage, rates) for stage in track(stages, "count", len(stages))},
            "encoding": _encoding(recipe, rates),
            "sampling": _sampling(recipe, rates),
            "disk": _disk(recipe),
        },
    }


def _machine() -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    device = torch.device("cuda" if cuda else "cpu")
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "bfloat16": uses_bfloat16("auto", device),
        "extras": sorted(name for name, module in EXTRAS.items() if find_spec(module)),
    }


def _training(recipe: Recipe, stage: str, rates: Rates) -> dict[str, Any]:
    gpu = rates.device == "gpu"
    demand = training_demand(recipe, stage, gpu=gpu)
    room = (rates.memory_gb - rates.overhead_gb) * 1e9
    facts = _stage_facts(demand, rates)
    if demand.step.peak_bytes > room:
        settings, smaller = make_fit(recipe, stage, demand, room, gpu=gpu)
        fits = smaller.step.peak_bytes <= room
        facts["change"] = {"settings": settings, "fits": fits, **_stage_facts(smaller, rates)}
    return facts


def _stage_facts(demand: Demand, rates: Rates) -> dict[str, Any]:
    facts = {"parameters": demand.parameters, "trained": demand.trained, "held_gb": demand.held_bytes / 1e9}
    facts |= _cost_facts(demand.step, rates)
    return facts | {"steps": demand.steps, "hours": facts["seconds"] * demand.steps / 3600}


def _cost_facts(cost: Cost, rates: Rates) -> dict[str, Any]:
    seconds = cost.seconds(rates.tflops * 1e12, rates.gb_per_s * 1e9)
    return {"peak_gb": cost.peak_bytes / 1e9 + rates.overhead_gb, "tflop": cost.flops / 1e12, "seconds": seconds}


def _encoding(recipe: Recipe, rates: Rates) -> dict[str, Any]:
    """Return how a case becomes latents, before the diffusion stages."""
    autoencoder = _autoencoder(recipe)
    # Without autocast: in float32.
    rates = _beside_weights(rates, sum(p.numel() for p in autoencoder.parameters()))
    given, setting = recipe.diffusion.encode_budget_gb, "diffusion.encode_budget_gb"
    return _planned(lambda budget: plan_encode(autoencoder, recipe.shape, budget), given, setting, rates)


def _sampling(recipe: Recipe, rates: Rates) -> dict[str, Any]:
    demand = sampling_demand(recipe, gpu=rates.device == "gpu")
    step, embedding = _cost_facts(demand.step, rates), _cost_facts(demand.embedding, rates)
    decoding = _decoding(recipe, demand, rates)
    denoising_s = demand.embeddings * embedding["seconds"] + demand.evaluations * step["seconds"]
    return {
        "parameters": demand.parameters,
        "embedding": embedding,
        "embeddings": demand.embeddings,
        "step": step,
        "evaluations": demand.evaluations,
        "decoding": decoding,
        "decodes": demand.decodes,
        "peak_gb": max(embedding["peak_gb"], step["peak_gb"], decoding["peak_gb"]),
        "seconds": denoising_s + demand.decodes * decoding["seconds"],
    }


def _decoding(recipe: Recipe, demand: SamplingDemand, rates: Rates) -> dict[str, Any]:
    """Return how latents become an image."""
    autoencoder, given = _autoencoder(recipe), recipe.sampler.decode_budget_gb
    bfloat16 = computes_in_bfloat16(recipe.sampler.precision, rates.device == "gpu")
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    latent = tuple(n // autoencoder.compression for n in recipe.shape)
    rates = _beside_weights(rates, demand.parameters + sum(p.numel() for p in autoencoder.parameters()))
    plan = partial(plan_decode, autoencoder, latent, dtype=dtype)
    return _planned(lambda budget: plan(budget_gb=budget), given, "sampler.decode_budget_gb", rates)


def _autoencoder(recipe: Recipe) -> Autoencoder:
    with torch.device("meta"):
        return build_autoencoder(recipe.autoencoder.network, labels=CARDIAC_CT)


def _beside_weights(rates: Rates, parameters: int) -> Rates:
    return rates._replace(overhead_gb=rates.overhead_gb + 4 * parameters / 1e9)


def _planned(plan: Callable[[float | None], Plan], given: float | None, setting: str, rates: Rates) -> dict[str, Any]:
    """Return the plan within the ``given`` budget, and the setting that makes it fit where it does not."""
    first, room = plan(given), rates.memory_gb - rates.overhead_gb
    facts = _plan_facts(first, rates)
    if first.peak_gb <= room:
        return facts
    # A round number, as a person types it.
    budget = max(0.1, int(10 * room) / 10)
    try:
        smaller = _plan_facts(plan(budget), rates)
    except InputError as error:
        return {**facts, "change": {"settings": [], "fits": False, "why": str(error)}}
    return {**facts, "change": {"settings": [f"{setting}={budget:g}"], "fits": True, **smaller}}


def _plan_facts(plan: Plan, rates: Rates) -> dict[str, Any]:
    return {
        "peak_gb": plan.peak_gb + rates.overhead_gb,
        "tflop": plan.flops / 1e12,
        "untiled_tflop": plan.untiled_flops / 1e12,
        "seconds": plan.flops / (rates.tflops * 1e12),
        "plan": plan.in_words(),
    }


def _disk(recipe: Recipe) -> dict[str, float]:
    """Return what files take, in GB: a case as it is prepared, its latents, the checkpoints of one stage at its end."""
    codec, voxels = recipe.autoencoder.network, math.prod(recipe.shape)
    latents = 2 * codec.latent_channels * voxels // codec.compression**codec.spatial_dims
    return {
        "case_gb": voxels * (2 + 1) / 1e9,  # int16 and uint8, before compression
        "latents_gb": latents * 2 / 1e9,  # float16
    }


# ---------------------------------------------------------------------------------------------------------------
# The same for a reader.


def in_words(facts: dict[str, Any]) -> str:
    """Return the facts as a person reads them."""
    machine, recipe, rates = facts["machine"], facts["recipe"], facts["rates"]
    lines = [
        f"cardiosynth {facts['version']}, Python {platform.python_version()}, torch {facts['packages']['torch']}",
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, bfloat16 {'yes' if machine['bfloat16'] else 'no'}",
        f"GPU: {machine['gpu'] or 'none here'}",
        "",
        f"recipe {recipe['name']}: {_grid_in_words(recipe)}",
        f"on a {rates['device']} with {rates['memory_gb']:.1f} GB, {_rounded(rates['tflops'])} TFLOP/s and "
        f"{_rounded(rates['gb_per_s'])} GB/s ({rates['origin']})",
    ]
    if rates["overhead_gb"]:
        lines.append(f"  memory includes {rates['overhead_gb']:g} GB for CUDA and its libraries (assumed)")
    for stage, stage_facts in recipe["training"].items():
        lines += _training_in_words(stage, stage_facts, rates)
    lines += _sampling_in_words(recipe["sampling"], rates)
    encoding, disk = recipe["encoding"], recipe["disk"]
    lines.append(f"encode one case: {encoding['peak_gb']:.2f} GB, {_time(encoding['seconds'])}")
    lines += _change_in_words(encoding, rates)
    lines.append(f"disk: {disk['case_gb']:.3f} GB a case before compression, {disk['latents_gb']:.3f} GB its latents")
    return "\n".join(lines)


def _rounded(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"


def _training_in_words(stage: str, facts: dict[str, Any], rates: dict[str, Any]) -> list[str]:
    trained = "" if facts["trained"] == facts["parameters"] else f", {facts['trained'] / 1e6:.2f} million trained"
    lines = [
        f"train {stage}: {facts['parameters'] / 1e6:.2f} million parameters{trained}",
        f"  {_step_in_words(facts)}",
    ]
    return lines + _change_in_words(facts, rates)


def _step_in_words(facts: dict[str, Any]) -> str:
    return (
        f"{facts['peak_gb']:.2f} GB, {facts['tflop']:.3g} TFLOP and {_time(facts['seconds'])} a step; "
        f"{facts['steps']} steps: {_time(3600 * facts['hours'])}"
    )


def _sampling_in_words(facts: dict[str, Any], rates: dict[str, Any]) -> list[str]:
    step, embedding, decoding = facts["step"], facts["embedding"], facts["decoding"]
    plan = decoding["plan"].replace("\n", "\n    ")
    return [
        f"one synthetic case: {facts['parameters'] / 1e6:.2f} million parameters, {facts['peak_gb']:.2f} GB, "
        f"{_time(facts['seconds'])}",
        f"  condition: {embedding['peak_gb']:.2f} GB, {_time(embedding['seconds'])}, {facts['embeddings']} times",
        f"  denoiser: {step['peak_gb']:.2f} GB, {step['tflop']:.3g} TFLOP, {_time(step['seconds'])}, "
        f"{facts['evaluations']} times",
        f"  decode: {decoding['peak_gb']:.2f} GB, {decoding['tflop']:.3g} TFLOP, {_time(decoding['seconds'])}, "
        f"{facts['decodes']} times (the image, and the confidence map's)",
        f"    {plan}",
        *_change_in_words(decoding, rates),
    ]


def _change_in_words(facts: dict[str, Any], rates: dict[str, Any]) -> list[str]:
    change = facts.get("change")
    if change is None:
        return []
    memory = f"{rates['memory_gb']:.1f} GB"
    if not change["fits"]:
        return [f"  does not fit into {memory}, whatever is changed: {change.get('why', 'use a larger GPU')}"]
    words = " ".join(f"--set {setting}" for setting in change["settings"])
    cost = _step_in_words(change) if "steps" in change else f"{change['peak_gb']:.2f} GB, {_time(change['seconds'])}"
    return [f"  does not fit into {memory}; it does with {words}:", f"  {cost}"]


def _grid_in_words(recipe: dict[str, Any]) -> str:
    if recipe["spacing_mm"] is None:
        return f"slices of {_product(recipe['shape'])} pixels"
    return f"{_product(recipe['shape'])} voxels of {_product(recipe['spacing_mm'])} mm"


def _product(numbers: list[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
