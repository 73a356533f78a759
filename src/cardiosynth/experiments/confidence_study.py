"""Whether a confidence map tells where a synthetic image is wrong, better than the image's own edges do.

Trained generators make images of test patients whose real images are known; each is made once per kind of map, which
changes no image. Two truths: how far the image is from the real one, in HU, and where a segmenter that learned from
other, real cases disagrees with the mask. Every kind of map is judged by how well it ranks these errors, beside three
that need no generation: a constant, the magnitude of the image's gradient, and how near the mask's borders are.

Run: ``python -m cardiosynth.experiments.confidence_study OUT --runs RUN --templates TEST --judge RUN``. The same
command goes on after a stop.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import pydantic
from cyclopts import App, Parameter

from cardiosynth.anatomy.template import TemplateSettings, choose_template
from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.labels import relabel
from cardiosynth.core.picture import contact_sheet, draw_confidence, draw_image, focus, save_png
from cardiosynth.core.progress import Progress
from cardiosynth.core.random import numpy_generator
from cardiosynth.core.store import read_json, write_json, write_text
from cardiosynth.data.dataset import Dataset, read_dataset
from cardiosynth.evaluation.confidence import Truth, border_nearness, gradient_magnitude, rank_errors, regions_of
from cardiosynth.experiments.confidence_tables import cost_table, tables
from cardiosynth.experiments.study import Study
from cardiosynth.recipes.fcas import DEMO
from cardiosynth.recipes.sizes import PAPER
from cardiosynth.sampling.confidence import ConfidenceSettings
from cardiosynth.sampling.generator import LatentDiffusionGenerator, load_generator
from cardiosynth.segmentation.predict import Segmenter, load_segmenter, predict_mask

MAPS: dict[str, ConfidenceSettings] = {
    "decoded": ConfidenceSettings(interval=1),
    "decoded, last half": ConfidenceSettings(interval=1, steps="last_half"),
    "latent": ConfidenceSettings(interval=1, kind="latent"),
    "raw": ConfidenceSettings(interval=1, kind="raw"),
    "decoded, moved masks": ConfidenceSettings(interval=1, mask_shift=1),
    "latent, moved masks": ConfidenceSettings(interval=1, kind="latent", mask_shift=1),
    "ensemble of 4": ConfidenceSettings(kind="ensemble", members=4),
    "short ensemble of 9": ConfidenceSettings(kind="ensemble", members=9, member_steps=3),
}  # fmt: skip
"""Kinds of maps that can be judged, by name."""
GRADIENTS = {"gradient": 3, "gradient, one voxel": 1}
"""Sides of the cubes over which gradient magnitudes are averaged."""


class ConfidencePlan(Settings):
    """How much of everything.

    Attributes:
        runs: trained generators; repetition i takes run i, and begins anew where there are fewer.
        autoencoder: run whose autoencoder they use, where not their own.
        templates: dataset of test patients: masks, real images and, as other patients of one acquisition, templates.
        judge: a segmenter's run.
        first: index of the first patient that is judged; what was chosen on others is judged on new ones.
        cases: how many patients.
        seeds: of sampling, one per repetition.
        maps: of ``MAPS``.
    """

    runs: tuple[str, ...] = pydantic.Field(min_length=1)
    autoencoder: str | None = None
    templates: str
    judge: str
    first: int = pydantic.Field(default=0, ge=0)
    cases: int = pydantic.Field(default=8, ge=2)
    seeds: tuple[int, ...] = (0, 1, 2)
    maps: tuple[str, ...] = tuple(MAPS)


def run_study(out: Path, plan: ConfidencePlan) -> Path:
    """Do what is not done yet of the study in ``out`` and return its tables.

    Writes ``out/cases/SEED/CASE.json``, ``example.png`` and ``table.md``.

    Raises:
        InputError: the folder holds a study of another plan, an unknown kind of map, or models that do not fit.
    """
    unknown = set(plan.maps) - set(MAPS)
    if unknown:
        raise InputError(f"--maps {min(unknown)}" + suggest(min(unknown), list(MAPS)))
    again = f"python -m cardiosynth.experiments.confidence_study {out}"
    study = Study(out, plan.model_dump(mode="json"), {"cases": 5.0 * plan.cases * len(plan.seeds) * len(plan.maps)})
    study.step("cases", again, lambda: _judge_all(out, plan))
    write_tables(out, plan)
    return out / "table.md"


def write_tables(out: Path, plan: ConfidencePlan) -> None:
    """Write the tables of the cases that are done under every seed."""
    names = [{row.stem for row in (out / "cases" / str(seed)).glob("*.json")} for seed in plan.seeds]
    common = sorted(set.intersection(*names))
    rows = [[read_json(_row(out, seed, name)) for name in common] for seed in plan.seeds]
    costs = cost_table({name: MAPS[name] for name in plan.maps}, (DEMO, PAPER))
    write_text(out / "table.md", f"{tables(rows)}\n{costs}\n")


# ---------------------------------------------------------------------------------------------------------------
# One case.


def _judge_all(out: Path, plan: ConfidencePlan) -> None:
    patients, segmenter = read_dataset(Path(plan.templates)), load_segmenter(Path(plan.judge))
    autoencoder = None if plan.autoencoder is None else Path(plan.autoencoder)
    trained = {run: load_generator(Path(run), autoencoder=autoencoder) for run in plan.runs}
    # All seeds of a case together: a study that is cut short has compared all seeds.
    chosen = range(len(patients))[plan.first : plan.first + plan.cases]
    todo = list(product(chosen, enumerate(plan.seeds)))
    with Progress("judge", len(todo)) as progress:
        for index, (number, seed) in todo:
            row = _row(out, seed, patients.case_ids[index])
            if not row.exists():
                generator = trained[plan.runs[number % len(plan.runs)]]
                made, cpu_s = _make(plan, generator, patients, index, seed)
                write_json(row, {"cpu_s": cpu_s, "maps": judge(patients[index], made, segmenter)})
                if not (out / "example.png").exists():
                    _draw(out / "example.png", patients[index], made)
            progress.update()


def _make(
    plan: ConfidencePlan, trained: LatentDiffusionGenerator, patients: Dataset, index: int, seed: int
) -> tuple[dict[str, Case], dict[str, float]]:
    """Return the synthetic case with every kind of map, and the CPU seconds that each took.

    The first patient is made without any map too, under the name "", to know what maps cost.
    """
    target = patients[index]
    choice = TemplateSettings(choice="same_acquisition")
    template = choose_template(target, patients, choice, numpy_generator(seed, "template", target.case_id))
    made, cpu_s = {}, {}
    for name in (*plan.maps, *([""] if index == plan.first else [])):
        sampler = trained.sampler.model_copy(update={"confidence": MAPS.get(name)})
        generator = LatentDiffusionGenerator(trained.stages, sampler, trained.device, trained.model)
        started = time.process_time()
        made[name] = generator.generate(target, template, seed)
        cpu_s[name] = round(time.process_time() - started, 2)
    return made, cpu_s


def judge(real: Case, made: Mapping[str, Case], segmenter: Segmenter) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return by map, region and measure how well the maps, and trivial ones, rank the errors of one synthetic image.

    Args:
        real: the real case of the same mask and acquisition.
        made: the same synthetic case with each kind of map, or none.
        segmenter: trained on other, real cases.
    """
    first = next(iter(made.values()))
    assert all(np.array_equal(first.required_image(), case.required_image()) for case in made.values())
    image = first.required_image().astype(np.float32)
    doubts = {name: 1 - case.confidence for name, case in made.items() if case.confidence is not None}
    doubts |= {name: gradient_magnitude(image, box) for name, box in GRADIENTS.items()}
    doubts |= {"mask's borders": border_nearness(real), "constant": np.ones_like(image)}
    error_hu = np.abs(image - real.required_image().astype(np.float32))
    truth = Truth(error_hu, wrong_labels(first, segmenter), doubts["gradient"])
    regions = regions_of(real)
    return {
        name: {region: _finite(asdict(found)) for region, found in rank_errors(doubt, truth, regions).items()}
        for name, doubt in doubts.items()
    }


def wrong_labels(made: Case, segmenter: Segmenter) -> np.ndarray:
    """Return the voxels, (1, *grid), where a segmenter disagrees with the target structures of a synthetic mask."""
    found = predict_mask(segmenter, made)
    codes, _ = relabel(found.required_mask(), found.labels, made.labels)
    return codes != made.labels.only_targets(made.required_mask())


def _row(out: Path, seed: int, case_id: str) -> Path:
    return out / "cases" / str(seed) / f"{case_id}.json"


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


def _draw(out: Path, real: Case, made: Mapping[str, Case]) -> None:
    """Draw the real image, the synthetic one and every map of one case."""
    where = focus(real, "left_ventricle")
    maps = {name: case for name, case in made.items() if case.confidence is not None}
    panels = [draw_image(case, "axial", where, 300) for case in (real, next(iter(made.values())))]
    panels += [draw_confidence(case, "axial", where, 300) for case in maps.values()]
    save_png(contact_sheet([panels], ("axial",), ("real", "synthetic", *maps)), out)


app = App(help=__doc__)


@app.default
def main(
    out: Path,
    /,
    *,
    runs: Annotated[list[Path], Parameter(consume_multiple=True)],
    templates: Path,
    judge: Path,
    autoencoder: Path | None = None,
    first: int = 0,
    cases: int = 8,
    maps: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
) -> None:
    """Run the study, or what is not done yet of it.

    Args:
        out: folder for everything.
        runs: trained generators, one per repetition.
        templates: dataset of test patients.
        judge: run of a segmenter that learned from other real cases.
        autoencoder: run whose autoencoder the generators use, where not their own.
        first: index of the first patient that is judged.
        cases: how many patients.
        maps: kinds of maps to judge; all by default.
    """
    plan = ConfidencePlan(
        runs=tuple(map(str, runs)), autoencoder=None if autoencoder is None else str(autoencoder),
        templates=str(templates), judge=str(judge), first=first, cases=cases, maps=tuple(maps or MAPS),
    )  # fmt: skip
    print(run_study(out, plan).read_text())  # noqa: T201


if __name__ == "__main__":
    app()
