"""What synthetic cases are worth to a segmenter that has few annotated ones, and what it is that costs it.

A trained generator makes cases for masks deformed from its templates'. Segmenters learn from real cases alone, or also
from these: plain, weighted by confidence (CAL), before the real ones or mixed with them; see ``protocols``. All are
judged on the same cases of protocols that no network saw. Bounds tell where a loss comes from: the same pre-training on
as many real images, on these encoded and decoded, and on synthetic images for these patients' own masks. So does what
is measured of the pre-trained segmenters before they see a real case, on real, coded and synthetic images of the same
patients.

``cardiosynth experiment fcas-table2 OUT`` (or ``-table3``, ``-table4``, ``few-phantoms``) runs it. After ``--only
data`` several processes may share the rest: ``--only ARM ...`` or ``--only ARM-SEED ...``; those that share a
pre-training wait for each other.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path

from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.progress import Progress
from cardiosynth.core.store import read_json, write_json
from cardiosynth.data.dataset import Dataset
from cardiosynth.evaluation.results import Results
from cardiosynth.evaluation.segmentations import compare_segmentation
from cardiosynth.experiments.downstream_cases import DownstreamPlan, Rows, StudyCases, known_values
from cardiosynth.experiments.downstream_tables import Findings
from cardiosynth.experiments.protocols import Arm
from cardiosynth.experiments.request import Request
from cardiosynth.experiments.study import Study, Task
from cardiosynth.experiments.trained import generator_tasks, whole_grid
from cardiosynth.recipes.registry import as_fcas, find_recipe
from cardiosynth.segmentation.predict import load_segmenter, predict_mask
from cardiosynth.segmentation.task import train_segmenter

DATA = "data"
"""Of ``--only``: everything that all arms have in common."""


def experiment(request: Request) -> Results:
    """Run the study as it was asked for."""
    real = None if request.data is None else str(request.data)
    generator = None if request.generator is None else str(request.generator)
    plan = request.plan(DownstreamPlan, real=real, generator=generator)
    study = DownstreamStudy(request.out, plan, request.device, request.command)
    return study.run(request.only).model_copy(update={"title": request.experiment.title})


def _chosen(plan: DownstreamPlan, only: Sequence[str]) -> list[tuple[Arm, int]]:
    """Return the arms and seeds that ``only`` names, the seeds of an arm after each other."""
    arms = plan.arms.arms
    names = {f"{arm.name}-{seed}": [(arm, seed)] for arm in arms for seed in plan.seeds}
    names |= {arm.name: [(arm, seed) for seed in plan.seeds] for arm in arms} | {DATA: []}
    unknown = [name for name in only if name not in names]
    if unknown:
        raise InputError(f"--only {unknown[0]}" + suggest(unknown[0], list(names)))
    wanted = only or [f"{arm.name}-{seed}" for seed in plan.seeds for arm in arms]
    return list(dict.fromkeys(pair for name in wanted for pair in names[name]))


@dataclass(frozen=True)
class DownstreamStudy:
    """One study in one folder.

    Writes ``generator/`` and ``templates/`` where none are given, ``data/``, ``pretrained/``, ``runs/ARM-SEED/`` and
    ``measures/``.

    Attributes:
        out: the folder.
        plan: how much of everything.
        device: ``cpu`` or ``cuda``.
        again: returns the command that does parts of it.
    """

    out: Path
    plan: DownstreamPlan
    device: str = "cpu"
    again: Callable[..., str] = lambda *only: ""

    def run(self, only: Sequence[str] = ()) -> Results:
        """Do what is not done yet and return what was found, of the arms that there are.

        Args:
            only: what to do now: ``data``, arms, or arms with a seed, such as ``cal-40-0``; all by default.

        Raises:
            InputError: the folder holds a study of another plan, a name of no arm, templates that are no phantoms or
                share protocols with the test, fewer cases than the arms need, or a generator that is not trained.
        """
        chosen = _chosen(self.plan, only)
        self.prepare()
        for arm, seed in chosen:
            self.do(arm, seed)
        return self.results()

    @cached_property
    def cases(self) -> StudyCases:
        """What is learned from and judged on."""
        own = {"generator": str(self.out / "generator"), "templates": str(self.out / "templates")}
        plan = self.plan if self.plan.generator else self.plan.model_copy(update=own)
        return StudyCases(Path(plan.data or self.out / DATA), plan, self.device)

    @property
    def _training(self) -> tuple[Task, ...]:
        """The steps to a generator; none where one is given."""
        plan, recipe = self.plan, as_fcas(find_recipe(self.plan.recipe))
        if plan.generator:
            return ()
        phantoms = whole_grid(recipe, plan.training, plan.protocols)
        return generator_tasks(phantoms, self.cases.templates, self.cases.generator, recipe, self.device)

    @cached_property
    def steps(self) -> Study:
        """What was done."""
        expected_s = {task.name: task.expected_s for task in self._training}
        expected_s |= {"draw phantoms": 120.0, "make cases": 480.0, "look at cases": 30.0}
        for seed, arm in product(self.plan.seeds, self.plan.arms.arms):
            whole_s, share = 0.15 * arm.steps_share * self.plan.steps, arm.pretrain_share if arm.pretraining else 0.0
            expected_s |= {f"pre-train {arm.pretraining}-{seed}": share * whole_s} if arm.pretraining else {}
            expected_s[f"train {arm.name}-{seed}"] = (1 - share) * whole_s
        # Arms of one seed know nothing of others, so that seeds can be added later.
        identity = self.plan.model_dump(mode="json", exclude={"seeds"})
        return Study(self.out, identity | {"arms": self.plan.arms.model_dump(mode="json")}, expected_s)

    def step(self, name: str, only: str, work: Callable[..., object], *given: object) -> None:
        """Do a step that is not done yet."""
        self.steps.step(name, self.again(only), partial(work, *given))

    def prepare(self) -> None:
        """Train what is needed, draw and make all cases, and look at them."""
        self.steps.do(*self._training)
        if not self.plan.real:
            self.step("draw phantoms", DATA, self.cases.draw)
        self.step("make cases", DATA, self.cases.make)
        self.step("look at cases", DATA, lambda: write_json(self._measures("images"), self.cases.look()))

    def do(self, arm: Arm, seed: int) -> None:
        """Train and judge an arm, and what it starts from."""
        name = f"{arm.name}-{seed}"
        if arm.pretraining:
            self.step(f"pre-train {arm.pretraining}-{seed}", name, self._pretrain, arm, seed)
        self.step(f"train {name}", name, self._train, arm, seed)

    def _pretrain(self, arm: Arm, seed: int) -> None:
        assert arm.source is not None, "only arms with a source are pre-trained"
        recipe, run = self.cases.recipe, self._pretrained(arm, seed)
        stage, learned = arm.staged(recipe.segmenter, self.plan.steps, seed), self.cases.read(arm.source, arm.count)
        label = f"pre-train {run.name}"
        train_segmenter(learned, run, stage.pretraining, recipe.intensity, device=self.device, label=label)
        found = {"test": self._judge(run, self.cases.read("test"))}
        for name in ("others", "coded", "reference"):
            found[name] = self._judge(run, self.cases.read(name, self.plan.looked_at))
        write_json(self._measures(f"pre-{run.name}"), found)

    def _train(self, arm: Arm, seed: int) -> None:
        recipe, real, run = self.cases.recipe, self.cases.read("real", arm.real), self._run(arm, seed)
        stage, start, mixed_with = arm.stage(recipe.segmenter, self.plan.steps, seed), None, []
        if arm.pretraining:
            stage, start = arm.staged(recipe.segmenter, self.plan.steps, seed).finetuning, self._pretrained(arm, seed)
        elif arm.source:
            mixed_with = [self.cases.read(arm.source, arm.count)]
        label = f"train {run.name}"
        train_segmenter(
            real, run, stage, recipe.intensity, mixed_with=mixed_with, init=start, device=self.device, label=label
        )
        write_json(self._measures(run.name), self._judge(run, self.cases.read("test")))

    def _judge(self, run: Path, cases: Dataset) -> Rows:
        """Return for every case and structure how well a run's segmenter finds it."""
        segmenter, rows = load_segmenter(run, self.device), []
        with Progress(f"judge {run.name}", len(cases)) as progress:
            for case in cases:
                found = compare_segmentation(predict_mask(segmenter, case).required_mask(), case)
                structures = {name: known_values(asdict(agreement)) for name, agreement in found.items()}
                rows.append({"case": case.case_id, "structures": structures})
                progress.update()
        return rows

    def results(self) -> Results:
        """Return what was found, of what there is."""
        final, pretrained = {}, {}
        for arm, seed in product(self.plan.arms.arms, self.plan.seeds):
            file, before = self._measures(f"{arm.name}-{seed}"), self._measures(f"pre-{arm.pretraining}-{seed}")
            if file.exists():
                final.setdefault(arm.name, {})[seed] = read_json(file)
            if arm.pretraining and before.exists():
                pretrained.setdefault(arm.pretraining, {})[seed] = read_json(before)
        found = Findings(self.plan.arms, self.plan.steps, final, pretrained, read_json(self._measures("images")))
        return found.results().model_copy(update={"stages": self.steps.stages()})

    def _pretrained(self, arm: Arm, seed: int) -> Path:
        return self.out / "pretrained" / f"{arm.pretraining}-{seed}"

    def _run(self, arm: Arm, seed: int) -> Path:
        return self.out / "runs" / f"{arm.name}-{seed}"

    def _measures(self, name: str) -> Path:
        return self.out / "measures" / f"{name}.json"
