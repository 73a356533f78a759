"""What FQCDM's tables compare, as values: named rows of images, each made by one method in one way with one seed.

A method is FQCDM or an ablation of it (Table 5): codec continuous or quantized, discriminator of patches alone or with
its edge branch. Each has three rows: ``reconstruction`` (encoded and decoded, nothing sampled), ``image`` (sampled from
a noised real image, Algorithm 1) and ``noise`` (sampled from noise, told of the mask alone). Only of the first can a
signal-to-noise ratio of 37 dB be true, and only the last is a synthetic patient. Beside them stand FQCDM trained by its
joint loss, and what bicubic interpolation alone brings back from a coarser grid.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

import pydantic

from cardiosynth.autoencoder.codec import load_codec
from cardiosynth.core.config import Settings, with_overrides
from cardiosynth.core.errors import InputError
from cardiosynth.data.dataset import Dataset, read_dataset
from cardiosynth.experiments.coded import write_bicubic, write_coded
from cardiosynth.experiments.study import Task, command_line
from cardiosynth.recipes.fqcdm import FqcdmRecipe
from cardiosynth.recipes.registry import find_recipe
from cardiosynth.recipes.stages import Earlier, Synthesis, generate_cases, train_stage

Start = Literal["reconstruction", "image", "noise"]
STARTS: tuple[Start, ...] = ("reconstruction", "image", "noise")
Stage = Literal["autoencoder", "diffusion", "joint"]
CODECS = {"continuous": ("autoencoder.network.codebook=null",), "quantized": ()}
OPPONENTS = {"patch": ("autoencoder.adversarial.kind=patch",), "dual": ()}
"""Settings in which an ablation differs from the recipe, which is FQCDM's."""
FQCDM = "quantized-dual"
JOINT = "quantized-dual-joint"
BICUBIC = {"bicubic-2x": 2, "bicubic-4x": 4}
"""Pixels of a slice's grid along each axis of one of the coarser grid."""
SLICES = "slices"
"""Folder of phantoms' slices in a study's."""
EXPECTED_S = {"autoencoder": 1.1, "diffusion": 0.7, "joint": 1.8, "reconstruction": 0.1, "image": 0.7, "noise": 0.7}
"""Per optimizer step or slice, of fqcdm/cpu on one core."""


class TablesPlan(Settings):
    """How much of everything.

    Attributes:
        data: real slices with the parts ``train``, ``validation`` and ``test``, as `prepare --split` writes them;
            `SLICES` in the study's folder is drawn, of phantoms.
        patients: phantoms that are drawn.
        recipe: of FQCDM.
        seeds: of autoencoder and denoiser.
        strength: time at which an image is noised; the cosine process then keeps as much of it, 0.364 of the variance,
            as DDPM's betas do after the published T of 100.
        judge_steps: optimizer steps of each segmenter that judges.
        changes: ``a.b=value`` settings of the recipe that differ.
    """

    data: str
    patients: int = pydantic.Field(default=60, ge=10)
    recipe: str = "fqcdm/cpu"
    seeds: tuple[int, ...] = (0, 1, 2)
    strength: float = pydantic.Field(default=0.588, gt=0, le=1)
    judge_steps: int = pydantic.Field(default=1000, ge=1)
    changes: tuple[str, ...] = ()


class Images(NamedTuple):
    """A named row: the slices that a method makes in one way for the masks of the test slices.

    Attributes:
        method: its name.
        start: in which way.
        seed: of its training.
        tasks: what is done for it, in order; the last one writes ``dataset``.
        dataset: folder of the slices, each naming the real one of its mask as ``reference``.
        codebook: run whose codes are counted; None where there are none.
        pairs_only: measure each slice beside its real one, and nothing of the set.
    """

    method: str
    start: Start
    seed: int
    tasks: tuple[Task, ...]
    dataset: Path
    codebook: Path | None = None
    pairs_only: bool = False

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.method}-{self.start}-{self.seed}"

    @property
    def names(self) -> set[str]:
        """All that ``--only`` may call it."""
        return {self.name, self.method, f"{self.method}-{self.start}", f"{self.method}-{self.seed}"}


def all_rows(out: Path, plan: TablesPlan, device: str) -> list[Images]:
    """Return everything that is compared.

    Whatever answers to the contract of generators joins here, under its name: a task that calls ``fit`` on the training
    slices, and one that lets ``synthesis.run.synthesize`` write its row ``noise``.
    """
    methods = [
        Ablation(out, plan, codec, opponent, seed, device)
        for seed, opponent, codec in product(plan.seeds, reversed(OPPONENTS), reversed(CODECS))
    ]
    methods += [Ablation(out, plan, "quantized", "dual", seed, device, jointly=True) for seed in plan.seeds]
    return [method.images(start) for method in methods for start in STARTS] + [
        _bicubic(out, plan, name) for name in BICUBIC
    ]


def _bicubic(out: Path, plan: TablesPlan, name: str) -> Images:
    """Return a row that nothing was trained for, which is why it has one seed."""
    made = out / "synthetic" / name

    def work() -> None:
        write_bicubic(read_dataset(plan.data).part("test"), BICUBIC[name], made)

    task = Task(f"make {name}", again(out, plan, name), work, 1.0)
    return Images(name, "reconstruction", plan.seeds[0], (task,), made, pairs_only=True)


@dataclass(frozen=True)
class Ablation:
    """One autoencoder and the denoiser of its latents, trained one after the other or ``jointly``.

    Attributes:
        out: the study's folder.
        plan: how much of everything.
        codec: of `CODECS`.
        opponent: of `OPPONENTS`.
        seed: of both trainings.
        device: ``cpu`` or ``cuda``.
        jointly: by the paper's joint loss (``train joint``) and not one after the other.
    """

    out: Path
    plan: TablesPlan
    codec: str
    opponent: str
    seed: int
    device: str
    jointly: bool = False

    @property
    def name(self) -> str:
        """Of the method."""
        return f"{self.codec}-{self.opponent}{'-joint' if self.jointly else ''}"

    @property
    def run(self) -> Path:
        """Folder of both stages."""
        return self.out / "runs" / f"{self.name}-{self.seed}"

    @property
    def settings(self) -> tuple[str, ...]:
        """How its recipe differs from the plan's."""
        trained = ("joint",) if self.jointly else ("autoencoder.training", "diffusion.training")
        seeds = (f"{place}.seed={self.seed}" for place in trained)
        return (*self.plan.changes, *CODECS[self.codec], *OPPONENTS[self.opponent], *seeds)

    @cached_property
    def recipe(self) -> FqcdmRecipe:
        """Its own.

        Raises:
            InputError: the plan's recipe is none of FQCDM.
        """
        recipe = with_overrides(find_recipe(self.plan.recipe), self.settings)
        if not isinstance(recipe, FqcdmRecipe):
            raise InputError(f"--recipe {self.plan.recipe} is not one of fqcdm; take fqcdm/cpu.")
        return recipe

    @cached_property
    def test(self) -> Dataset:
        """The slices whose masks get images."""
        return read_dataset(self.plan.data).part("test")

    def images(self, start: Start) -> Images:
        """Return a row. A reconstruction needs no denoiser, but one that is trained jointly is there already."""
        stages: tuple[Stage, ...] = ("autoencoder",) if start == "reconstruction" else ("autoencoder", "diffusion")
        stages = ("joint",) if self.jointly else stages
        tasks = (*(self._training(stage) for stage in stages), self._making(start))
        codebook = self.run if start == "reconstruction" and self.codec == "quantized" else None
        return Images(self.name, start, self.seed, tasks, self._made(start), codebook)

    def _training(self, stage: Stage) -> Task:
        data, recipe = Path(f"{self.plan.data}:train"), self.recipe
        work = partial(train_stage, stage, data, self.run, recipe, Earlier(), self.device, accept_verdict=True)
        words = ["train", stage, data, self.run, "--recipe", self.plan.recipe, "--accept-verdict"]
        words += [word for change in self.settings for word in ("--set", change)]
        steps = recipe.joint.steps if stage == "joint" else getattr(recipe, stage).training.steps
        name = f"train {stage} {self.name}-{self.seed}"
        return Task(name, command_line(*words, "--device", self.device), work, EXPECTED_S[stage] * steps)

    def _making(self, start: Start) -> Task:
        name, expected_s = f"make {self.name}-{start}-{self.seed}", EXPECTED_S[start] * len(self.test)
        if start == "reconstruction":
            return Task(name, again(self.out, self.plan, f"{self.name}-{start}"), self._write_coded, expected_s)
        request = self._request(start)
        return Task(name, request.command(self._made(start)), partial(self._write_sampled, start), expected_s)

    def _request(self, start: Start) -> Synthesis:
        test = Path(f"{self.plan.data}:test")
        settings = [f"sampler.start={start}", "sampler.confidence=null"]
        settings += [f"sampler.strength={self.plan.strength:g}"] if start == "image" else []
        return Synthesis(self.run, test, test, len(self.test), self.seed, device=self.device, overrides=tuple(settings))

    def _write_coded(self) -> None:
        write_coded(load_codec(self.run, self.device), self.test, self._made("reconstruction"))

    def _write_sampled(self, start: Start) -> None:
        generate_cases(self._request(start), self._made(start))

    def _made(self, start: Start) -> Path:
        return self.out / "synthetic" / f"{self.name}-{start}-{self.seed}"


def again(out: Path, plan: TablesPlan, only: str) -> str:
    """Return the command that does a row by hand, whatever the scale of the plan."""
    plain = TablesPlan(data=plan.data)
    numbers = ("patients", "recipe", "strength", "judge_steps")
    changed = [f"{name}={getattr(plan, name)}" for name in numbers if getattr(plan, name) != getattr(plain, name)]
    words = ["experiment", "fqcdm-table5", out, "--data", plan.data, "--seeds", len(plan.seeds)]
    words += [word for change in (*changed, *plan.changes) for word in ("--set", change)]
    return command_line(*words, "--only", only)
