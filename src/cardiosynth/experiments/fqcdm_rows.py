"""What FQCDM's tables compare, as values: named rows of images, each made by one method in one way with one seed.

A method is FQCDM or an ablation of it (Table 5): codec continuous or quantized, discriminator of patches alone or with
its edge branch. Each has three rows: ``reconstruction`` (encoded and decoded, nothing sampled), ``image`` (sampled from
a noised real image, Algorithm 1) and ``noise`` (sampled from noise, told of the mask alone). Only of the first can a
signal-to-noise ratio of 37 dB be true, and only the last is a synthetic patient.
"""

import shlex
from collections.abc import Callable
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
from cardiosynth.experiments.coded import write_coded
from cardiosynth.experiments.study import command_line
from cardiosynth.recipes.fqcdm import FqcdmRecipe
from cardiosynth.recipes.registry import find_recipe
from cardiosynth.recipes.stages import Earlier, Synthesis, generate_cases, train_stage

Start = Literal["reconstruction", "image", "noise"]
STARTS: tuple[Start, ...] = ("reconstruction", "image", "noise")
CODECS = {"continuous": ("autoencoder.network.codebook=null",), "quantized": ()}
OPPONENTS = {"patch": ("autoencoder.adversarial.kind=patch",), "dual": ()}
"""Settings in which an ablation differs from the recipe, which is FQCDM's."""
FQCDM = "quantized-dual"
EXPECTED_S = {"autoencoder": 1.1, "diffusion": 0.7, "reconstruction": 0.1, "image": 0.7, "noise": 0.7}
"""Per optimizer step or slice, of fqcdm/cpu on one core."""


class TablesPlan(Settings):
    """How much of everything.

    Attributes:
        data: real slices with the parts ``train``, ``validation`` and ``test``, as `prepare --split` writes them.
        recipe: of FQCDM.
        seeds: of autoencoder and denoiser.
        strength: time at which an image is noised; the cosine process then keeps as much of it, 0.364 of the variance,
            as DDPM's betas do after the published T of 100.
        judge_steps: optimizer steps of each segmenter that judges.
        changes: ``a.b=value`` settings of the recipe that differ.
    """

    data: str
    recipe: str = "fqcdm/cpu"
    seeds: tuple[int, ...] = (0, 1, 2)
    strength: float = pydantic.Field(default=0.588, gt=0, le=1)
    judge_steps: int = pydantic.Field(default=1000, ge=1)
    changes: tuple[str, ...] = ()


class Task(NamedTuple):
    """A step of the study. Rows that share one name it alike, and it is done once.

    Attributes:
        name: of the step.
        command: that does the same by hand.
        work: does it.
        expected_s: how long it takes, to tell how much is left.
    """

    name: str
    command: str
    work: Callable[[], object]
    expected_s: float


class Images(NamedTuple):
    """A named row: the slices that a method makes in one way for the masks of the test slices.

    Attributes:
        method: its name.
        start: in which way.
        seed: of its training.
        tasks: what is done for it, in order; the last one writes ``dataset``.
        dataset: folder of the slices, each naming the real one of its mask as ``reference``.
        codebook: run whose codes are counted; None where there are none.
    """

    method: str
    start: Start
    seed: int
    tasks: tuple[Task, ...]
    dataset: Path
    codebook: Path | None = None

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
    return [method.images(start) for method in methods for start in STARTS]


@dataclass(frozen=True)
class Ablation:
    """One autoencoder and the denoiser of its latents.

    Attributes:
        out: the study's folder.
        plan: how much of everything.
        codec: of `CODECS`.
        opponent: of `OPPONENTS`.
        seed: of both trainings.
        device: ``cpu`` or ``cuda``.
    """

    out: Path
    plan: TablesPlan
    codec: str
    opponent: str
    seed: int
    device: str

    @property
    def name(self) -> str:
        """Of the method."""
        return f"{self.codec}-{self.opponent}"

    @property
    def run(self) -> Path:
        """Folder of both stages."""
        return self.out / "runs" / f"{self.name}-{self.seed}"

    @property
    def settings(self) -> tuple[str, ...]:
        """How its recipe differs from the plan's."""
        seeds = (f"autoencoder.training.seed={self.seed}", f"diffusion.training.seed={self.seed}")
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
        """Return a row. A reconstruction needs no denoiser."""
        stages = ("autoencoder",) if start == "reconstruction" else ("autoencoder", "diffusion")
        tasks = (*(self._training(stage) for stage in stages), self._making(start))
        codebook = self.run if start == "reconstruction" and self.codec == "quantized" else None
        return Images(self.name, start, self.seed, tasks, self._made(start), codebook)

    def _training(self, stage: Literal["autoencoder", "diffusion"]) -> Task:
        data, recipe = Path(f"{self.plan.data}:train"), self.recipe
        work = partial(train_stage, stage, data, self.run, recipe, Earlier(), self.device, accept_verdict=True)
        words = ["train", stage, data, self.run, "--recipe", self.plan.recipe, "--accept-verdict"]
        words += [word for change in self.settings for word in ("--set", change)]
        steps = getattr(recipe, stage).training.steps
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


def again(out: Path, plan: TablesPlan, only: str | None = None) -> str:
    """Return the command that does a study, or a part of it."""
    words = ["python", "-m", "cardiosynth.experiments.fqcdm_tables", out, "--data", plan.data, "--recipe", plan.recipe]
    words += ["--seeds", len(plan.seeds), "--strength", plan.strength, "--judge-steps", plan.judge_steps]
    words += [word for change in plan.changes for word in ("--set", change)]
    return shlex.join(map(str, [*words, *(["--only", only] if only else [])]))
