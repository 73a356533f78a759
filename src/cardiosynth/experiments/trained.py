"""The generator that an experiment trains where none is given: phantoms, and the three stages of FCaS on them."""

from functools import partial
from pathlib import Path
from typing import Literal

from cardiosynth.experiments.study import Task, command_line
from cardiosynth.recipes.fcas import FcasRecipe
from cardiosynth.recipes.phantoms import Population, write_phantoms
from cardiosynth.recipes.recipe import Recipe
from cardiosynth.recipes.stages import Earlier, train_stage

Stage = Literal["autoencoder", "diffusion", "control"]
STEP_S: dict[Stage, float] = {"autoencoder": 0.16, "diffusion": 0.55, "control": 0.45}
"""Seconds per optimizer step of fcas/demo on two cores."""


def drawing_task(population: Population, out: Path, name: str) -> Task:
    """Return the step that draws phantoms to learn from."""
    words = ["phantom", out, "--cases", population.count, "--protocols", population.protocols]
    words += ["--shape", *population.shape, "--seed", population.seed]
    work = partial(write_phantoms, population, out, out.name)
    return Task(name, command_line(*words), work, 0.7 * population.count)


def stage_task(stage: Stage, data: Path, run: Path, recipe: Recipe, device: str, changes: tuple[str, ...] = ()) -> Task:
    """Return the step that trains one stage of the recipe, which differs from the one of its name by ``changes``."""
    words = ["train", stage, data, run, "--recipe", recipe.name, "--accept-verdict", "--device", device]
    words += [word for change in changes for word in ("--set", change)]
    work = partial(train_stage, stage, data, run, recipe, Earlier(), device, accept_verdict=True)
    expected_s = STEP_S[stage] * getattr(recipe, stage).training.steps
    return Task(f"train {stage}", command_line(*words), work, expected_s)


def generator_tasks(population: Population, data: Path, run: Path, recipe: FcasRecipe, device: str) -> tuple[Task, ...]:
    """Return the steps from nothing to a generator in ``run``, with its phantoms, the later templates, in ``data``."""
    stages: tuple[Stage, ...] = ("autoencoder", "diffusion", "control")
    drawn = drawing_task(population, data, "draw templates")
    return (drawn, *(stage_task(stage, data, run, recipe, device) for stage in stages))


def whole_grid(recipe: FcasRecipe, count: int, protocols: int) -> Population:
    """Return phantoms on the recipe's grid."""
    return Population(count, recipe.grid.shape, recipe.grid.spacing_mm, protocols)


def slice_generator_tasks(
    data: Path, run: Path, recipe: Recipe, device: str, changes: tuple[str, ...]
) -> tuple[Task, ...]:
    """Return the steps from slices, a dataset or ``FOLDER:PART``, to FQCDM in ``run``; see `stage_task`."""
    stages: tuple[Stage, ...] = ("autoencoder", "diffusion")
    return tuple(stage_task(stage, data, run, recipe, device, changes) for stage in stages)
