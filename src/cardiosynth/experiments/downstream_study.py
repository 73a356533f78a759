"""What synthetic cases are worth to a segmenter that has few annotated ones, and what it is that costs it.

A trained generator makes cases for masks deformed from its templates'. Segmenters learn from real cases alone, or also
from these: plain, weighted by confidence (CAL), before the real ones or mixed with them; see ``protocols``. All are
judged on the same cases of protocols that no network saw. Bounds tell where a loss comes from: the same pre-training on
as many real images, on these encoded and decoded, and on synthetic images for these patients' own masks. So does what
is measured of the pre-trained segmenters before they see a real case, on real, coded and synthetic images of the same
patients.

Run: ``python -m cardiosynth.experiments.downstream_study OUT --generator RUN --templates PHANTOMS``. The same command
goes on after a stop. After ``--only data`` several processes may share the rest: ``--only ARM ...`` or
``--only ARM-SEED ...``; those that share a pre-training wait for each other.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.progress import Progress
from cardiosynth.core.store import read_json, write_json, write_text
from cardiosynth.data.dataset import Dataset
from cardiosynth.evaluation.segmentations import compare_segmentation
from cardiosynth.experiments.downstream_cases import DownstreamPlan, Rows, StudyCases, known_values
from cardiosynth.experiments.downstream_tables import tables
from cardiosynth.experiments.protocols import Arm
from cardiosynth.experiments.study import Study
from cardiosynth.segmentation.predict import load_segmenter, predict_mask
from cardiosynth.segmentation.task import train_segmenter

DATA = "data"
"""Of ``--only``: everything that all arms have in common."""


def run_study(out: Path, plan: DownstreamPlan, only: Sequence[str] = ()) -> Path:
    """Do what is not done yet of the study in ``out`` and return its tables.

    Writes ``data/``, ``pretrained/``, ``runs/ARM-SEED/``, ``measures/`` and ``table.md``, of the arms that there are.

    Args:
        out: the study's folder.
        plan: how much of everything.
        only: what to do now: ``data``, arms, or arms with a seed, such as ``cal-40-0``; all by default.

    Raises:
        InputError: the folder holds a study of another plan, a name of no arm, templates that are no phantoms or share
            protocols with the test, fewer cases than the arms need, or a generator that is not trained.
    """
    chosen = _chosen(plan, only)
    study = DownstreamStudy(out, plan)
    study.prepare()
    for arm, seed in chosen:
        study.do(arm, seed)
    study.write_tables()
    return out / "table.md"


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
    """One study in one folder; see :func:`run_study`."""

    out: Path
    plan: DownstreamPlan

    @cached_property
    def cases(self) -> StudyCases:
        """What is learned from and judged on."""
        return StudyCases(Path(self.plan.data or self.out / DATA), self.plan)

    @cached_property
    def steps(self) -> Study:
        """What was done."""
        expected_s: dict[str, float] = {"draw phantoms": 120.0, "make cases": 480.0, "look at cases": 30.0}
        for seed, arm in product(self.plan.seeds, self.plan.arms.arms):
            whole_s, share = 0.15 * arm.steps_share * self.plan.steps, arm.pretrain_share if arm.pretraining else 0.0
            expected_s |= {f"pre-train {arm.pretraining}-{seed}": share * whole_s} if arm.pretraining else {}
            expected_s[f"train {arm.name}-{seed}"] = (1 - share) * whole_s
        identity = self.plan.model_dump(mode="json") | {"arms": self.plan.arms.model_dump(mode="json")}
        return Study(self.out, identity, expected_s)

    def step(self, name: str, work: Callable[..., object], *given: object) -> None:
        """Do a step that is not done yet."""
        again = f"python -m cardiosynth.experiments.downstream_study {self.out}"
        command = f"{again} --generator {self.plan.generator} --templates {self.plan.templates}"
        self.steps.step(name, command, partial(work, *given))

    def prepare(self) -> None:
        """Draw and make all cases, and look at them."""
        if not self.plan.real:
            self.step("draw phantoms", self.cases.draw)
        self.step("make cases", self.cases.make)
        self.step("look at cases", lambda: write_json(self._measures("images"), self.cases.look()))

    def do(self, arm: Arm, seed: int) -> None:
        """Train and judge an arm, and what it starts from."""
        if arm.pretraining:
            self.step(f"pre-train {arm.pretraining}-{seed}", self._pretrain, arm, seed)
        self.step(f"train {arm.name}-{seed}", self._train, arm, seed)

    def _pretrain(self, arm: Arm, seed: int) -> None:
        assert arm.source is not None, "only arms with a source are pre-trained"
        recipe, run = self.cases.recipe, self._pretrained(arm, seed)
        stage, learned = arm.staged(recipe.segmenter, self.plan.steps, seed), self.cases.read(arm.source, arm.count)
        train_segmenter(learned, run, stage.pretraining, recipe.intensity, label=f"pre-train {run.name}")
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
        train_segmenter(real, run, stage, recipe.intensity, mixed_with=mixed_with, init=start, label=label)
        write_json(self._measures(run.name), self._judge(run, self.cases.read("test")))

    def _judge(self, run: Path, cases: Dataset) -> Rows:
        """Return for every case and structure how well a run's segmenter finds it."""
        segmenter, rows = load_segmenter(run), []
        with Progress(f"judge {run.name}", len(cases)) as progress:
            for case in cases:
                found = compare_segmentation(predict_mask(segmenter, case).required_mask(), case)
                structures = {name: known_values(asdict(agreement)) for name, agreement in found.items()}
                rows.append({"case": case.case_id, "structures": structures})
                progress.update()
        return rows

    def write_tables(self) -> None:
        """Write the tables of what there is."""
        final, pretrained = {}, {}
        for arm, seed in product(self.plan.arms.arms, self.plan.seeds):
            file, before = self._measures(f"{arm.name}-{seed}"), self._measures(f"pre-{arm.pretraining}-{seed}")
            if file.exists():
                final.setdefault(arm.name, {})[seed] = read_json(file)
            if arm.pretraining and before.exists():
                pretrained.setdefault(arm.pretraining, {})[seed] = read_json(before)
        text = tables(self.plan.arms, final, pretrained, read_json(self._measures("images")))
        write_text(self.out / "table.md", text)

    def _pretrained(self, arm: Arm, seed: int) -> Path:
        return self.out / "pretrained" / f"{arm.pretraining}-{seed}"

    def _run(self, arm: Arm, seed: int) -> Path:
        return self.out / "runs" / f"{arm.name}-{seed}"

    def _measures(self, name: str) -> Path:
        return self.out / "measures" / f"{name}.json"


app = App(help=__doc__)


@app.default
def main(
    out: Path,
    /,
    *,
    generator: Path,
    templates: Path,
    real: Path | None = None,
    data: Path | None = None,
    protocol: str = DownstreamPlan.model_fields["protocol"].default,
    scale: float = 1.0,
    steps: int = DownstreamPlan.model_fields["steps"].default,
    seeds: Annotated[list[int] | None, Parameter(consume_multiple=True)] = None,
    only: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    changes: Annotated[list[str] | None, Parameter("--set", consume_multiple=False)] = None,
) -> None:
    """Run the study, or what is not done yet of it.

    Args:
        out: folder for everything.
        generator: run of a trained generator.
        templates: the phantoms it was trained on, or other cases with --real.
        real: dataset to split into real and test cases; phantoms by default.
        data: folder of the cases, which several studies may share; in OUT by default.
        protocol: which arms are compared.
        scale: factor on the protocol's numbers of cases.
        steps: optimizer steps of every arm.
        seeds: of the segmenters; 0 1 2 by default.
        only: what to do now: data, arms, or arms with a seed; all by default.
        changes: a.b=value settings of the recipe that differ.
    """
    plan = DownstreamPlan(
        generator=str(generator), templates=str(templates), real=None if real is None else str(real),
        data=None if data is None else str(data), protocol=protocol, scale=scale, steps=steps,
        seeds=tuple(seeds or (0, 1, 2)), changes=tuple(changes or ()),
    )  # fmt: skip
    print(run_study(out, plan, only or []).read_text())  # noqa: T201


if __name__ == "__main__":
    app()
