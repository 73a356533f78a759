"""Whether a confidence map tells where a synthetic image is wrong, better than the image's own edges do.

Trained generators make images of test patients whose real images are known; each is made once per kind of map, which
changes no image. Two truths: how far the image is from the real one, in HU, and where a segmenter that learned from
other, real cases disagrees with the mask. Every kind of map is judged by how well it ranks these errors, beside three
that need no generation: a constant, the magnitude of the image's gradient, and how near the mask's borders are.

``cardiosynth experiment confidence OUT`` runs it.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from cardiosynth.anatomy.template import TemplateSettings, choose_template
from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.labels import relabel
from cardiosynth.core.progress import Progress
from cardiosynth.core.random import numpy_generator
from cardiosynth.core.store import read_json, whole_folder, write_json
from cardiosynth.data.dataset import Dataset, read_dataset, write_dataset
from cardiosynth.evaluation.confidence import Truth, border_nearness, gradient_magnitude, rank_errors, regions_of
from cardiosynth.evaluation.results import GalleryFigure, Results, Tile, pointer
from cardiosynth.experiments.confidence_tables import confidence_results
from cardiosynth.experiments.request import Request
from cardiosynth.experiments.study import Study, Task, command_line
from cardiosynth.experiments.trained import drawing_task, generator_tasks, whole_grid
from cardiosynth.recipes.fcas import DEMO, FcasRecipe
from cardiosynth.recipes.registry import as_fcas, find_recipe
from cardiosynth.recipes.sizes import PAPER
from cardiosynth.sampling.confidence import ConfidenceSettings
from cardiosynth.sampling.generator import LatentDiffusionGenerator, load_generator
from cardiosynth.segmentation.predict import Segmenter, load_segmenter, predict_mask
from cardiosynth.segmentation.task import train_segmenter

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
FIRST_TEST, FIRST_OTHER = 10_000, 30_000
"""Indices of the first patients that no network has seen, and of those that the judge alone sees."""
GRADIENTS = {"gradient": 3, "gradient, one voxel": 1}
"""Sides of the cubes over which gradient magnitudes are averaged."""


class ConfidencePlan(Settings):
    """How much of everything.

    Attributes:
        runs: trained generators; repetition i takes run i, and begins anew where there are fewer. None trains one.
        autoencoder: run whose autoencoder they use, where not their own.
        templates: dataset of test patients: masks, real images and, as other patients of one acquisition, templates;
            None draws phantoms.
        judge: a segmenter's run; None trains one on phantoms.
        recipe: of what is trained and drawn.
        training: phantoms that the generator learns from, and the judge from as many others.
        protocols: scanner protocols they come in.
        first: index of the first patient that is judged; what was chosen on others is judged on new ones.
        cases: how many patients.
        seeds: of sampling, one per repetition.
        maps: of ``MAPS``.
    """

    runs: tuple[str, ...] = ()
    autoencoder: str | None = None
    templates: str | None = None
    judge: str | None = None
    recipe: str = "fcas/demo"
    training: int = pydantic.Field(default=72, ge=2)
    protocols: int = pydantic.Field(default=18, ge=1)
    first: int = pydantic.Field(default=0, ge=0)
    cases: int = pydantic.Field(default=8, ge=2)
    seeds: tuple[int, ...] = (0, 1, 2)
    maps: tuple[str, ...] = tuple(MAPS)

    @pydantic.model_validator(mode="after")
    def _real_cases_have_judges(self) -> "ConfidencePlan":
        if self.templates is not None and (self.judge is None or not self.runs):
            raise ValueError("test cases of your own need a generator and --set judge=RUN, trained on others like them")
        return self


def experiment(request: Request) -> Results:
    """Run the study as it was asked for."""
    templates = None if request.data is None else str(request.data)
    runs = None if request.generator is None else [str(request.generator)]
    plan = request.plan(ConfidencePlan, templates=templates, runs=runs)
    found = run_study(request.out, plan, request.device, request.command())
    return found.model_copy(update={"title": request.experiment.title})


def run_study(out: Path, plan: ConfidencePlan, device: str = "cpu", again: str = "") -> Results:
    """Do what is not done yet of the study in ``out`` and return what it found.

    Writes ``cases/SEED/CASE.json`` and ``example/``; where they are not given, ``generator/``, ``judge/`` and phantoms.

    Args:
        out: the study's folder.
        plan: how much of everything.
        device: ``cpu`` or ``cuda``.
        again: the command that repeats it.

    Raises:
        InputError: the folder holds a study of another plan, an unknown kind of map, or models that do not fit.
    """
    unknown = set(plan.maps) - set(MAPS)
    if unknown:
        raise InputError(f"maps: there is no '{min(unknown)}'" + suggest(min(unknown), list(MAPS)))
    given = Given(out, plan, device)
    names = (f"judge images of seed {seed}" for seed in plan.seeds)
    expected_s = {task.name: task.expected_s for task in given.tasks}
    expected_s |= dict.fromkeys(names, 5.0 * plan.cases * len(plan.maps))
    study = Study(out, plan.model_dump(mode="json", exclude={"seeds"}), expected_s)
    study.do(*given.tasks)
    for number, seed in enumerate(plan.seeds):
        study.step(f"judge images of seed {seed}", again, partial(_judge_all, given, number, seed))
    shown = confidence_results(_rows(out, plan), {name: MAPS[name] for name in plan.maps}, (DEMO, PAPER))
    figures = (_gallery(out, plan), *shown.figures)
    return shown.model_copy(update={"stages": study.stages(), "figures": figures})


def _rows(out: Path, plan: ConfidencePlan) -> list[list[dict[str, Any]]]:
    """Return the cases that are done under every seed."""
    names = [{row.stem for row in (out / "cases" / str(seed)).glob("*.json")} for seed in plan.seeds]
    common = sorted(set.intersection(*names))
    return [[read_json(_row(out, seed, name)) for name in common] for seed in plan.seeds]


@dataclass(frozen=True)
class Given:
    """What the study starts from: given, or trained and drawn here."""

    out: Path
    plan: ConfidencePlan
    device: str

    @property
    def runs(self) -> tuple[Path, ...]:
        """Of the generators."""
        return tuple(map(Path, self.plan.runs)) or (self.out / "generator",)

    @property
    def patients(self) -> Path:
        """Dataset of the test patients."""
        return Path(self.plan.templates or self.out / "test")

    @property
    def judge(self) -> Path:
        """Run of the segmenter."""
        return Path(self.plan.judge or self.out / "judge")

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The steps to what is not given."""
        plan, recipe = self.plan, as_fcas(find_recipe(self.plan.recipe))
        seen = whole_grid(recipe, plan.training, plan.protocols)
        tasks: list[Task] = []
        if not plan.runs:
            tasks += generator_tasks(seen, self.out / "training", self.out / "generator", recipe, self.device)
        if plan.templates is None:
            count = plan.first + max(plan.cases, 4)
            unseen = replace(seen, count=count, protocols=count // 2, first=FIRST_TEST, first_protocol=plan.protocols)
            tasks.append(drawing_task(unseen, self.patients, "draw test patients"))
        if plan.judge is None:
            others = self.out / "others"
            tasks.append(drawing_task(replace(seen, first=FIRST_OTHER), others, "draw the judge's patients"))
            command = command_line("train", "segmenter", others, self.judge, "--recipe", recipe.name)
            expected_s = 0.15 * recipe.segmenter.training.steps
            tasks.append(Task("train judge", command, partial(self._train_judge, recipe), expected_s))
        return tuple(tasks)

    def _train_judge(self, recipe: FcasRecipe) -> None:
        cases = read_dataset(self.out / "others")
        train_segmenter(cases, self.judge, recipe.segmenter, recipe.intensity, device=self.device, label="train judge")


# ---------------------------------------------------------------------------------------------------------------
# One case.


def _judge_all(given: Given, number: int, seed: int) -> None:
    """Judge the images of one repetition."""
    plan, out = given.plan, given.out
    patients, segmenter = read_dataset(given.patients), load_segmenter(given.judge, given.device)
    autoencoder = None if plan.autoencoder is None else Path(plan.autoencoder)
    generator = load_generator(given.runs[number % len(given.runs)], given.device, autoencoder=autoencoder)
    chosen = range(len(patients))[plan.first : plan.first + plan.cases]
    with Progress(f"judge seed {seed}", len(chosen)) as progress:
        for index in chosen:
            row = _row(out, seed, patients.case_ids[index])
            if not row.exists():
                made, cpu_s = _make(plan, generator, patients, index, seed)
                write_json(row, {"cpu_s": cpu_s, "maps": judge(patients[index], made, segmenter)})
                if not (out / "example").exists():
                    _write_example(out / "example", patients[index], made)
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


def _write_example(out: Path, real: Case, made: Mapping[str, Case]) -> None:
    """Write the real image, and the synthetic one with every map, as a dataset."""
    maps = {name: case for name, case in made.items() if case.confidence is not None}
    cases = [case.with_(case_id=_example(name)) for name, case in maps.items()]
    with whole_folder(out) as partial_folder:
        write_dataset([real.with_(case_id="real"), *cases], partial_folder, "example")


def _gallery(out: Path, plan: ConfidencePlan) -> GalleryFigure:
    """Return the example: both images, and every map."""
    places = [("real", "real", "image"), (_example(plan.maps[0]), "synthetic", "image")]
    places += [(_example(name), name, "confidence") for name in plan.maps]
    tiles = [
        Tile.model_validate({"case": pointer(out / "example", case, out), "text": text, "layer": layer})
        for case, text, layer in places
    ]
    rows = tuple(tuple(tiles[i : i + 5]) for i in range(0, len(tiles), 5))
    caption = "One test patient's mask; the image is the same under every kind of map."
    return GalleryFigure(title="Kinds of confidence maps", caption=caption, rows=rows)


def _example(name: str) -> str:
    """Return the name of a map's case."""
    return re.sub(r"[^a-z0-9]+", "-", name)
