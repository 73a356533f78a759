"""What each stage of a recipe asks of a machine, counted on fake tensors of the true sizes, without any data."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cardiosynth.autoencoder.codec import raw_statistics
from cardiosynth.autoencoder.networks import build_autoencoder
from cardiosynth.autoencoder.task import AutoencoderTask
from cardiosynth.core.case import Case
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.data.loader import CaseCache
from cardiosynth.diffusion.control import Condition, ConditionSettings
from cardiosynth.diffusion.latents import Latents
from cardiosynth.diffusion.objective import Objective
from cardiosynth.diffusion.process import build_process
from cardiosynth.diffusion.task import ControlTask, DiffusionTask
from cardiosynth.diffusion.unet import TemplateUNet, chest_ct
from cardiosynth.recipes.fcas import FcasRecipe
from cardiosynth.recipes.recipe import Recipe
from cardiosynth.segmentation.networks import build_segmenter, target_classes
from cardiosynth.segmentation.task import SegmentationTask
from cardiosynth.training.cost import Cost, count_training_step, counterfeit, counting
from cardiosynth.training.loop import Task
from cardiosynth.training.settings import Precision, TrainingSettings, uses_bfloat16


@dataclass(frozen=True)
class Demand:
    """What one training stage asks for.

    Attributes:
        parameters: of all its networks, frozen ones included.
        trained: of those, how many learn.
        held_bytes: what stays in memory between steps: weights, their average, moments.
        step: cost of one training step.
        steps: how many there are.
    """

    parameters: int
    trained: int
    held_bytes: int
    step: Cost
    steps: int


def training_demand(recipe: Recipe, stage: str, *, gpu: bool) -> Demand:
    """Count one training stage of a recipe.

    Args:
        recipe: all settings.
        stage: one of ``stages_of(recipe)``.
        gpu: whether to count what a GPU would do.
    """
    task, shapes, settings = STAGES[stage](recipe)
    with counting(gpu=gpu) as meter:
        counterfeit(task.module)
        bfloat16 = computes_in_bfloat16(settings.precision, gpu)
        step, held = count_training_step(meter, task, made_up(shapes), settings, bfloat16=bfloat16)
        parameters, players = list(task.module.parameters()), task.players()
    return Demand(
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for player in players for p in player.parameters),
        held_bytes=held,
        step=step,
        steps=settings.steps,
    )


@dataclass(frozen=True)
class SamplingDemand:
    """What the synthesis of one case asks for, confidence map included; peaks include the networks' weights.

    Attributes:
        parameters: of the conditional denoiser.
        embedding: of one condition.
        step: one evaluation of the denoiser.
        embeddings: how many conditions are embedded.
        evaluations: how many times the denoiser is evaluated.
        decodes: how many latents are decoded, which is not counted here.
    """

    parameters: int
    embedding: Cost
    step: Cost
    embeddings: int
    evaluations: int
    decodes: int


@torch.no_grad()
def sampling_demand(recipe: Recipe, *, gpu: bool) -> SamplingDemand:
    """Count the synthesis of one case on the recipe's grid, from noise."""
    told = recipe.control.condition if isinstance(recipe, FcasRecipe) else recipe.diffusion.condition
    network, sampler = build_denoiser(recipe, told), recipe.sampler
    shapes = condition_shapes(1, recipe.shape)
    with counting(gpu=gpu) as meter:
        counterfeit(network).eval()
        condition, latents = Condition(**made_up(shapes)), made_up(_latent_shapes(recipe, recipe.shape, 1))
        acquisition = chest_ct(latents["spacing_mm"]) if network.needs_acquisition else None
        meter.take()
        with torch.autocast("cpu", torch.bfloat16, enabled=computes_in_bfloat16(sampler.precision, gpu)):
            embedded = network.embed(condition)
            embedding = meter.take()
            network(latents["x0"], latents["t"], embedded, acquisition)
            step = meter.take()
        parameters = sum(p.numel() for p in network.parameters())
    calls = 1 + sum(weight > 0 for weight in sampler.guidance)
    per_step = calls * (2 if sampler.solver == "heun" else 1)
    extra = (0, 0, 0)
    if sampler.confidence is not None:
        count = sampler.confidence
        extra = (count.num_embeddings(sampler.steps), count.num_steps(sampler.steps), count.num_decodes(sampler.steps))
    counts = ((1 + extra[0]) * calls, (sampler.steps + extra[1]) * per_step, 1 + extra[2])
    return SamplingDemand(parameters, embedding, step, *counts)


def computes_in_bfloat16(precision: Precision, gpu: bool) -> bool:
    """Return whether a precision means bfloat16, on this machine's processor or on a GPU, which is taken to have it."""
    return precision != "fp32" if gpu else uses_bfloat16(precision, torch.device("cpu"))


# ---------------------------------------------------------------------------------------------------------------
# Tasks without data: blank cases stand in for what a task is built with, and `Shapes` for the batches it would make.

Shapes = dict[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape and dtype of what a batch holds, by name."""

BLANK = ("blank-0", "blank-1")

Ready = tuple[Task, Shapes, TrainingSettings]


def _autoencoder(recipe: Recipe) -> Ready:
    # Whose features compare images is a run's, not a recipe's, so that they are not counted.
    stage = recipe.autoencoder
    stage = stage.model_copy(update={"loss": stage.loss.model_copy(update={"perceptual": 0.0})})
    with torch.device("meta"):
        network = build_autoencoder(stage.network, labels=CARDIAC_CT)
    task = AutoencoderTask(_blank_cases(len(stage.crop)), network, stage)
    image = ((stage.training.batch_size, 1, *stage.crop), torch.float32)
    shapes: Shapes = {"image": image, "weight": image}
    if stage.network.codebook is None:
        latent = tuple(n // stage.network.compression for n in stage.crop)
        shapes["noise"] = ((stage.training.batch_size, stage.network.latent_channels, *latent), torch.float32)
    if stage.adversarial is not None and stage.adversarial.kind == "dual":
        shapes["edges"] = image
    if stage.network.mask_features is not None:
        shapes["mask"] = (image[0], torch.uint8)
    return task, shapes, stage.training


def _segmenter(recipe: Recipe) -> Ready:
    stage = recipe.segmenter
    with torch.device("meta"):
        network = build_segmenter(stage.network, target_classes(CARDIAC_CT))
    shape = (stage.training.batch_size, 1, *stage.crop)
    shapes = {"image": (shape, torch.float32), "classes": (shape, torch.uint8), "confidence": (shape, torch.float32)}
    return SegmentationTask(_blank_cases(len(stage.crop)), network, stage), shapes, stage.training


def _diffusion(recipe: Recipe) -> Ready:
    stage = recipe.diffusion
    objective = Objective(build_process(stage.process), stage.prediction, stage.objective)
    grid, count = stage.crop or recipe.shape, stage.training.batch_size
    shapes, cases = _latent_shapes(recipe, grid, count), None
    if stage.condition is not None:
        shapes, cases = shapes | {"reference": ((count, 1, *grid), torch.uint8)}, _blank_cases(len(grid))
    network = build_denoiser(recipe, stage.condition)
    return DiffusionTask(network, _no_latents(recipe), objective, (), cases), shapes, stage.training


def _control(recipe: Recipe) -> Ready:
    assert isinstance(recipe, FcasRecipe), "only FCaS has this stage"
    stage, first = recipe.control, recipe.diffusion
    objective = Objective(build_process(first.process), first.prediction, stage.objective)
    network = build_denoiser(recipe, stage.condition)
    task = ControlTask(
        network, _blank_cases(len(recipe.shape)), _no_latents(recipe), objective, freeze_unet=stage.freeze_unet
    )
    directions = 2 * stage.training.batch_size
    grid = stage.crop or recipe.shape
    return task, _latent_shapes(recipe, grid, directions) | condition_shapes(directions, grid), stage.training


STAGES: dict[str, Callable[[Recipe], Ready]] = {
    "autoencoder": _autoencoder, "diffusion": _diffusion, "control": _control, "segmenter": _segmenter,
}  # fmt: skip


def stages_of(recipe: Recipe) -> list[str]:
    """Return the stages that a recipe has, in the order in which they are trained."""
    return [name for name in STAGES if name in type(recipe).model_fields]


def build_denoiser(recipe: Recipe, condition: ConditionSettings | None) -> TemplateUNet:
    """Return the recipe's denoiser on the ``meta`` device."""
    codec = recipe.autoencoder.network
    with torch.device("meta"):
        sizes = (codec.latent_channels, codec.compression, codec.spatial_dims, recipe.diffusion.denoiser)
        return TemplateUNet(*sizes, condition, CARDIAC_CT)


def condition_shapes(count: int, grid: tuple[int, ...]) -> Shapes:
    """Return what a :class:`Condition` of ``count`` volumes holds."""
    mask, image = ((count, 1, *grid), torch.uint8), ((count, 1, *grid), torch.float32)
    palette = ((count, 256), torch.float32)
    return {"reference": mask, "template_mask": mask, "template_image": image, "palette": palette}


def _latent_shapes(recipe: Recipe, grid: tuple[int, ...], count: int) -> Shapes:
    codec = recipe.autoencoder.network
    latent = tuple(n // codec.compression for n in grid)
    x, times = ((count, codec.latent_channels, *latent), torch.float32), ((count,), torch.float32)
    shapes = {"x0": x, "noise": x, "t": times, "weight": ((count, 1, *latent), torch.float32)}
    return shapes | {"spacing_mm": ((count, 3), torch.float32)}


def made_up(shapes: Shapes) -> dict[str, Tensor]:
    """Return tensors without content, for what is counted."""
    return {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in shapes.items()}


def _blank_cases(dims: int) -> CaseCache:
    """Return two cases without content, for tasks that look at their cases before they are asked for a batch."""
    blank = np.zeros((1, *[8] * dims), np.int16)
    mask = np.full(blank.shape, CARDIAC_CT.target_codes[0], np.uint8)
    cases = [Case(case_id=name, image=blank, affine=np.eye(4), mask=mask) for name in BLANK]
    return CaseCache(cases, IntensityScale(), needs_masks=True)


def _no_latents(recipe: Recipe) -> Latents:
    return Latents((), BLANK, raw_statistics(recipe.autoencoder.network.latent_channels))
