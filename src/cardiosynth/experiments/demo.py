"""The demo: phantoms, masks, synthetic volumes, then segmenters for the same few annotated cases.

With the weights that are shipped it takes minutes; from scratch it trains every stage on built-in phantoms first. It
need not show a gain; it must show the truth. What each step does by hand stands beside it in the report.
"""

from dataclasses import dataclass
from pathlib import Path

from cardiosynth.core.config import Settings, with_overrides
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.store import latest_checkpoint, read_json
from cardiosynth.data.dataset import read_dataset
from cardiosynth.evaluation.results import read_results, write_results
from cardiosynth.experiments.cover import write_cover
from cardiosynth.experiments.findings import Arm, Findings, demo_results, with_times
from cardiosynth.experiments.study import Study, command_line
from cardiosynth.recipes.fcas import FcasRecipe
from cardiosynth.recipes.model_card import PACKED_STAGES
from cardiosynth.recipes.phantoms import Population, write_phantoms
from cardiosynth.recipes.registry import as_fcas, find_recipe
from cardiosynth.recipes.shipped import shipped_for
from cardiosynth.recipes.stages import STAGES, Earlier, Synthesis, generate_cases, train_stage, write_masks
from cardiosynth.report.html import write_report
from cardiosynth.segmentation.predictions import predict_dataset
from cardiosynth.segmentation.staged import FINETUNED, PRETRAINED, StagedTraining, train_staged
from cardiosynth.segmentation.task import SegmentationStage

ARMS = ("real only", "synthetic", "synthetic + CAL")
"""Ways to train a segmenter."""


class DemoPlan(Settings):
    """How much of everything, and how long each step takes on two quiet cores.

    Attributes:
        training: phantoms the generative model learns from; where it is given, those that masks and templates are of.
        protocols: acquisition protocols of the training cases.
        real: annotated cases that the segmenters have, the 'few real cases'.
        test: cases nobody saw, two of each of their protocols, none of which the training cases have.
        synthetic: synthetic cases for the segmenters.
        arms: which of ``ARMS`` are trained.
        pretrain_share: share of a segmenter's steps that is spent on synthetic cases (the papers': 800 of 1000 epochs).
        expected_s: seconds each step took when it was measured; only used to tell how much is left.
    """

    training: int
    protocols: int
    real: int
    test: int
    synthetic: int
    arms: tuple[str, ...] = ARMS
    pretrain_share: float = 0.8
    expected_s: dict[str, float]


TRAINED = ("autoencoder", "diffusion", "control")
"""Stages of a generator."""
STEPS = (
    "draw phantoms", *(f"train {stage}" for stage in TRAINED), "make masks", "synthesize for training",
    "synthesize for comparison", *(f"train segmenter: {arm}" for arm in ARMS), "segment the test cases", "evaluate",
)  # fmt: skip

PLANS = {
    "fcas/demo": DemoPlan(
        training=72, protocols=18, real=4, test=8, synthetic=32,
        expected_s=dict(zip(STEPS, (48, 320, 55, 450, 12, 31, 8, 61, 65, 65, 10, 30), strict=True)),
    ),
    "fcas/tiny": DemoPlan(
        training=4, protocols=2, real=2, test=2, synthetic=2,
        expected_s=dict(zip(STEPS, (3, 2, 2, 3, 1, 2, 2, 2, 3, 3, 1, 2), strict=True)),
    ),
}  # fmt: skip

SHORT_STEPS = tuple(
    step for step in STEPS if step not in {f"train {s}" for s in TRAINED} and step != "train segmenter: synthetic"
)
SHORT_PLANS = {
    "fcas/demo": DemoPlan(
        training=18, protocols=18, real=4, test=8, synthetic=16, arms=("real only", "synthetic + CAL"),
        expected_s=dict(zip(SHORT_STEPS, (17, 6, 16, 8, 61, 65, 7, 42), strict=True)),
    ),
    "fcas/tiny": DemoPlan(
        training=4, protocols=2, real=2, test=2, synthetic=2, arms=("real only", "synthetic + CAL"),
        expected_s=dict(zip(SHORT_STEPS, (3, 1, 2, 2, 2, 3, 1, 2), strict=True)),
    ),
}  # fmt: skip
"""With a generator that is trained already."""

FIRST_TEST, FIRST_TEST_PROTOCOL = 40_000, 2_000
"""Patients and protocols on which nothing was chosen. Those from 10,000 on, of the protocols after the training's, are
the ones that recipes were tuned on: numbers on them are too good."""
FIRST_REAL = 20_000
"""Index of the first of the few annotated patients, who are in no other group."""


def run_demo(out: Path, recipe_name: str, seed: int = 0, device: str = "cpu", generator: Path | None = None) -> Path:
    """Run what is not done yet of the demo in ``out`` and return the report's path.

    Args:
        out: the demo's folder.
        recipe_name: one of ``PLANS``.
        seed: the run's seed.
        device: ``cpu`` or ``cuda``.
        generator: a run of this recipe that is trained already; None trains one.

    Raises:
        InputError: a recipe without a plan, or a folder that holds something else.
    """
    plan = _plan(recipe_name, PLANS if generator is None else SHORT_PLANS)
    recipe = with_overrides(as_fcas(find_recipe(recipe_name)), seed_settings(seed)[1::2])
    return Demo(out, recipe, plan, seed, device, generator).run()


def shipped_generator(recipe_name: str) -> Path:
    """Return the run that is shipped for a recipe.

    Raises:
        InputError: a recipe without a demo, or one for which no weights are shipped.
    """
    _plan(recipe_name, SHORT_PLANS)
    found = shipped_for(recipe_name)
    if found is None:
        raise InputError(f"no weights are shipped for {recipe_name}; train them in the demo with --from-scratch.")
    return found


def _plan(recipe_name: str, plans: dict[str, DemoPlan]) -> DemoPlan:
    if recipe_name not in plans:
        raise InputError(f"there is no demo for recipe '{recipe_name}'" + suggest(recipe_name, sorted(plans)))
    return plans[recipe_name]


def seed_settings(seed: int) -> list[str]:
    """Return the words of a ``train`` command that give every stage another seed than the recipes' 0."""
    stages = [stage for stage in STAGES if stage in FcasRecipe.model_fields]
    return [word for stage in stages for word in ("--set", f"{stage}.training.seed={seed}")] if seed else []


@dataclass(frozen=True)
class Demo:
    """One demo in one folder; see :func:`run_demo`."""

    out: Path
    recipe: FcasRecipe
    plan: DemoPlan
    seed: int
    device: str
    given: Path | None = None

    def run(self) -> Path:
        """Do what is not done yet, in order."""
        identity = {
            "recipe": self.recipe.model_dump(mode="json"),
            "plan": self.plan.model_dump(mode="json", exclude={"expected_s"}),
            "seed": self.seed,
            **({} if self.given is None else {"generator": self._checkpoints(self.given)}),
        }
        study = Study(self.out, identity, self.plan.expected_s)
        self._draw_phantoms(study)
        if self.given is None:
            self._train_generator(study)
        self._synthesize(study)
        self._train_segmenters(study)
        scratch = ("--from-scratch",) if self.given is None else ()
        again = command_line("demo", self.out, "--recipe", self.recipe.name, "--seed", self.seed, *scratch)
        study.step("segment the test cases", again, self._segment)
        study.step("evaluate", self._evaluation_command(), lambda: self._evaluate(study))
        return self._report(study)

    def data(self, name: str) -> Path:
        """Return where a dataset of the demo lies."""
        return self.out / "data" / name

    @property
    def generator(self) -> Path:
        """The run that makes the images."""
        return self.given or self.out / "generator"

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The ways to train a segmenter, all with the same number of optimizer steps."""
        known = (
            Arm("real only", self.out / "segmenters" / "real-only"),
            Arm("synthetic", self.out / "segmenters" / "synthetic", pretrained=True, confidence=False),
            Arm("synthetic + CAL", self.out / "segmenters" / "synthetic-cal", pretrained=True),
        )
        return tuple(arm for arm in known if arm.name in self.plan.arms)

    @staticmethod
    def _checkpoints(run: Path) -> dict[str, str]:
        """Return the fingerprints of a run's stages."""
        stages = [run / stage for stage in PACKED_STAGES if (run / stage).is_dir()]
        return {stage.name: read_json(latest_checkpoint(stage) / "record.json")["fingerprint"] for stage in stages}

    def populations(self) -> dict[str, Population]:
        """Return which phantoms are drawn, by the name of their dataset."""
        shape, spacing, plan = self.recipe.grid.shape, self.recipe.grid.spacing_mm, self.plan
        seen = {"shape": shape, "spacing_mm": spacing, "seed": self.seed}
        held_out = max(1, plan.test // 2)
        return {
            "training": Population(plan.training, protocols=plan.protocols, **seen),
            "real": Population(plan.real, protocols=plan.protocols, first=FIRST_REAL, **seen),
            "test": Population(
                plan.test, protocols=held_out, first=FIRST_TEST, first_protocol=FIRST_TEST_PROTOCOL, **seen
            ),
        }  # fmt: skip

    def _draw_phantoms(self, study: Study) -> None:
        def work() -> None:
            for name, population in self.populations().items():
                write_phantoms(population, self.data(name), name)

        commands = [self.drawing_command(name, population) for name, population in self.populations().items()]
        study.step("draw phantoms", " && ".join(commands), work)

    def drawing_command(self, name: str, population: Population) -> str:
        """Return the command that draws one of them by hand."""
        first = ("--first", population.first, "--first-protocol", population.first_protocol)
        words = ("--cases", population.count, "--protocols", population.protocols, *first, "--seed", self.seed)
        grid = ("--spacing-mm", self.recipe.grid.spacing_mm[0], "--shape", *self.recipe.grid.shape)
        return command_line("phantom", self.data(name), *words, *grid)

    def _train_generator(self, study: Study) -> None:
        for stage in TRAINED:
            words = ("train", stage, self.data("training"), self.generator, "--recipe", self.recipe.name)
            words += tuple(seed_settings(self.seed))
            study.step(f"train {stage}", command_line(*words), lambda stage=stage: self._train(stage))

    def _train(self, stage: str) -> None:
        train_stage(stage, self.data("training"), self.generator, self.recipe, Earlier(), self.device)

    def _synthesize(self, study: Study) -> None:
        training, masks, test, count = self.data("training"), self.data("masks"), self.data("test"), self.plan.synthetic
        words = ("masks", training, masks, "--cases", count, "--seed", self.seed, "--recipe", self.recipe.name)
        study.step(
            "make masks",
            command_line(*words),
            lambda: write_masks(training, masks, count, self.seed, self.recipe.masks),
        )
        for_training = Synthesis(self.generator, training, masks, count, self.seed, device=self.device)
        for_comparison = Synthesis(
            self.generator, test, test, self.plan.test, self.seed, device=self.device, template="same_acquisition"
        )
        for purpose, name, request in (
            ("training", "synthetic", for_training),
            ("comparison", "paired", for_comparison),
        ):
            study.step(
                f"synthesize for {purpose}",
                request.command(self.data(name)),
                lambda name=name, request=request: generate_cases(request, self.data(name)),
            )

    def _train_segmenters(self, study: Study) -> None:
        for arm in self.arms:
            name = f"train segmenter: {arm.name}"
            study.step(name, self.training_commands(arm), lambda arm=arm: self._train_arm(arm))

    def staged(self, arm: Arm) -> StagedTraining:
        """Return how an arm is trained; where nothing is pre-trained, its ``stage`` is all."""
        confidence = self.recipe.segmenter.confidence if arm.confidence else None
        stage = self.recipe.segmenter.model_copy(update={"confidence": confidence})
        return StagedTraining(stage=stage, pretrain_share=self.plan.pretrain_share)

    def _train_arm(self, arm: Arm) -> None:
        synthetic = read_dataset(self.data("synthetic")) if arm.pretrained else None
        real, scale = read_dataset(self.data("real")), self.recipe.intensity
        train_staged(synthetic, real, arm.run, self.staged(arm), scale, device=self.device)

    def training_commands(self, arm: Arm) -> str:
        """Return the commands that train an arm by hand."""
        staged, first, last = self.staged(arm), arm.run / PRETRAINED, arm.run / FINETUNED
        parts = [("synthetic", first, staged.pretraining), ("real", last, staged.finetuning)]
        commands, start = [], ()
        for data, run, stage in parts if arm.pretrained else [("real", last, staged.stage)]:
            words = ("train", "segmenter", self.data(data), run, "--recipe", self.recipe.name)
            commands.append(command_line(*words, *self._changes(stage), *start))
            start = ("--init", run)
        return " && ".join(commands)

    def _changes(self, stage: SegmentationStage) -> list[str]:
        """Return how a stage's settings differ from those of the recipe, the seed included, as words of a command."""
        lengths = {f"training.{name}": getattr(stage.training, name) for name in ("steps", "warmup_steps")}
        changes = lengths | ({} if stage.confidence else {"confidence": "null"})
        words = [word for name, value in changes.items() for word in ("--set", f"segmenter.{name}={value}")]
        return [*words, *seed_settings(self.seed)]

    def _segment(self) -> None:
        test = read_dataset(self.data("test"))
        for arm in self.arms:
            predict_dataset(arm.run, test, arm.predictions, device=self.device, name=f"{arm.name}, predicted")

    def _evaluation_command(self) -> str:
        words = ("evaluate", self.data("test"), self.data("paired"), "--out", self.out / "paired.json")
        return command_line(*words)

    def _evaluate(self, study: Study) -> None:
        findings = Findings(
            out=self.out,
            test=read_dataset(self.data("test")),
            paired=read_dataset(self.data("paired")),
            synthetic=read_dataset(self.data("synthetic")),
            masks=read_dataset(self.data("masks")),
            sources=read_dataset(self.data("training")),
            generator=self.generator,
            shipped=self.given is not None,
            left_out=self._left_out(),
            arms=self.arms,
            steps=self.recipe.segmenter.training.steps,
            pretrain_share=self.plan.pretrain_share,
            real=self.plan.real,
            seconds=sum(seconds for _, seconds, _ in study.times()),
        )
        write_cover(findings.test[0], findings.paired[0], self.out / "picture.png")
        write_results(demo_results(findings), self.out / "results.json")

    def _left_out(self) -> str:
        """Say what a demo with a given generator lacks beside one from scratch; nothing where it lacks nothing."""
        if self.given is None:
            return ""
        whole, plan = PLANS[self.recipe.name], self.plan
        arms = [arm for arm in whole.arms if arm not in plan.arms]
        fewer = (
            f"{plan.synthetic} synthetic cases and not {whole.synthetic}, " if plan.synthetic < whole.synthetic else ""
        )
        return (
            f"Left out to be quick: the training of the generator, {fewer}and the segmenter{'s' * (len(arms) > 1)} "
            f"'{', '.join(arms)}'. `cardiosynth demo OUT --from-scratch` does all of it."
        )

    def _report(self, study: Study) -> Path:
        results = with_times(read_results(self.out / "results.json"), study.times())
        write_results(results, self.out / "results.json")
        write_report(results, self.out / "report.html", relative_to=self.out)
        return self.out / "report.html"
