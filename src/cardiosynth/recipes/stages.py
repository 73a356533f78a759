"""The wiring: each step of a run, called alike by the command line, by experiments and by notebooks."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cardiosynth.anatomy.masks import MaskSettings, make_masks
from cardiosynth.anatomy.template import TemplateSettings, template_settings
from cardiosynth.autoencoder.losses import Perceptual
from cardiosynth.autoencoder.task import train_autoencoder
from cardiosynth.autoencoder.verdict import VerdictThresholds, in_words, read_verdict, shortfalls
from cardiosynth.core.config import with_overrides
from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import Progress, say
from cardiosynth.data.dataset import Dataset, DatasetWriter, read_dataset
from cardiosynth.data.preparation import check_preparation, recorded_preparation
from cardiosynth.diffusion.joint import train_joint
from cardiosynth.diffusion.stages import train_control, train_diffusion
from cardiosynth.recipes.fqcdm import FqcdmRecipe
from cardiosynth.recipes.packing import refuse_packed
from cardiosynth.recipes.recipe import Recipe
from cardiosynth.recipes.registry import as_fcas, check_recipe, keep_recipe, recorded_recipe
from cardiosynth.recipes.sheets import sheet_sampler
from cardiosynth.sampling.generator import load_generator
from cardiosynth.sampling.sampler import SamplerSettings
from cardiosynth.segmentation.features import feature_distance
from cardiosynth.segmentation.predict import load_segmenter
from cardiosynth.segmentation.task import train_segmenter
from cardiosynth.synthesis.run import synthesize
from cardiosynth.training.processes import join_processes


@dataclass(frozen=True)
class Earlier:
    """Where the earlier stages of a run are, where not beside it.

    Attributes:
        autoencoder: run whose autoencoder is used.
        diffusion: run whose diffusion stage is used.
        init: run whose weights of the same stage are the starting point.
        perceptual: run whose segmenter's features compare images for the autoencoder.
    """

    autoencoder: Path | None = None
    diffusion: Path | None = None
    init: Path | None = None
    perceptual: Path | None = None


def _autoencoder(cases: Dataset, run: Path, recipe: Recipe, earlier: Earlier, device: str) -> Path:
    given = {"init": earlier.init, "perceptual": _perceptual(recipe, earlier, device)}
    cases = cases.with_images()
    return train_autoencoder(cases, run, recipe.autoencoder, recipe.intensity, device=device, **given)


def _perceptual(recipe: Recipe, earlier: Earlier, device: str) -> Perceptual | None:
    return None if earlier.perceptual is None else segmenter_distance(earlier.perceptual, recipe, device)


def segmenter_distance(run: Path, recipe: Recipe, device: str) -> Perceptual:
    """Return the distance of two images as a run's segmenter sees them.

    Raises:
        InputError: no segmenter, one that sees intensities otherwise, or that cannot take the autoencoder's crops.
    """
    segmenter, crop = load_segmenter(run, device), recipe.autoencoder.crop
    network = segmenter.stage.network
    if segmenter.scale != recipe.intensity:
        raise InputError(
            f"the segmenter of {run} was trained with another intensity window; train one with this recipe."
        )
    if network.kind != "unet":
        raise InputError(
            f"the segmenter of {run} is a {network.kind} and only a unet's levels are compared; train one."
        )
    if len(crop) != network.spatial_dims or any(n % network.multiple for n in crop):
        raise InputError(
            f"the segmenter of {run} takes {network.spatial_dims} axes with multiples of {network.multiple} voxels and "
            f"autoencoder.crop is {crop}; change the crop."
        )
    return Perceptual(partial(feature_distance, segmenter.network), "+".join(segmenter.fingerprints))


def _diffusion(cases: Dataset, run: Path, recipe: Recipe, earlier: Earlier, device: str) -> Path:
    place = {"autoencoder": earlier.autoencoder, "init": earlier.init}
    return train_diffusion(cases, run, recipe.diffusion, device=device, draw=sheet_sampler(recipe.sampler), **place)


def _control(cases: Dataset, run: Path, recipe: Recipe, earlier: Earlier, device: str) -> Path:
    recipe = as_fcas(recipe)
    place = {"autoencoder": earlier.autoencoder, "diffusion": earlier.diffusion, "init": earlier.init}
    return train_control(cases, run, recipe.control, device=device, draw=sheet_sampler(recipe.sampler), **place)


def _joint(cases: Dataset, run: Path, recipe: Recipe, earlier: Earlier, device: str) -> Path:
    assert isinstance(recipe, FqcdmRecipe), "only FQCDM has this stage"
    stages = (recipe.autoencoder, recipe.diffusion, recipe.joint, recipe.intensity)
    return train_joint(cases, run, *stages, perceptual=_perceptual(recipe, earlier, device), device=device)


def _segmenter(cases: Dataset, run: Path, recipe: Recipe, earlier: Earlier, device: str) -> Path:
    cases = cases.with_images().with_masks()
    return train_segmenter(cases, run, recipe.segmenter, recipe.intensity, init=earlier.init, device=device)


STAGES: dict[str, Callable[[Dataset, Path, Recipe, Earlier, str], Path]] = {
    "autoencoder": _autoencoder, "diffusion": _diffusion, "control": _control, "joint": _joint,
    "segmenter": _segmenter,
}  # fmt: skip


ON_LATENTS = ("diffusion", "control")
"""Stages that cannot give back what the autoencoder has lost."""


def train_stage(
    stage: str,
    dataset: Path,
    run: Path,
    recipe: Recipe,
    earlier: Earlier,
    device: str,
    accept_verdict: bool = False,
) -> Path:
    """Train one stage of a run; the same call goes on after a stop.

    Args:
        stage: one of ``STAGES``.
        dataset: dataset folder to learn from.
        run: the model's folder.
        recipe: all settings.
        earlier: where earlier stages are, where not in ``run``.
        device: ``cpu`` or ``cuda``.
        accept_verdict: train on latents even of an autoencoder that keeps less than the recipe wants.

    Returns:
        The last checkpoint.

    Raises:
        InputError: a stage that the recipe does not have, data that does not suit, an earlier stage that is missing, a
            run begun otherwise or packed, or an autoencoder that keeps too little.
    """
    own = [name for name in STAGES if name in type(recipe).model_fields]
    if stage not in own:
        raise InputError(f"{recipe.name} has no stage '{stage}'; its stages are {', '.join(own)}.")
    refuse_packed(run)
    cases = read_dataset(dataset)
    if len(cases) < 2:
        count = "one case" if len(cases) else "no case"
        raise InputError(
            f"{dataset} has {count} and training needs two or more; one is enough for masks and templates."
        )
    processes = join_processes(device)
    with processes.writer_first():
        check_recipe(run, recipe)
        if stage in ON_LATENTS:
            place = str(processes.device)
            pass_gate(earlier.autoencoder or run, cases.with_images(), recipe.gate, accept_verdict, place)
        keep_recipe(run, recipe, writes=processes.writes)
    return STAGES[stage](cases, run, recipe, earlier, device)


def pass_gate(run: Path, cases: Dataset, wanted: VerdictThresholds, accepted: bool, device: str) -> None:
    """Say what a run's autoencoder keeps, and stop where that is less than ``wanted`` and not accepted.

    Raises:
        InputError: there is no autoencoder, or it keeps too little.
    """
    found = read_verdict(run, cases, device)
    say(in_words(found), verdict=found)
    lacking = shortfalls(found, wanted)
    if lacking and not accepted:
        raise InputError(
            f"the autoencoder of {run} loses what later stages cannot give back: {'; '.join(lacking)}. Train it anew "
            "with finer voxels, autoencoder.network.compression=2, more autoencoder.training.steps or a higher "
            "autoencoder.loss.thin_weight, or go on with --accept-verdict."
        )


def write_masks(dataset: Path, out: Path, count: int, seed: int, settings: MaskSettings) -> Dataset:
    """Write new masks, deformed from those of a dataset; masks that are there already are kept.

    Raises:
        InputError: no mask to start from, or none that can be deformed without harm.
    """
    sources = read_dataset(dataset).with_masks()
    facts = {"seed": seed, "settings": settings.model_dump(mode="json"), **recorded_preparation(sources)}
    with DatasetWriter(out, sources.labels, name="masks", facts=facts) as writer:
        missing = [index for index in range(count) if not writer.has(f"mask-{index:05d}")]
        with Progress("make masks", count, count - len(missing)) as progress:
            for index in missing:
                writer.write(next(make_masks(sources, 1, seed, settings, first=index)))
                progress.update()
    return read_dataset(out)


AFTER_TRAINING = ("sampler", "masks", "templates")
"""Parts of a recipe that may change once the networks are trained."""


@dataclass(frozen=True)
class Synthesis:
    """A request for synthetic cases.

    Attributes:
        run: the generator's run.
        templates: dataset folder of image-mask pairs.
        masks: dataset folder of reference masks; None makes new ones from the templates' masks.
        count: how many cases in all shards together.
        seed: the run's seed.
        shard: (i, n): part i of n.
        device: ``cpu`` or ``cuda``.
        template: which template a mask gets, where not as the recipe says: a way to choose, or the name of a case.
        overrides: ``a.b=value`` settings of sampling, masks or templates, where not the recipe's.
    """

    run: Path
    templates: Path
    masks: Path | None
    count: int
    seed: int
    shard: tuple[int, int] = (0, 1)
    device: str = "cpu"
    template: str | None = None
    overrides: tuple[str, ...] = ()

    def command(self, out: Path) -> str:
        """Return the command line that does the same."""
        words: list[object] = ["cardiosynth", "generate", self.run, out, "--templates", self.templates]
        words += ["--masks", self.masks] if self.masks else []
        words += ["--cases", self.count, "--seed", self.seed]
        words += ["--template", self.template] if self.template else []
        words += [word for override in self.overrides for word in ("--set", override)]
        return shlex.join(map(str, words))


def generate_cases(request: Synthesis, out: Path) -> Dataset:
    """Write the synthetic cases that ``out`` does not hold yet.

    Raises:
        InputError: a stage that is not trained, or masks and templates that do not suit the model.
    """
    templates, recipe = read_dataset(request.templates), _changed(request)
    masks = _masks(request, recipe, templates)
    choice = _choice(request, recipe, templates)
    generator = load_generator(request.run, request.device, recipe.sampler)
    _check_prepared(request, generator.model.record, templates, masks)
    shard = None if request.shard == (0, 1) else request.shard
    return synthesize(
        generator, recipe.masks if masks is None else masks, templates, out, request.count, request.seed, shard, choice
    )


def preview(request: Synthesis, out: Path) -> str:
    """Say what :func:`generate_cases` would do.

    Raises:
        InputError: what it needs is not there.
    """
    recipe = _changed(request)
    record = load_generator(request.run).model.record
    templates = read_dataset(request.templates)
    given = _masks(request, recipe, templates)
    _check_prepared(request, record, templates, given)
    _choice(request, recipe, templates)
    first, parts = request.shard
    count = len(range(first, request.count, parts))
    masks = f"the masks of {given.root}" if given is not None else "masks deformed from the templates'"
    return (
        f"{count} cases of {' x '.join(map(str, templates[0].grid.shape))} voxels would go to {out}: {masks}, "
        f"{len(templates)} templates, {_start_in_words(recipe.sampler)}."
    )


def _start_in_words(sampler: SamplerSettings) -> str:
    if sampler.start == "reconstruction":
        return "encoded and decoded without sampling"
    start = "" if sampler.start == "noise" else f" from images noised to strength {sampler.strength:g}"
    return f"{sampler.steps} sampling steps{start}"


def _masks(request: Synthesis, recipe: Recipe, templates: Dataset) -> Dataset | None:
    """Return the reference masks that are given; None where new ones are to be made.

    What starts from an image shows its structures, so that the images' own masks belong to it.
    """
    if request.masks is not None:
        return read_dataset(request.masks)
    return None if recipe.sampler.start == "noise" else templates.with_images().with_masks()


def _check_prepared(request: Synthesis, record: Mapping[str, Any], templates: Dataset, masks: Dataset | None) -> None:
    """See that templates and masks were prepared as what the model was trained on; structures are matched by name."""
    stage = request.run / record["stage"]
    check_preparation(templates, record, stage, besides=("labels",))
    if masks is not None:
        # Of references only the masks are used.
        check_preparation(masks, record, stage, besides=("labels", "intensity_unit", "window"))


def _choice(request: Synthesis, recipe: Recipe, templates: Dataset) -> TemplateSettings:
    """Return how templates are chosen: as the request says, else the image to start from, else as the recipe does."""
    if request.template:
        return template_settings(request.template, templates, recipe.templates)
    if recipe.sampler.start != "noise":
        return recipe.templates.model_copy(update={"choice": "self", "case": None})
    return recipe.templates


def _changed(request: Synthesis) -> Recipe:
    """Return the recipe of the run, as this request changes it."""
    for override in request.overrides:
        if override.partition(".")[0] not in AFTER_TRAINING:
            raise InputError(f"--set {override}: this run is trained; set {'.*, '.join(AFTER_TRAINING)}.* alone.")
    return with_overrides(recorded_recipe(request.run), request.overrides)
