"""From cases to more cases: train the stages, deform masks, generate."""

from pathlib import Path
from typing import Annotated

from cardiosynth.cli.app import Json, Setting, app, positive, progress, shard_of
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.progress import say


@app.command(sort_key=4)
def train(
    stage: str,
    dataset: Path,
    run: Path,
    /,
    *,
    recipe: str | None = None,
    config: Path | None = None,
    overrides: Annotated[list[str] | None, Setting] = None,
    autoencoder: Path | None = None,
    diffusion: Path | None = None,
    init: Path | None = None,
    perceptual: Path | None = None,
    accept_verdict: bool = False,
    device: str = "cpu",
    dry_run: bool = False,
    json: Annotated[bool, Json] = False,
) -> None:
    """Train one stage of a run: autoencoder, diffusion, control, joint or segmenter. Run it again to go on.

    Args:
        stage: autoencoder, diffusion, control (fcas), joint (fqcdm: the first two at once) or segmenter.
        dataset: dataset folder to learn from.
        run: the model's folder; one sub-folder per stage.
        recipe: SYSTEM/SIZE, e.g. fcas/demo; later stages of a run take the run's own.
        config: YAML file of settings that differ from the recipe.
        overrides: one setting, e.g. --set control.training.steps=500; may be given often.
        autoencoder: run whose autoencoder is used, where not this one.
        diffusion: run whose diffusion stage is used, where not this one.
        init: run whose weights of the same stage are the starting point.
        perceptual: run whose segmenter compares images for the autoencoder; set autoencoder.loss.perceptual above 0.
        accept_verdict: train on the latents even of an autoencoder that keeps less than the recipe wants.
        device: cpu or cuda.
        dry_run: only print the resolved settings.
        json: progress as JSON lines.
    """
    progress(json)
    from cardiosynth.recipes.registry import resolve_recipe
    from cardiosynth.recipes.stages import STAGES, Earlier, train_stage

    if stage not in STAGES:
        raise InputError(f"there is no stage '{stage}'" + suggest(stage, list(STAGES)))
    chosen = resolve_recipe(run, recipe, config, overrides or [])
    if dry_run:
        print(chosen.model_dump_json(indent=2))  # noqa: T201
        return
    earlier = Earlier(autoencoder, diffusion, init, perceptual)
    train_stage(stage, dataset, run, chosen, earlier, device, accept_verdict)


@app.command(sort_key=5)
def masks(
    dataset: Path,
    out: Path,
    /,
    *,
    cases: int,
    seed: int = 0,
    recipe: str = "fcas/demo",
    overrides: Annotated[list[str] | None, Setting] = None,
    json: Annotated[bool, Json] = False,
) -> None:
    """Make new masks by deforming those of a dataset (the paper's Mask Generation Module).

    Args:
        dataset: dataset folder with masks.
        out: dataset folder to write; masks that are there already are kept.
        cases: how many masks.
        seed: the run's seed.
        recipe: whose mask settings are used.
        overrides: one setting, e.g. --set masks.closing=literal; may be given often.
        json: progress as JSON lines.
    """
    progress(json)
    from cardiosynth.core.config import with_overrides
    from cardiosynth.recipes.registry import find_recipe
    from cardiosynth.recipes.stages import write_masks

    positive(cases, "--cases")
    write_masks(dataset, out, cases, seed, with_overrides(find_recipe(recipe), overrides or []).masks)


@app.command(sort_key=6)
def generate(
    run: Path,
    out: Path,
    /,
    *,
    templates: Path,
    cases: int,
    masks: Path | None = None,
    seed: int = 0,
    start: str | None = None,
    strength: float | None = None,
    steps: int | None = None,
    memory_gb: float | None = None,
    overrides: Annotated[list[str] | None, Setting] = None,
    template: str | None = None,
    shard: str = "0/1",
    device: str = "cpu",
    dry_run: bool = False,
    json: Annotated[bool, Json] = False,
) -> None:
    """Synthesize annotated volumes with confidence maps. Run it again to go on after a stop.

    Args:
        run: a run with its stages trained: autoencoder, diffusion and control, or of fqcdm autoencoder and diffusion.
        out: dataset folder to write; cases that are there already are kept.
        templates: dataset folder of image-mask pairs to take templates from.
        cases: how many volumes in all.
        masks: dataset folder of reference masks; without it masks are made by deforming the templates'.
        seed: the run's seed.
        start: noise; image, which noises the templates' images and denoises them; or reconstruction, which encodes and
            decodes them. The last two show the templates' own masks unless --masks gives others for an image.
        strength: how far --start image noises, from 0 (not at all) to 1 (to the end).
        steps: sampling steps, where not the recipe's.
        memory_gb: memory that decoding may take; the images are the same to rounding, a smaller one takes longer.
        overrides: one setting of sampler, masks or templates, e.g. --set sampler.clamp=4; may be given often.
        template: random, nearest, same_acquisition or self, or the name of a case of TEMPLATES that every mask gets.
        shard: i/n makes the i-th of n parts (i from 0); all parts may share OUT.
        device: cpu or cuda.
        dry_run: only say what would be made.
        json: progress as JSON lines.
    """
    progress(json)
    from cardiosynth.recipes.stages import Synthesis, generate_cases, preview

    positive(cases, "--cases")
    changes = {"start": start, "strength": strength, "steps": steps, "decode_budget_gb": memory_gb}
    settings = (*(overrides or []), *(f"sampler.{key}={value}" for key, value in changes.items() if value is not None))
    request = Synthesis(run, templates, masks, cases, seed, shard_of(shard), device, template, settings)
    if dry_run:
        say(preview(request, out))
        return
    dataset = generate_cases(request, out)
    say(f"{out}: {len(dataset)} synthetic cases", cases=len(dataset))
