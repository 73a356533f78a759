"""The demo: every stage on built-in phantoms, then three segmenters for the same few annotated cases.

It need not show a gain; it must show the truth. What each step does by hand stands beside it in the report.
"""

from dataclasses import dataclass
from pathlib import Path

from cardiosynth.core.config import Settings, with_overrides
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.data.dataset import read_dataset
from cardiosynth.evaluation.results import read_results, write_results
from cardiosynth.experiments.cover import write_cover
from cardiosynth.experiments.findings import Arm, Findings, demo_results, with_times
from cardiosynth.experiments.study import Study, command_line
from cardiosynth.recipes.fcas import FcasRecipe
from cardiosynth.recipes.phantoms import Population, write_phantoms
from cardiosynth.recipes.registry import as_fcas, find_recipe
from cardiosynth.recipes.stages import STAGES, Earlier, Synthesis, generate_cases, train_stage, write_masks
from cardiosynth.report.html import write_report
from cardiosynth.segmentation.predictions import predict_dataset
from cardiosynth.segmentation.staged import FINETUNED, PRETRAINED, StagedTraining, train_staged
from cardiosynth.segmentation.task import SegmentationStage


class DemoPlan(Settings):
    """How much of everything, and how long each step takes on two quiet cores.

    Attributes:
        training: phantoms the generative model learns from.
        protocols: acquisition protocols of the training cases.
        real: annotated cases that the segmenters have, the 'few real cases'.
        test: cases nobody saw, two of each of their protocols, none of which the training cases have.
        synthetic: synthetic cases for the segmenters.
        pretrain_share: share of a segmenter's steps that is spent on synthetic cases (the papers': 800 of 1000 epochs).
        expected_s: seconds each step took when it was measured; only used to tell how much is left.
    """

    training: int
    protocols: int
    real: int
    test: int
    synthetic: int
    pretrain_share: float = 0.8
    expected_s: dict[str, float]


STEPS = (
    "draw phantoms", "train autoencoder", "train diffusion", "train control", "make masks", "synthesize for training",
    "synthesize for comparison", "train segmenter: real only", "train segmenter: synthetic",
    "train segmenter: synthetic + CAL", "segment the test cases", "evaluate",
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

FIRST_TEST = 10_000
FIRST_REAL = 20_000
"""Indices of patients that are in no other group."""


def run_demo(out: Path, recipe_name: str, seed: int = 0, device: str = "cpu") -> Path:
    """Run what is not done yet of the demo in ``out`` and return the report's path.

    Args:
        out: the demo's folder.
        recipe_name: one of ``PLANS``.
        seed: the run's seed.
        device: ``cpu`` or ``cuda``.

    Raises:
        InputError: a recipe without a plan, or a folder that holds something else.
    """
    if recipe_name not in PLANS:
        raise InputError(f"there is no demo for recipe '{recipe_name}'" + suggest(recipe_name, sorted(PLANS)))
    recipe = with_overrides(as_fcas(find_recipe(recipe_name)), seed_settings(seed)[1::2])
    return Demo(out, recipe, PLANS[recipe_name], seed, device).run()


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

    def run(self) -> Path:
        """Do what is not done yet, in order."""
        identity = {
            "recipe": self.recipe.model_dump(mode="json"),
            "plan": self.plan.model_dump(mode="json", exclude={"expected_s"}),
            "seed": self.seed,
        }
        study = Study(self.out, identity, self.plan.expected_s)
        self._draw_phantoms(study)
        self._train_generator(study)
        self._synthesize(study)
        self._train_segmenters(study)
        again = command_line("demo", self.out, "--recipe", self.recipe.name, "--seed", self.seed)
        study.step("segment the test cases", again, self._segment)
        study.step("evaluate", self._evaluation_command(), lambda: self._evaluate(study))
        return self._report(study)

    def data(self, name: str) -> Path:
        """Return where a dataset of the demo lies."""
        return self.out / "data" / name

    @property
    def generator(self) -> Path:
        """The run with the autoencoder, diffusion and control stages."""
        return self.out / "generator"

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The three ways to train a segmenter, all with the same number of optimizer steps."""
        return (
            Arm("real only", self.out / "segmenters" / "real-only"),
            Arm("synthetic", self.out / "segmenters" / "synthetic", pretrained=True, confidence=False),
            Arm("synthetic + CAL", self.out / "segmenters" / "synthetic-cal", pretrained=True),
        )

    def _populations(self) -> dict[str, Population]:
        shape, spacing, plan = self.recipe.grid.shape, self.recipe.grid.spacing_mm, self.plan
        seen = {"shape": shape, "spacing_mm": spacing, "seed": self.seed}
        held_out = max(1, plan.test // 2)
        return {
            "training": Population(plan.training, protocols=plan.protocols, **seen),
            "real": Population(plan.real, protocols=plan.protocols, first=FIRST_REAL, **seen),
            "test": Population(
                plan.test, protocols=held_out, first=FIRST_TEST, first_protocol=plan.protocols, **seen
            ),
        }  # fmt: skip

    def _draw_phantoms(self, study: Study) -> None:
        def work() -> None:
            for name, population in self._populations().items():
                write_phantoms(population, self.data(name), name)

        shape = " ".join(map(str, self.recipe.grid.shape))
        plan = self.plan
        words = ("phantom", self.data("training"), "--cases", plan.training, "--protocols", plan.protocols, "--shape")
        study.step("draw phantoms", f"{command_line(*words)} {shape} --seed {self.seed}", work)

    def _train_generator(self, study: Study) -> None:
        for stage in ("autoencoder", "diffusion", "control"):
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
            arms=self.arms,
            steps=self.recipe.segmenter.training.steps,
            pretrain_share=self.plan.pretrain_share,
            real=self.plan.real,
            seconds=sum(seconds for _, seconds, _ in study.times()),
        )
        write_cover(findings.test[0], findings.paired[0], self.out / "picture.png")
        write_results(demo_results(findings), self.out / "results.json")

    def _report(self, study: Study) -> Path:
        results = with_times(read_results(self.out / "results.json"), study.times())
        write_results(results, self.out / "results.json")
        write_report(results, self.out / "report.html", relative_to=self.out)
        return self.out / "report.html"
