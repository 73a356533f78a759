"""The command line: one function per verb. Heavy packages are imported inside the verbs, so that --help is quick.

Exit codes: 0 done, 2 the input cannot be used (one sentence says why and what to do), 1 our mistake (a traceback).
"""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from cardiosynth import __version__
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.progress import say, set_mode

Several = Parameter(consume_multiple=True)
Setting = Parameter(name="--set")
Json = Parameter(name="--json")

app = App(
    name="cardiosynth",
    version=__version__,
    help="Annotated cardiac images where there are few: synthesis with confidence, and better segmentation from it.",
    default_parameter=Parameter(negative=()),
)


def main(tokens: list[str] | None = None) -> None:
    """Run one verb and end the process with its exit code."""
    try:
        app(tokens, exit_on_error=False, print_error=True, result_action="return_value")
    except CycloptsError:
        sys.exit(2)
    except InputError as error:
        print(f"cardiosynth: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except KeyboardInterrupt:
        say("Stopped. The same command goes on from here.")
        sys.exit(130)


@app.command(sort_key=9)
def doctor(
    *,
    recipe: str = "fcas/demo",
    gpu_mem: float | None = None,
    gpu_tflops: float | None = None,
    overrides: Annotated[list[str] | None, Setting] = None,
    json: Annotated[bool, Json] = False,
) -> None:
    """Tell what a recipe needs before anything runs: memory and time of every stage, and what to change.

    Args:
        recipe: SYSTEM/SIZE.
        gpu_mem: GB of the GPU that it is to run on; without it the machine at hand is judged.
        gpu_tflops: TFLOP/s that the GPU sustains on convolutions, about a third of its dense bfloat16 peak.
        overrides: one setting, e.g. --set control.training.batch_size=1; may be given often.
        json: print JSON instead of text.
    """
    from cardiosynth.core.config import with_overrides
    from cardiosynth.recipes.budget import examine, in_words
    from cardiosynth.recipes.registry import find_recipe

    for number, option in ((gpu_mem, "--gpu-mem"), (gpu_tflops, "--gpu-tflops")):
        if number is not None and number <= 0:
            raise InputError(f"{option} {number:g}: give a positive number.")
    facts = examine(with_overrides(find_recipe(recipe), overrides or []), gpu_mem, gpu_tflops)
    _output(facts, json, in_words)


@app.command(sort_key=0)
def demo(
    out: Path,
    /,
    *,
    recipe: str = "fcas/demo",
    seed: int = 0,
    device: str = "cpu",
    json: Annotated[bool, Json] = False,
) -> None:
    """Run the whole chain on built-in phantoms: train every stage, synthesize, segment, evaluate, report.

    Killed anywhere, the same command goes on. The report is OUT/report.html.

    Args:
        out: folder for everything.
        recipe: fcas/demo (18 minutes on two quiet cores) or fcas/tiny (a minute, for tests).
        seed: the run's seed.
        device: cpu or cuda.
        json: progress as JSON lines.
    """
    _progress(json)
    from cardiosynth.experiments.demo import run_demo

    report_file = run_demo(out, recipe, seed, device)
    say(f"Open {report_file}", report=str(report_file))


@app.command(sort_key=1)
def phantom(
    out: Path,
    /,
    *,
    cases: int,
    shape: Annotated[list[int], Several] = [96, 96, 96],  # noqa: B006
    spacing_mm: float | None = None,
    protocols: int = 4,
    seed: int = 0,
    json: Annotated[bool, Json] = False,
) -> None:
    """Write procedural cardiac CT angiographies with masks as a dataset folder.

    Args:
        out: dataset folder to write; cases that are there already are kept.
        cases: how many.
        shape: voxels along X Y Z.
        spacing_mm: voxel size; by default the heart fills the field of view.
        protocols: how many scanner protocols (contrast phase, kernel, noise) the cases come in.
        seed: the run's seed.
        json: progress as JSON lines.
    """
    _progress(json)
    from cardiosynth.recipes.phantoms import Population, write_phantoms

    grid = _grid_shape(shape)
    _positive(cases, "--cases")
    dataset = write_phantoms(Population(cases, grid, spacing_mm, protocols, seed), out)
    say(f"{out}: {len(dataset)} phantoms of {grid}", cases=len(dataset))


@app.command(sort_key=2)
def prepare(
    kind: str,
    src: Path,
    out: Path,
    /,
    *,
    recipe: str | None = None,
    shape: Annotated[list[int] | None, Several] = None,
    spacing_mm: Annotated[list[float] | None, Several] = None,
    labels: Path | None = None,
    unit: str | None = None,
    licence: str = "",
    axes: str = "patient",
    dry_run: bool = False,
    json: Annotated[bool, Json] = False,
) -> None:
    """Bring a folder of scans to one grid: RAS+, resampled in physical space, cropped around the heart.

    Args:
        kind: folder (pairs in images/ and labels/), nnunet or acdc.
        src: the scans as downloaded.
        out: dataset folder to write; cases that are there already are kept.
        recipe: take shape and voxel size from this recipe.
        shape: voxels along X Y Z (X Y of slices), where not the recipe's.
        spacing_mm: voxel size along X Y Z (one number for all), where not the recipe's or the scan's own.
        labels: JSON with the label table (name: code), where SRC does not say.
        unit: hu or mr, where SRC does not say.
        licence: under which terms the scans of a plain folder stand; it travels with everything made from them.
        axes: patient turns oblique scans to straight axes; image keeps their own, which spares thick slices the turn.
        dry_run: only list what would be done.
        json: progress as JSON lines.
    """
    _progress(json)
    from cardiosynth.recipes.prepare import plan_preparation, read_source

    settings = plan_preparation(recipe, shape, spacing_mm, axes)
    cases = read_source(kind, src, labels, unit, licence)
    if dry_run:
        for case in cases:
            structures = ", ".join(label.name for label in case.labels)
            say(f"{case.case_id}: {case.grid.shape} -> {settings.shape}; {structures}")
        return
    from cardiosynth.data.prepare import prepare as run

    dataset = run(cases, out, settings, name=src.name)
    say(f"{out}: {len(dataset)} cases of {settings.shape}", cases=len(dataset))


@app.command(sort_key=3)
def check(dataset: Path, /, *, json: Annotated[bool, Json] = False) -> None:
    """Examine a dataset folder; errors end with exit code 2.

    Args:
        dataset: a dataset folder or any plain nnU-Net raw folder.
        json: print the findings as JSON.
    """
    from cardiosynth.data.check import check_dataset

    findings = check_dataset(dataset)
    rows = [{"level": f.level, "case_id": f.case_id, "message": f.message} for f in findings]
    _output(rows, json, lambda rows: "\n".join(f"{r['level']}: {r['message']}" for r in rows) or "nothing to mend")
    errors = [row for row in rows if row["level"] == "error"]
    if errors:
        raise InputError(f"{dataset}: {len(errors)} of the findings must be mended before training.")


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
    """Train one stage of a run: autoencoder, diffusion, control or segmenter. Run it again to go on after a stop.

    Args:
        stage: autoencoder, diffusion, control or segmenter.
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
    _progress(json)
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
    _progress(json)
    from cardiosynth.core.config import with_overrides
    from cardiosynth.recipes.registry import find_recipe
    from cardiosynth.recipes.stages import write_masks

    _positive(cases, "--cases")
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
        run: a run with its autoencoder, diffusion and control stages trained.
        out: dataset folder to write; cases that are there already are kept.
        templates: dataset folder of image-mask pairs to take templates from.
        cases: how many volumes in all.
        masks: dataset folder of reference masks; without it masks are made by deforming the templates'.
        seed: the run's seed.
        steps: sampling steps, where not the recipe's.
        memory_gb: memory that decoding may take; the images are the same to rounding, a smaller one takes longer.
        overrides: one setting of sampler, masks or templates, e.g. --set sampler.clamp=4; may be given often.
        template: random or same_acquisition, where not as the recipe says.
        shard: i/n makes the i-th of n parts (i from 0); all parts may share OUT.
        device: cpu or cuda.
        dry_run: only say what would be made.
        json: progress as JSON lines.
    """
    _progress(json)
    from cardiosynth.recipes.stages import Synthesis, generate_cases, preview

    _positive(cases, "--cases")
    if template not in (None, "random", "same_acquisition"):
        raise InputError(f"--template {template}: give random or same_acquisition.")
    changes = {"steps": steps, "decode_budget_gb": memory_gb}
    settings = (*(overrides or []), *(f"sampler.{key}={value}" for key, value in changes.items() if value is not None))
    request = Synthesis(run, templates, masks, cases, seed, _shard(shard), device, template, settings)
    if dry_run:
        say(preview(request, out))
        return
    dataset = generate_cases(request, out)
    say(f"{out}: {len(dataset)} synthetic cases", cases=len(dataset))


@app.command(sort_key=7)
def evaluate(
    real: Path,
    synthetic: Path,
    /,
    *,
    out: Path,
    json: Annotated[bool, Json] = False,
) -> None:
    """Compare synthetic with real cases and write a results file.

    Args:
        real: dataset folder of real cases.
        synthetic: dataset folder of synthetic cases.
        out: results file to write (JSON), for cardiosynth report.
        json: progress as JSON lines.
    """
    _progress(json)
    from cardiosynth.data.dataset import read_dataset
    from cardiosynth.evaluation.results import write_results
    from cardiosynth.evaluation.suite import evaluate as run

    write_results(run(read_dataset(real), read_dataset(synthetic), relative_to=out.parent), out)
    say(f"{out} written; cardiosynth report {out} --out {out.with_suffix('.html')} shows it.", results=str(out))


@app.command(sort_key=8)
def report(results: Path, /, *, out: Path, json: Annotated[bool, Json] = False) -> None:
    """Turn a results file into one self-contained HTML page.

    Args:
        results: a file written by cardiosynth evaluate or demo.
        out: the HTML file to write.
        json: progress as JSON lines.
    """
    _progress(json)
    from cardiosynth.evaluation.results import read_results
    from cardiosynth.report.html import write_report

    write_report(read_results(results), out, relative_to=results.parent)
    say(f"Open {out}", report=str(out))


weights = App(name="weights", help="Bring in released weights, and say what weights are.", sort_key=10)
app.command(weights)


@weights.command(name="import")
def import_(
    file: Path,
    run: Path,
    /,
    *,
    kind: str,
    layout: str,
    licence: str = "",
    json: Annotated[bool, Json] = False,
) -> None:
    """Turn a file of MAISI's released weights into a stage of a run; autoencoder first, then unet, then controlnet.

    Nothing in the file is executed, and every tensor must fit.

    Args:
        file: as released (.pt), or .safetensors.
        run: the model's folder.
        kind: autoencoder, unet or controlnet.
        layout: ddpm-ct or rflow-ct.
        licence: under which terms the weights were given; it travels with everything made from them.
        json: progress as JSON lines.
    """
    _progress(json)
    from cardiosynth.recipes.weights import import_weights

    checkpoint = import_weights(file, run, kind, layout, licence)
    say(f"{checkpoint} written, licence: {licence}", checkpoint=str(checkpoint), licence=licence)


@weights.command
def info(path: Path, /, *, json: Annotated[bool, Json] = False) -> None:
    """Say what weights are: stage or layout, parameters, labels, grid, licences, steps.

    Args:
        path: a run, one checkpoint, or a file of weights.
        json: print JSON instead of text.
    """
    from cardiosynth.recipes.weights import describe, in_words

    _output(describe(path), json, in_words)


def _progress(json: bool) -> None:
    set_mode("json" if json else None)


def _output(value, json: bool, in_words) -> None:
    from json import dumps

    print(dumps(value, indent=2, ensure_ascii=False) if json else in_words(value))  # noqa: T201


def _grid_shape(shape: list[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape) < 8:
        given = " ".join(map(str, shape))
        raise InputError(f"--shape {given}: give three numbers of voxels, each at least 8, e.g. --shape 96 96 96.")
    return shape[0], shape[1], shape[2]


def _positive(number: int, option: str) -> None:
    if number < 1:
        raise InputError(f"{option} {number}: give a number of at least 1.")


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if index.isdigit() and count.isdigit() and int(index) < int(count):
        return int(index), int(count)
    raise InputError(f"--shard {text}: write i/n with i from 0 to n - 1, e.g. --shard 0/4.")
