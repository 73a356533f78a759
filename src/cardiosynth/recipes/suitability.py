"""Whether a dataset suits a recipe, and whether the recipe fits the machine: what `check --recipe` adds."""

import math
from typing import Any

from cardiosynth.data.check.finding import Finding
from cardiosynth.data.check.needs import Needs
from cardiosynth.diffusion.settings import ControlStage, DiffusionStage
from cardiosynth.recipes.budget import examine
from cardiosynth.recipes.fcas import FcasRecipe
from cardiosynth.recipes.fqcdm import EPOCH
from cardiosynth.recipes.recipe import Recipe
from cardiosynth.recipes.sizes import TRAINING_CASES

SMALLEST_TRAINING = 2
"""Cases that must be left for training, beside those held out."""


def needs_of(recipe: Recipe) -> Needs:
    """Return what a recipe asks of a dataset."""
    fcas = recipe if isinstance(recipe, FcasRecipe) else None
    compression = recipe.autoencoder.network.compression
    # Every network that sees whole grids must be able to halve them.
    multiple = math.lcm(compression * recipe.diffusion.denoiser.multiple, recipe.segmenter.network.multiple)
    held_out = max(stage.watch.cases for stage in _diffusion_stages(recipe))
    return Needs(
        recipe=recipe.name,
        shape=recipe.shape,
        spacing_mm=None if fcas is None else fcas.grid.spacing_mm,
        multiple=multiple,
        unit=recipe.intensity.unit,
        names=_names(recipe),
        least_cases=SMALLEST_TRAINING + held_out,
        published_cases=EPOCH if fcas is None else TRAINING_CASES,
    )


def _diffusion_stages(recipe: Recipe) -> list[DiffusionStage | ControlStage]:
    return [recipe.diffusion, *([recipe.control] if isinstance(recipe, FcasRecipe) else [])]


def _names(recipe: Recipe) -> dict[str, str]:
    objectives = [stage.objective for stage in _diffusion_stages(recipe) if stage.objective.thin_weight]
    thin = {name for objective in objectives for name in objective.thin}
    names = dict.fromkeys(sorted(thin), "the weight of thin vessels in the diffusion loss")
    if recipe.autoencoder.loss.thin_weight:
        names |= dict.fromkeys(recipe.autoencoder.loss.thin, "the weight of thin vessels in the autoencoder's loss")
    gate = {threshold.name: "its share of the autoencoder's gate" for threshold in recipe.gate.contrast}
    return {**names, **gate}


def fit_findings(recipe: Recipe, gpu_mem_gb: float | None = None) -> list[Finding]:
    """Return whether each stage fits into memory and how long it takes, as `doctor` counts it.

    Args:
        recipe: what is to be run.
        gpu_mem_gb: memory of the GPU that it is to run on; None for this machine.
    """
    return findings_of(examine(recipe, gpu_mem_gb))


def findings_of(facts: dict[str, Any]) -> list[Finding]:
    """Return what ``budget.examine`` found, as findings of a dataset."""
    rates, asked = facts["rates"], facts["recipe"]
    name, memory_gb = asked["name"], rates["memory_gb"]
    stages = {f"train {stage}": told for stage, told in asked["training"].items()}
    findings = []
    for step, told in {**stages, "encode": asked["encoding"], "decode": asked["sampling"]["decoding"]}.items():
        if change := told.get("change"):
            words = " ".join(f"--set {setting}" for setting in change["settings"])
            mend = f"it does with {words}" if change["fits"] else "use a larger GPU"
            text = f"{name}, {step}: {told['peak_gb']:.1f} GB do not fit into {memory_gb:.1f} GB; {mend}."
            findings.append(Finding("warning", "recipe_memory", None, text, {"peak_gb": told["peak_gb"]}))
    peak_gb = max(told["peak_gb"] for told in stages.values())
    hours = sum(told["hours"] for told in stages.values())
    text = (
        f"{name} on a {rates['device']} with {memory_gb:.1f} GB: up to {peak_gb:.1f} GB and about {hours:.2g} hours of "
        f"training in all (`cardiosynth doctor --recipe {name}` tells more)."
    )
    return [*findings, Finding("info", "recipe_memory", None, text, {"peak_gb": peak_gb, "hours": hours})]
