"""FCaS's Table 1 and FQCDM's Tables 1 to 3: all methods on the same cases, masks and budget, in one command.

Every method learns from the training cases, is asked for an image for each mask of the test cases, and is measured by
segmenters that took no part: beside the real image of the mask, as a set, and by what is found of the mask. One that is
told of no mask is measured as a set only. Methods of slices make volumes slice by slice, which the step across axial
slices shows. ``cardiosynth experiment fcas-table1 OUT`` runs it; ``--only`` names what to do now, such as ``spade`` or
``spade-targets-0``, and several processes may share the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from cardiosynth.baselines.registry import users_own
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.store import read_json, write_json
from cardiosynth.data.dataset import Dataset, read_dataset
from cardiosynth.evaluation.results import GalleryFigure, Results, Tile, pointer
from cardiosynth.experiments.fqcdm_measures import Measuring
from cardiosynth.experiments.peer_columns import Row
from cardiosynth.experiments.peer_plan import PeerCases, PeersPlan
from cardiosynth.experiments.peer_rows import Arm, arms, time_per_case
from cardiosynth.experiments.peer_tables import tables
from cardiosynth.experiments.request import Request
from cardiosynth.experiments.slice_judge import HALVES, train_extractor, train_judge
from cardiosynth.experiments.study import Study, Task
from cardiosynth.recipes.methods import find_method
from cardiosynth.recipes.registry import find_recipe

ALL = "all"
DATA = "data"
"""Of ``--only``: everything that all methods have in common."""
SHOWN = 4
"""Test cases of the gallery."""


def experiment(request: Request) -> Results:
    """Run the comparison as it was asked for."""
    given = [name for word in request.methods for name in word.split(",") if name]
    methods = None
    if given and given != [ALL]:
        methods = [find_method(name).name for name in dict.fromkeys(given)]
    elif users_own():
        methods = [*request.plan(PeersPlan).methods, *users_own()]
    plan = request.plan(PeersPlan, data=None if request.data is None else str(request.data), methods=methods)
    study = PeersStudy(request.out, plan, request)
    study.run(request.only)
    return study.results()


@dataclass(frozen=True)
class PeersStudy:
    """One comparison in one folder: ``data/``, ``judge/``, ``runs/``, ``synthetic/``, ``measures/``, ``costs/``."""

    out: Path
    plan: PeersPlan
    request: Request

    @cached_property
    def cases(self) -> PeerCases:
        """What is learned from and judged on."""
        return PeerCases(self.out / DATA, self.plan)

    @cached_property
    def arms(self) -> list[Arm]:
        """Everything that is compared."""
        return arms(self.out, self.plan, self.cases, self.request.device, self.request.command)

    @cached_property
    def steps(self) -> Study:
        """What was done."""
        # Rows know nothing of others, so that methods and seeds can be added later.
        identity = self.plan.model_dump(mode="json", exclude={"seeds", "methods"})
        return Study(self.out, identity, {task.name: task.expected_s for task in self._expected})

    @property
    def _expected(self) -> list[Task]:
        return [*self._common, *(task for arm in self.arms for task in self._tasks(arm))]

    def run(self, only: Sequence[str]) -> None:
        """Do what ``only`` names, or all, as far as it is not done.

        Raises:
            InputError: the folder holds a comparison of another plan, or a name of no row.
        """
        chosen = self._chosen(only)
        self.steps.do(*self._common)
        for arm in chosen:
            self.steps.do(*self._tasks(arm))

    def _chosen(self, only: Sequence[str]) -> list[Arm]:
        known = {DATA}.union(*(arm.names for arm in self.arms))
        for name in only:
            if name not in known:
                raise InputError(f"--only {name}" + suggest(name, sorted(known)))
        return [arm for arm in self.arms if not only or arm.names & set(only)]

    @property
    def _common(self) -> list[Task]:
        command, seconds = self.request.command(DATA), 0.5 * self.plan.judge_steps
        return [
            Task("write cases", command, self.cases.write, 60.0),
            Task("train judge", command, self._judges, HALVES * seconds),
            Task("train features", command, self._seer, seconds),
            Task("measure real", command, lambda: write_json(self._measures("real"), self.measuring.real()), 60.0),
        ]

    def _tasks(self, arm: Arm) -> list[Task]:
        measure = partial(self._measure, arm)
        return [*arm.images.tasks, Task(f"measure {arm.name}", self.request.command(arm.name), measure, 60.0)]

    def _judges(self) -> Any:
        changes = self._segmenter(self.plan.judge, self.cases.shape)
        given = (Path(self.cases.source), self.plan.judge, self.plan.judge_steps, changes, self.request.device)
        return train_judge(self.out / "judge", *given)

    def _seer(self) -> Any:
        changes = self._segmenter(self.plan.seer, self.cases.shape[:2])
        given = (self.cases.seen_by_extractor, self.plan.seer, self.plan.judge_steps, changes, self.request.device)
        return train_extractor(self.out / "features", *given)

    def _segmenter(self, recipe: str, shape: tuple[int, ...]) -> list[str]:
        """Return how a recipe's segmenter is changed: as the plan says, and no crop larger than the cases."""
        crop = list(map(min, zip(find_recipe(recipe).segmenter.crop, shape, strict=True)))
        return [f"segmenter.crop={crop}", *self.plan.changes]

    @cached_property
    def measuring(self) -> Measuring:
        """With what rows are measured."""
        return Measuring(self.cases.source, self._judges(), self._seer(), self.out / "kept")

    def _measure(self, arm: Arm) -> None:
        write_json(self._measures(arm.name), self.measuring.row(arm.images))

    def _measures(self, name: str) -> Path:
        return self.out / "measures" / f"{name}.json"

    # -----------------------------------------------------------------------------------------------------------
    # What is shown.

    @property
    def done(self) -> list[Arm]:
        """What is measured."""
        return [arm for arm in self.arms if self._measures(arm.name).exists()]

    def results(self) -> Results:
        """Return the tables and the gallery of what there is."""
        found: dict[str, Row] = {}
        for arm in self.done:
            row = found.setdefault(arm.title, Row(arm.of, arm.surroundings, {}, {}))
            row.measures[arm.seed] = read_json(self._measures(arm.name))
            row.costs[arm.seed] = self._costs(arm)
        real: Mapping[str, Any] = read_json(self._measures("real"))
        made = tables(list(found.values()), real, self.plan, self.cases.has_surroundings) if found else ()
        return Results(
            title=self.request.experiment.title,
            summary=f"{len(found)} rows; every method on the same cases, masks and budget.",
            tables=made,
            figures=self._gallery(),
            stages=self.steps.stages(),
        )

    def _costs(self, arm: Arm) -> dict[str, Any]:
        count = len(self.cases.masks(arm.surroundings))
        return arm.costs() | {"seconds_per_case": time_per_case(self.out, arm, count)}

    def _gallery(self) -> tuple[GalleryFigure, ...]:
        """Return images of the first seed below the real ones of the masks; of a method without masks, any."""
        test, shown = self.cases.part("test"), [arm for arm in self.done if arm.seed == self.plan.seeds[0]]
        if not shown:
            return ()
        names = list(test.case_ids[:SHOWN])
        rows = [tuple(self._tile(test, name, f"real: {name}") for name in names)]
        for arm in shown:
            made = read_dataset(arm.images.dataset)
            rows.append(tuple(self._tile(made, name, arm.title) for name in _of_references(made, names)))
        return (
            GalleryFigure(
                title="Images for the masks of test cases",
                caption="Above the real images; below what each method makes of their masks, cut through the heart of "
                "the mask. A method that is told of no mask shows hearts of its own.",
                rows=tuple(rows),
            ),
        )

    def _tile(self, dataset: Dataset, case_id: str, text: str) -> Tile:
        return Tile(case=pointer(dataset.root, case_id, self.out), text=text, layer="image")


def _of_references(made: Dataset, names: Sequence[str]) -> list[str]:
    """Return the cases made for these references, or the first ones where a method has none."""
    by_reference = {made.row(case_id)["provenance"].get("reference"): case_id for case_id in made.case_ids}
    return [by_reference.get(name, made.case_ids[index]) for index, name in enumerate(names)]
