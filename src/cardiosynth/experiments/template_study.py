"""What a template brings: intensities, likeness, copying, and whether the image follows when the template is swapped.

One autoencoder and first diffusion stage; on them, for every seed, three control stages that differ in nothing but what
they are told: the mask alone, the mask and the template pair (published), or also the mask painted with the
template's means. Patients and protocols of the test are in no training. Each test mask gets a template of its own
protocol (another patient) and one of another protocol, with the same noise.

``cardiosynth experiment templates OUT`` runs it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import permutations
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pydantic

from cardiosynth.autoencoder.codec import Codec, load_codec
from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings, with_overrides
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.progress import Progress
from cardiosynth.core.store import read_json, write_json
from cardiosynth.data.dataset import Dataset, DatasetWriter, read_dataset
from cardiosynth.evaluation.measures import heart, measure_pair
from cardiosynth.evaluation.results import GalleryFigure, Results, Tile, pointer
from cardiosynth.experiments.request import Request
from cardiosynth.experiments.study import Study, Task, command_line
from cardiosynth.experiments.template_tables import Rows, template_results
from cardiosynth.experiments.trained import Stage, stage_task
from cardiosynth.metrics.copies import common_interior, texture_correlation
from cardiosynth.metrics.fidelity import rmse, structure_means
from cardiosynth.recipes.fcas import FcasRecipe
from cardiosynth.recipes.phantoms import Population, write_phantoms
from cardiosynth.recipes.registry import as_fcas, find_recipe
from cardiosynth.recipes.stages import Earlier, train_stage
from cardiosynth.sampling.generator import load_generator

Kind = Literal["painted", "mask", "template"]
FIRST_TEST = 10_000
"""Index of the first patient that no network has seen."""


class TemplatePlan(Settings):
    """How much of everything.

    Attributes:
        recipe: what all models have in common.
        training: patients to learn from.
        protocols: scanner protocols they come in.
        test: patients to judge on, at least three in each of their protocols: mask, template, another.
        test_protocols: protocols of their own.
        cases: of the test patients, the first ones, whose masks get images; all of them are templates.
        steps: optimizer steps of every control stage.
        seeds: of the control stages.
        changes: ``a.b=value`` settings of the recipe that differ.
    """

    recipe: str = "fcas/demo"
    training: int = pydantic.Field(default=72, ge=2)
    protocols: int = pydantic.Field(default=18, ge=1)
    test: int = pydantic.Field(default=24, ge=6)
    test_protocols: int = pydantic.Field(default=6, ge=2)
    cases: int = pydantic.Field(default=12, ge=1)
    steps: int = pydantic.Field(default=500, ge=1)
    seeds: tuple[int, ...] = (0, 1, 2)
    changes: tuple[str, ...] = ()

    @pydantic.model_validator(mode="after")
    def _enough_patients(self) -> "TemplatePlan":
        if self.test < 3 * self.test_protocols:
            raise ValueError("test must hold three patients of each of its protocols: mask, template, another")
        if self.cases > self.test:
            raise ValueError(f"cases must be at most test, which is {self.test}")
        return self


class Model(NamedTuple):
    """One control stage of the study."""

    kind: Kind
    seed: int

    @property
    def name(self) -> str:
        """Folder of the model."""
        return f"{self.kind}-{self.seed}"


class Company(NamedTuple):
    """The cases that a synthetic image is compared with.

    Attributes:
        target: the real image of the mask.
        template: what the generator was shown.
        others: other patients of the template's protocol, shown to nobody.
    """

    target: Case
    template: Case
    others: tuple[Case, ...] = ()


def experiment(request: Request) -> Results:
    """Run the study as it was asked for."""
    study = TemplateStudy(request.out, request.plan(TemplatePlan), request.device, request.command)
    return study.run(request.only).model_copy(update={"title": request.experiment.title})


@dataclass(frozen=True)
class TemplateStudy:
    """One study in one folder.

    Writes ``base/``, ``runs/MODEL``, ``synthetic/MODEL-TEMPLATE`` and ``measures/MODEL.json``.

    Attributes:
        out: the folder.
        plan: how much of everything.
        device: ``cpu`` or ``cuda``.
        again: returns the command that does parts of it.
    """

    out: Path
    plan: TemplatePlan
    device: str = "cpu"
    again: Callable[..., str] = lambda *only: ""

    @property
    def models(self) -> list[Model]:
        """All control stages, the kinds of a seed after each other."""
        return [Model(kind, seed) for seed in self.plan.seeds for kind in get_args(Kind)]

    @cached_property
    def recipe(self) -> FcasRecipe:
        """What all models have in common."""
        return with_overrides(as_fcas(find_recipe(self.plan.recipe)), self.plan.changes)

    @cached_property
    def steps(self) -> Study:
        """What was done."""
        tasks = (*self._common, *(task for model in self.models for task in self._tasks(model)))
        # Models of one seed know nothing of others, so that seeds can be added later.
        identity = self.plan.model_dump(mode="json", exclude={"seeds"})
        return Study(self.out, identity, {task.name: task.expected_s for task in tasks})

    def run(self, only: Sequence[str] = ()) -> Results:
        """Do what is not done yet and return what was found, of the models that there are.

        Args:
            only: names of the models to do now, such as ``painted-0``; all by default.

        Raises:
            InputError: the folder holds a study of another plan, or a name of no model.
        """
        names = [model.name for model in self.models]
        unknown = set(only) - set(names)
        if unknown:
            raise InputError(f"--only {min(unknown)}" + suggest(min(unknown), names))
        self.steps.do(*self._common)
        for model in self.models:
            if model.name in (only or names):
                self.steps.do(*self._tasks(model))
        return self.results()

    def results(self) -> Results:
        """Return what was found, of what there is."""
        files = {(model.kind, model.seed): _measures(self.out, model.name) for model in self.models}
        rows: Rows = {model: read_json(file) for model, file in files.items() if file.exists()}
        shown = template_results(rows, read_json(_measures(self.out, "originals")))
        gallery = self._gallery()
        figures = (*([gallery] if gallery else []), *shown.figures)
        return shown.model_copy(update={"stages": self.steps.stages(), "figures": figures})

    @property
    def _common(self) -> tuple[Task, ...]:
        """What all models need."""
        out, data = self.out, _data(self.out, "training")
        drawing = Task("draw phantoms", self.again(), partial(draw_phantoms, out, self.plan, self.recipe), 60.0)
        stages: tuple[Stage, ...] = ("autoencoder", "diffusion")
        changes = self.plan.changes
        trainings = (stage_task(stage, data, out / "base", self.recipe, self.device, changes) for stage in stages)
        measuring = Task("measure originals", self.again(), self._measure_originals, 60.0)
        return (drawing, *trainings, measuring)

    def _tasks(self, model: Model) -> tuple[Task, ...]:
        """What one model needs on top."""
        measuring = partial(_measure_model, self.out, self.plan, model, self.device)
        return (
            Task(f"train {model.name}", self._command(model), partial(self._train, model), 0.45 * self.plan.steps),
            Task(f"measure {model.name}", self.again(model.name), measuring, 5.0 * self.plan.cases),
        )

    def _measure_originals(self) -> None:
        write_json(_measures(self.out, "originals"), originals(self.out, self.plan))

    def _train(self, model: Model) -> None:
        recipe, base = with_overrides(self.recipe, control_settings(self.plan, model)), self.out / "base"
        earlier = Earlier(autoencoder=base, diffusion=base)
        data, run = _data(self.out, "training"), _run(self.out, model)
        train_stage("control", data, run, recipe, earlier, self.device, accept_verdict=True)

    def _command(self, model: Model) -> str:
        base = ("--autoencoder", self.out / "base", "--diffusion", self.out / "base")
        words = ("train", "control", _data(self.out, "training"), _run(self.out, model), "--recipe", self.plan.recipe)
        changes = (*self.plan.changes, *control_settings(self.plan, model))
        return command_line(*words, *base, *(word for change in changes for word in ("--set", change)))

    def _gallery(self) -> GalleryFigure | None:
        """Return the first test mask: its real image, and what each kind makes of it under both templates."""
        name = read_dataset(_data(self.out, "test")).case_ids[0]
        made = sorted(
            root for root in (self.out / "synthetic").glob("*") if f"synthetic-{name}" in read_dataset(root).rows
        )
        if not made:
            return None
        shown = [
            (_data(self.out, "test"), name, "real"),
            *((root, f"synthetic-{name}", root.name) for root in made[:7]),
        ]
        tiles = [Tile(case=pointer(root, case, self.out), text=text, layer="image") for root, case, text in shown]
        rows = tuple(tuple(tiles[i : i + 4]) for i in range(0, len(tiles), 4))
        caption = "Kind, seed and template (of the same or another protocol) of each image; the noise is the same."
        return GalleryFigure(title="One mask, told and not told of templates", caption=caption, rows=rows)


# ---------------------------------------------------------------------------------------------------------------
# Data and training.


def draw_phantoms(out: Path, plan: TemplatePlan, recipe: FcasRecipe) -> None:
    """Write the phantoms that are not there yet."""
    grid = {"shape": recipe.grid.shape, "spacing_mm": recipe.grid.spacing_mm}
    test = {"protocols": plan.test_protocols, "first": FIRST_TEST, "first_protocol": plan.protocols}
    write_phantoms(Population(plan.training, protocols=plan.protocols, **grid), _data(out, "training"), "training")
    write_phantoms(Population(plan.test, **test, **grid), _data(out, "test"), "test")


def control_settings(plan: TemplatePlan, model: Model) -> list[str]:
    """Return how a model's recipe differs from the plan's: in the kind of its condition, and in its seed."""
    return [
        f"control.condition.kind={model.kind}", f"control.training.seed={model.seed}",
        f"control.training.steps={plan.steps}",
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------
# Who is compared with whom.


def partners_of(protocols: Mapping[str, str]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return, by mask and kind of template, the template's name and those of the others of the template's protocol.

    ``same`` is a template of the mask's protocol, ``other`` one of another; over the masks of a protocol the other
    protocols take turns.

    Args:
        protocols: of every test case, by name; two or more, with three cases each or more.
    """
    groups = [[name for name, own in protocols.items() if own == one] for one in dict.fromkeys(protocols.values())]
    out = {}
    for g, group in enumerate(groups):
        for rank, name in enumerate(group):
            elsewhere = groups[(g + 1 + rank % (len(groups) - 1)) % len(groups)]
            start = rank % len(elsewhere)
            out[name] = {
                "same": (*group[rank + 1 :], *group[:rank]),
                "other": (*elsewhere[start:], *elsewhere[:start]),
            }
    return out


def protocols_of(test: Dataset) -> dict[str, str]:
    """Return the protocol that every phantom was scanned with, by name."""
    return {name: str(test.rows[name]["provenance"]["acquisition"]) for name in test.case_ids}


# ---------------------------------------------------------------------------------------------------------------
# Measuring.


def _measure_model(out: Path, plan: TemplatePlan, model: Model, device: str) -> None:
    """Make and measure the images of one model; those that are there already are kept."""
    test, recipe = read_dataset(_data(out, "test")), as_fcas(find_recipe(plan.recipe))
    sampler = recipe.sampler.model_copy(update={"confidence": None})
    generator = load_generator(_run(out, model), device, sampler, out / "base")
    chosen = ("none",) if model.kind == "mask" else ("same", "other")
    protocols = protocols_of(test)
    rows, partners = [], partners_of(protocols)
    with Progress(f"measure {model.name}", len(chosen) * plan.cases) as progress:
        for choice in chosen:
            with DatasetWriter(out / "synthetic" / f"{model.name}-{choice}", test.labels, name=model.name) as writer:
                for name in test.case_ids[: plan.cases]:
                    # A model that is told the mask alone looks at no template; any will do.
                    template, *others = (test.case(x) for x in partners[name]["same" if choice == "none" else choice])
                    company = Company(test.case(name), template, tuple(others))
                    if not writer.has(f"synthetic-{name}"):
                        writer.write(generator.generate(company.target, template, seed=0))
                    made = read_dataset(writer.root).case(f"synthetic-{name}")
                    row = {"case": name, "protocol": protocols[name], "choice": choice}
                    rows.append(row | measure(made.required_image(), company, recipe))
                    progress.update()
    write_json(_measures(out, model.name), rows)


def measure(image: np.ndarray, company: Company, recipe: FcasRecipe) -> dict[str, Any]:
    """Return how an image made for the target's mask compares with target, template and others.

    Keys: ``error_hu`` and ``means_hu`` by structure, ``template_means_hu``, ``contrast_kept`` (coronary artery),
    ``ssim_heart``, ``rmse_heart_hu``, and ``copies``; see :func:`likeness`.
    """
    target, template, _ = company
    window = recipe.intensity.window_of(target.required_image())
    targets = target.labels.targets
    pair = measure_pair(target, image, window, targets)
    inside = heart(target)
    return {
        "error_hu": pair.error,
        "means_hu": _means_hu(image, target),
        "template_means_hu": _means_hu(template.required_image(), template),
        "contrast_kept": pair.kept["coronary_artery"],
        "ssim_heart": pair.ssim_heart,
        "rmse_heart_hu": rmse(image[0][inside], target.required_image()[0][inside]),
        "copies": likeness(image, company),
    }


def likeness(image: np.ndarray, company: Company) -> dict[str, float]:
    """Return how like an image is to target, template and others, so that copying shows.

    ``heart_*``: root mean square difference in HU in the target's heart. ``texture_*``: correlation of what is left
    when every structure's mean is taken away, where all masks hold the same structure, two voxels from any other:
    neither anatomy nor contrast phase counts there. ``texture_others`` is the mean over the others, and
    ``nearer_than_others`` the share of them that the image is less like than its template.
    """
    target, template, others = company
    masks = [case.required_mask()[0] for case in (target, template, *others)]
    interior, inside = common_interior(masks, target.labels.target_codes), heart(target)

    def texture(case: Case) -> float:
        return texture_correlation(image[0], case.required_image()[0], masks[0], interior)

    found = {"texture_target": texture(target), "texture_template": texture(template)}
    for name, case in (("target", target), ("template", template)):
        found[f"heart_{name}"] = rmse(image[0][inside], case.required_image()[0][inside])
    if others:
        textures = [texture(case) for case in others]
        found["texture_others"] = float(np.mean(textures))
        found["nearer_than_others"] = float(np.mean([found["texture_template"] > value for value in textures]))
    return found


def originals(out: Path, plan: TemplatePlan) -> dict[str, Any]:
    """Return what needs no model: the autoencoder's ceiling, and how like independent real images are to others.

    Independent images are real ones of the template's protocol, compared with target and template as if they had been
    made; of every test case's own protocol all pairs of template and image, of the other one all images.
    """
    test = read_dataset(_data(out, "test"))
    codec, protocols = load_codec(out / "base"), protocols_of(test)
    partners = partners_of(protocols)
    rows: dict[str, Any] = {"ceiling": [], "independent": []}
    with Progress("measure originals", plan.cases) as progress:
        for name in test.case_ids[: plan.cases]:
            case, facts = test.case(name), {"case": name, "protocol": protocols[name]}
            rows["ceiling"].append(facts | _ceiling(case, codec))
            same, (template, *others) = partners[name]["same"], partners[name]["other"]
            pairs = [("same", *pair) for pair in permutations(same, 2)] + [("other", template, x) for x in others]
            for choice, template, image in pairs:
                found = likeness(test.case(image).required_image(), Company(case, test.case(template)))
                rows["independent"].append(facts | {"choice": choice, "copies": found})
            progress.update()
    return rows


def _ceiling(case: Case, codec: Codec) -> dict[str, Any]:
    """Return how like a case is to itself after encoding and decoding, and its own means."""
    made, truth, inside = codec.reconstruct(case), case.required_image(), heart(case)
    pair = measure_pair(case, made, codec.window_of(case), case.labels.targets)
    return {
        "error_hu": pair.error, "ssim_heart": pair.ssim_heart, "contrast_kept": pair.kept["coronary_artery"],
        "rmse_heart_hu": rmse(made[0][inside], truth[0][inside]), "means_hu": _means_hu(truth, case),
    }  # fmt: skip


def _means_hu(image: np.ndarray, case: Case) -> dict[str, float]:
    means = structure_means(image[0], case.required_mask()[0])
    return {label.name: float(means[label.code]) for label in case.labels.targets}


def _data(out: Path, part: str) -> Path:
    return out / "data" / part


def _run(out: Path, model: Model) -> Path:
    return out / "runs" / model.name


def _measures(out: Path, name: str) -> Path:
    return out / "measures" / f"{name}.json"
