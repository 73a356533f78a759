"""One method of a comparison: trained on the training cases, asked for the held-out masks, and what that took."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from safetensors import safe_open

from cardiosynth.baselines.method import Method, Terms
from cardiosynth.core.store import checkpoints, read_json, read_rows, write_json
from cardiosynth.experiments.fqcdm_rows import Images
from cardiosynth.experiments.peer_plan import PeerCases, PeersPlan
from cardiosynth.experiments.study import Task
from cardiosynth.recipes.methods import find_method
from cardiosynth.sampling.generator import Generator
from cardiosynth.synthesis.run import synthesize
from cardiosynth.training.memory import PeakMemory

TRIAL_STEPS = 4, 20
"""Of two short trainings whose difference tells the time of a step."""


@dataclass(frozen=True)
class Arm:
    """A method, told of surroundings or not, and a seed.

    Attributes:
        out: the study's folder.
        plan: how much of everything.
        cases: of the study.
        method: its name.
        surroundings: whether they are in the masks that it learns from and is asked for.
        seed: of training and sampling.
        device: ``cpu`` or ``cuda``.
        again: returns the command that does a part of the study.
    """

    out: Path
    plan: PeersPlan
    cases: PeerCases
    method: str
    surroundings: bool
    seed: int
    device: str
    again: Callable[[str], str] = field(repr=False)

    @cached_property
    def of(self) -> Method:
        """The method."""
        return find_method(self.method)

    @property
    def title(self) -> str:
        """Of all seeds."""
        return self.method if self.surroundings else f"{self.method}-targets"

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.title}-{self.seed}"

    @property
    def names(self) -> set[str]:
        """All that ``--only`` may call it."""
        return {self.name, self.title, self.method, f"{self.method}-{self.seed}"}

    @property
    def run(self) -> Path:
        """Folder of its checkpoints."""
        return self.out / "runs" / self.name

    @property
    def images(self) -> Images:
        """Return the row: what is done for it, and where its images are."""
        seconds = self.plan.budget.seconds or 0.5 * (self.plan.budget.steps or 1000)
        tasks: list[Task] = []
        if self.plan.budget.seconds is not None:
            tasks.append(self._task("try", self._try, seconds / 20))
        tasks += [self._task("train", self._train, seconds), self._task("make", self._make, 60.0)]
        return Images(self.title, "noise", self.seed, tuple(tasks), self.out / "synthetic" / self.name)

    def _task(self, verb: str, work: Callable[[], object], expected_s: float) -> Task:
        name = self.title if verb == "try" else self.name
        return Task(f"{verb} {name}", self.again(self.name), work, expected_s)

    def terms(self, steps: int | None) -> Terms:
        """Return what the method is given."""
        return Terms(self.cases.shape, self.cases.scale, steps, self.seed, self.device)

    @property
    def steps(self) -> int | None:
        """Optimizer steps of its training; None for the size's own."""
        if self.plan.budget.seconds is None:
            return self.plan.budget.steps
        return self.plan.budget.affordable(read_json(self._trial)["seconds_per_step"])

    @property
    def _trial(self) -> Path:
        return self.out / "trials" / f"{self.title}.json"

    def _try(self) -> None:
        """Find out how long a step takes, so that a budget in seconds becomes one in steps."""
        spent = []
        for steps in TRIAL_STEPS:
            start = self._clock()
            self._generator(steps).fit(self.cases.training(self.surroundings), self._trial.with_suffix("") / str(steps))
            spent.append(self._clock() - start)
        per_step = (spent[1] - spent[0]) / (TRIAL_STEPS[1] - TRIAL_STEPS[0])
        write_json(self._trial, {"seconds_per_step": max(per_step, 1e-3), "seconds": sum(spent)})

    def _generator(self, steps: int | None) -> Generator:
        return self.of.build(self.plan.size, self.terms(steps))

    def trained(self) -> Generator:
        """Return the trained generator."""
        generator = self._generator(self.steps)
        generator.fit(self.cases.training(self.surroundings), self.run)
        return generator

    def _train(self) -> None:
        start, memory = self._clock(), PeakMemory(self.device)
        before = read_json(self._costs)["seconds"] if self._costs.exists() else 0.0
        try:
            self.trained()
        finally:
            # A training that is stopped goes on later; what it has taken so far counts.
            write_json(self._costs, {"seconds": before + self._clock() - start, "peak_memory_gb": memory.gb})

    def _make(self) -> None:
        count = len(self.cases.masks(self.surroundings))
        out, templates = self.out / "synthetic" / self.name, self.cases.part("train")
        given = (self.cases.masks(self.surroundings), templates, out, count, self.seed)
        synthesize(self.trained(), *given, template_settings=self.cases.templates)

    def _clock(self) -> float:
        return time.perf_counter() if self.device != "cpu" else time.process_time()

    @property
    def _costs(self) -> Path:
        return self.out / "costs" / f"{self.name}.json"

    def costs(self) -> dict[str, Any]:
        """Return ``seconds``, ``peak_memory_gb``, ``steps`` and ``weights`` of its training."""
        stages = [stage for stage in sorted(self.run.iterdir()) if checkpoints(stage)] if self.run.is_dir() else []
        newest = [checkpoints(stage)[-1] for stage in stages]
        steps = sum(int(read_json(path / "record.json")["step"]) for path in newest)
        weights = sum(map(_count, newest))
        return {**read_json(self._costs), "steps": steps or None, "weights": weights or None}


def _count(checkpoint: Path) -> int:
    """Return how many numbers a checkpoint's used weights hold; opponents are not among them."""
    total = 0
    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118  (no mapping)
            size = 1
            for n in file.get_slice(name).get_shape():
                size *= n
            total += size
    return total


def arms(out: Path, plan: PeersPlan, cases: PeerCases, device: str, again: Callable[[str], str]) -> list[Arm]:
    """Return everything that is compared, the seeds of a method after each other.

    A method that is told of the mask alone comes twice where cases have surroundings: with them and without.
    """
    found = []
    for name in plan.methods:
        method = find_method(name)
        twice = method.conditional and not method.told_of_template and cases.has_surroundings
        kinds, make = (True, False) if twice else (True,), partial(Arm, out, plan, cases, name)
        found += [make(kind, seed, device, again) for kind in kinds for seed in plan.seeds]
    return found


def time_per_case(out: Path, arm: Arm, count: int) -> float | None:
    """Return the seconds of the clock that a case took to be made; None where that is not known."""
    rows = [row for row in read_rows(out / "steps.jsonl") if row["step"] == f"make {arm.name}"]
    return sum(row["seconds"] for row in rows) / count if rows else None
