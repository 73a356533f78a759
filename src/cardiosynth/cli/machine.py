"""What this machine can do: examine it, and run the whole chain on built-in data."""

from pathlib import Path
from typing import Annotated

from cardiosynth.cli.app import Json, Setting, app, output, progress
from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import say


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
    output(facts, json, in_words)


@app.command(sort_key=0)
def demo(
    out: Path,
    /,
    *,
    recipe: str = "fcas/demo",
    seed: int = 0,
    from_scratch: bool = False,
    device: str = "cpu",
    json: Annotated[bool, Json] = False,
) -> None:
    """Run the chain on built-in phantoms with the weights that are shipped: synthesize, segment, evaluate, report.

    Killed anywhere, the same command goes on. The report is OUT/report.html.

    Args:
        out: folder for everything.
        recipe: fcas/demo, or fcas/tiny (a minute, for tests; --from-scratch alone).
        seed: the run's seed.
        from_scratch: train every stage on phantoms as well (18 minutes on two quiet cores, where the shipped weights
            need less than 5).
        device: cpu or cuda.
        json: progress as JSON lines.
    """
    progress(json)
    from cardiosynth.experiments.demo import run_demo, shipped_generator

    generator = None if from_scratch else shipped_generator(recipe)
    report_file = run_demo(out, recipe, seed, device, generator)
    say(f"Open {report_file}", report=str(report_file))
