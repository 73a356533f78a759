"""FQCDM's three strategies: what synthetic slices are worth beside real ones, in ever new proportions.

Mixed with real slices, alone, painted before real slices are learned (in-painting), with augmentation and without. All
arms take as many optimizer steps, and all are judged on the same test patients: slices put together to volumes, and
slice by slice. The data are split by patient; the paper divides slices.

``cardiosynth experiment fqcdm-table4 OUT`` (or ``fqcdm-figure4``, ``-figure5``, ``-figure6``) runs it. ``--only`` names
the cells to do now, and several processes may share the rest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydantic
from jaxtyping import UInt8

from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings, with_overrides
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.progress import Progress
from cardiosynth.core.random import named_seed
from cardiosynth.core.store import read_json, write_json
from cardiosynth.data.dataset import Dataset, read_dataset
from cardiosynth.data.preparation import suited_scale
from cardiosynth.data.splits import patient_of
from cardiosynth.data.stacking import by_volume, stacked
from cardiosynth.evaluation.results import Results
from cardiosynth.evaluation.segmentations import compare_segmentation
from cardiosynth.experiments.phantom_slices import write_phantom_slices
from cardiosynth.experiments.request import Request
from cardiosynth.experiments.strategies import PAINTING_SHARE, STRATEGIES, Arm, Network
from cardiosynth.experiments.strategy_tables import strategy_results
from cardiosynth.experiments.study import Study, Task
from cardiosynth.experiments.trained import slice_generator_tasks
from cardiosynth.metrics.overlap import dice
from cardiosynth.recipes.recipe import Recipe
from cardiosynth.recipes.registry import find_recipe
from cardiosynth.recipes.stages import Synthesis, generate_cases
from cardiosynth.segmentation.augmentation import GEOMETRIC, NONE
from cardiosynth.segmentation.inpainting import InpaintingStage, segmenter_start, train_inpainting
from cardiosynth.segmentation.networks import target_classes
from cardiosynth.segmentation.predict import load_segmenter, predict_mask
from cardiosynth.segmentation.staged import of_length
from cardiosynth.segmentation.task import SegmentationStage, train_segmenter


class StrategyPlan(Settings):
    """How much of everything.

    Attributes:
        data: real slices with the parts ``train`` and ``test``, as `prepare --slices --split` writes them; None draws
            those of phantoms.
        patients: phantoms that are drawn.
        generator: run of a trained FQCDM that makes the synthetic slices; None trains one on the part ``train``.
        synthetic: synthetic slices; of no test patient's mask. None makes them.
        strategies: of `STRATEGIES`.
        networks: which segmenters.
        recipe: its segmenter is trained, and its generator; its intensities are those of the data.
        scale: factor on the numbers of slices of the arms.
        ratio: synthetic slices for each real one, in arms that say no number.
        steps: optimizer steps of every arm.
        seeds: of the segmenters; the slices are the same for all.
        changes: ``segmenter.b=value`` settings of the recipe that differ.
    """

    data: str | None = None
    patients: int = pydantic.Field(default=60, ge=10)
    generator: str | None = None
    synthetic: str | None = None
    strategies: tuple[str, ...] = ("table-4",)
    networks: tuple[Network, ...] = ("unet",)
    recipe: str = "fqcdm/cpu"
    scale: float = pydantic.Field(default=1.0, gt=0, le=1)
    ratio: float = pydantic.Field(default=1.0, gt=0)
    steps: int = pydantic.Field(default=900, ge=4)
    seeds: tuple[int, ...] = (0, 1, 2)
    changes: tuple[str, ...] = ()

    @pydantic.field_validator("strategies")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in STRATEGIES:
                raise ValueError(f"'{name}' is no strategy" + suggest(name, list(STRATEGIES)))
        return names

    @property
    def arms(self) -> dict[str, Arm]:
        """All arms by name; one that stands in several strategies is trained once."""
        return {arm.name: arm.scaled(self.scale) for name in self.strategies for arm in STRATEGIES[name].arms}


class Cell(NamedTuple):
    """One segmenter of the study."""

    arm: Arm
    network: Network
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.arm.name}-{self.network}-{self.seed}"

    @property
    def painter(self) -> str:
        """Of the folder of what it starts from; shared by all that paint as much."""
        return f"painter-{self.arm.painted}-{self.network}-{self.seed}"


def experiment(request: Request) -> Results:
    """Run the study as it was asked for."""
    data = None if request.data is None else str(request.data)
    generator = None if request.generator is None else str(request.generator)
    study = StrategyStudy(
        request.out, request.plan(StrategyPlan, data=data, generator=generator), request.device, request.command
    )
    return study.run(request.only).model_copy(update={"title": request.experiment.title})


def _chosen(plan: StrategyPlan, only: Sequence[str]) -> list[Cell]:
    cells = [Cell(arm, network, seed) for seed, network, arm in product(plan.seeds, plan.networks, plan.arms.values())]
    names = {cell.name for cell in cells} | plan.arms.keys()
    for name in only:
        if name not in names:
            raise InputError(f"--only {name}" + suggest(name, sorted(names)))
    return [cell for cell in cells if not only or cell.name in only or cell.arm.name in only]


@dataclass(frozen=True)
class StrategyStudy:
    """One study in one folder.

    Writes ``slices/``, ``generator/`` and ``synthetic/`` where they are not given, ``runs/CELL`` and
    ``measures/CELL.json``.

    Attributes:
        out: the folder.
        plan: how much of everything.
        device: ``cpu`` or ``cuda``.
        again: returns the command that does parts of it.
    """

    out: Path
    plan: StrategyPlan
    device: str = "cpu"
    again: Callable[..., str] = lambda *only: ""

    def run(self, only: Sequence[str] = ()) -> Results:
        """Do what is not done yet and return what was found, of the cells that there are.

        Args:
            only: what to do now: cells such as ``real-unet-0``, or arms; all by default.

        Raises:
            InputError: the folder holds a study of another plan, a name of no cell, too few slices, or synthetic slices
                of test patients.
        """
        cells = _chosen(self.plan, only)
        for cell in cells:
            self.do(cell)
        return self.results()

    @cached_property
    def recipe(self) -> Recipe:
        """As the plan changes it."""
        return with_overrides(find_recipe(self.plan.recipe), self.plan.changes)

    @cached_property
    def steps(self) -> Study:
        """What was done."""
        expected_s = {task.name: task.expected_s for task in self._preparing}
        for cell in _chosen(self.plan, ()):
            if cell.arm.painted:
                expected_s[f"train {cell.painter}"] = 0.1 * PAINTING_SHARE * self.plan.steps
            expected_s[f"train {cell.name}"] = 0.1 * self.plan.steps
        # Cells of one seed know nothing of others, so that seeds can be added later.
        return Study(self.out, self.plan.model_dump(mode="json", exclude={"seeds"}), expected_s)

    def do(self, cell: Cell) -> None:
        """Train and judge one segmenter, and first what it needs and what it starts from."""
        made = cell.arm.synthetic != 0 or cell.arm.painted
        self.steps.do(*(self._preparing if made else self._drawing))
        command = self.again(cell.name)
        if cell.arm.painted:
            self.steps.step(f"train {cell.painter}", command, partial(self._paint, cell))
        self.steps.step(f"train {cell.name}", command, partial(self._train, cell))

    @property
    def _data(self) -> Path:
        return Path(self.plan.data or self.out / "slices")

    @property
    def _drawing(self) -> tuple[Task, ...]:
        """Draw slices of phantoms, where none are given."""
        if self.plan.data:
            return ()
        work = partial(write_phantom_slices, self._data, self.plan.patients, self.recipe.shape[0])
        return (Task("draw slices", self.again(), work, 2.0 * self.plan.patients),)

    @property
    def _preparing(self) -> tuple[Task, ...]:
        """All steps to synthetic slices, where none are given."""
        if self.plan.synthetic:
            return self._drawing
        plan, train = self.plan, Path(f"{self._data}:train")
        run = Path(plan.generator or self.out / "generator")
        trained = slice_generator_tasks(train, run, self.recipe, self.device, plan.changes)
        tasks = () if plan.generator else trained
        making = Task("make slices", self.again(), partial(self._make, train, run), 600.0)
        return (*self._drawing, *tasks, making)

    def _make(self, train: Path, run: Path) -> None:
        """Make as many slices for the masks of the training patients as any arm wants."""
        wanted = [n for arm in self.plan.arms.values() for n in (arm.synthetic, arm.painted)]
        count = max(round(self.plan.ratio * len(self.real)) if n is None else n for n in wanted)
        settings = ("sampler.confidence=null",)
        request = Synthesis(run, train, train, count, 0, device=self.device, overrides=settings)
        generate_cases(request, self.out / "synthetic")

    # -----------------------------------------------------------------------------------------------------------
    # Slices.

    @cached_property
    def real(self) -> Dataset:
        """All real slices to learn from."""
        return read_dataset(self._data).part("train")

    @cached_property
    def test(self) -> Dataset:
        """Slices of the patients that all arms are judged on."""
        return read_dataset(self._data).part("test")

    @cached_property
    def synthetic(self) -> Dataset:
        """All synthetic slices."""
        found = read_dataset(self.plan.synthetic or self.out / "synthetic")
        tested = {patient_of(i) for i in self.test.case_ids}
        for case_id, row in found.rows.items():
            facts = row["provenance"]
            for origin in (*facts.get("parents", ()), facts.get("reference"), facts.get("template")):
                if origin is not None and patient_of(str(origin)) in tested:
                    raise InputError(
                        f"{found.root}: {case_id} was made from {origin}, a test patient; make slices for the masks of "
                        f"{self._data}:train."
                    )
        return found

    @cached_property
    def scale(self) -> IntensityScale:
        """How all segmenters see intensities."""
        return suited_scale(self.real)

    def real_slices(self, arm: Arm) -> Dataset:
        """Return the real slices of an arm; those of fewer are among those of more."""
        return some(self.real, len(self.real) if arm.real is None else arm.real)

    def synthetic_slices(self, count: int | None) -> Dataset:
        """Return so many synthetic slices, None for the plan's ratio to all real ones; fewer are among more."""
        return some(self.synthetic, round(self.plan.ratio * len(self.real)) if count is None else count)

    # -----------------------------------------------------------------------------------------------------------
    # Training.

    def stage(self, cell: Cell) -> SegmentationStage:
        """Return how a cell is trained, all its steps together."""
        base = self.recipe.segmenter
        network = base.network.model_copy(update={"kind": cell.network})
        augmentation = GEOMETRIC if cell.arm.augmented else NONE
        changed = base.model_copy(update={"network": network, "augmentation": augmentation, "confidence": None})
        return of_length(changed, round(cell.arm.steps_share * self.plan.steps), seed=cell.seed)

    def _paint(self, cell: Cell) -> None:
        stage = of_length(self.stage(cell), self._painting_steps)
        painting = InpaintingStage(network=stage.network, crop=stage.crop, augmentation=NONE, training=stage.training)
        slices = self.synthetic_slices(cell.arm.painted)
        train_inpainting(slices, self._run(cell.painter), painting, self.scale, device=self.device, label=cell.painter)

    @property
    def _painting_steps(self) -> int:
        return round(PAINTING_SHARE * self.plan.steps)

    def _train(self, cell: Cell) -> None:
        arm, stage, run = cell.arm, self.stage(cell), self._run(cell.name)
        datasets = [self.real_slices(arm)] if arm.real != 0 else []
        datasets += [self.synthetic_slices(arm.synthetic)] if arm.synthetic != 0 else []
        init = None
        if arm.painted:
            stage = of_length(stage, stage.training.steps - self._painting_steps)
            classes, file = target_classes(self.real.labels), run / "start.safetensors"
            init = segmenter_start(self._run(cell.painter), file, stage.network, classes, self.scale, cell.seed)
        first, *others = datasets
        train_segmenter(
            first, run, stage, self.scale, mixed_with=others, init=init, device=self.device, label=f"train {cell.name}"
        )
        write_json(self._measures(cell.name), judge(run, self.test, self.device))

    def _run(self, name: str) -> Path:
        return self.out / "runs" / name

    def _measures(self, name: str) -> Path:
        return self.out / "measures" / f"{name}.json"

    def results(self) -> Results:
        """Return what was found, of what there is."""
        found: dict[Network, dict[str, dict[int, Any]]] = {}
        for arm, network, seed in _chosen(self.plan, ()):
            file = self._measures(Cell(arm, network, seed).name)
            if file.exists():
                found.setdefault(network, {}).setdefault(arm.name, {})[seed] = read_json(file)
        strategies = {name: STRATEGIES[name] for name in self.plan.strategies}
        volumes = by_volume(self.test)
        patients = {patient_of(case_id) for case_id in self.test.case_ids}
        test = f"{len(volumes)} test volumes of {len(patients)} patients"
        shown = strategy_results(strategies, found, self.plan.steps, test)
        return shown.model_copy(update={"stages": self.steps.stages()})


def some(slices: Dataset, count: int) -> Dataset:
    """Return ``count`` slices, in the order of the hash of their names, so that fewer are among more.

    Raises:
        InputError: there are not so many.
    """
    if count > len(slices):
        raise InputError(
            f"{slices.root} has {len(slices)} slices and {count} are wanted; make more, or use other arms."
        )
    order = sorted(slices.case_ids, key=lambda case_id: (named_seed(0, "slices", case_id), case_id))
    return slices.subset(order[:count])


def judge(run: Path, test: Dataset, device: str = "cpu") -> dict[str, list[dict[str, Any]]]:
    """Return how well a run's segmenter finds each structure: ``volumes``, of slices put together, and ``slices``.

    Each is a list of rows with ``case``, ``patient`` and ``structures``: by name ``dice``, of volumes also
    ``hausdorff95_mm``. What is not known is None.
    """
    segmenter, rows = load_segmenter(run, device), []
    volumes = by_volume(test)
    predicted: dict[str, list] = {}
    with Progress(f"judge {run.name}", len(test)) as progress:
        for volume, true in volumes.items():
            predicted[volume] = []
            for case in true:
                predicted[volume].append(predict_mask(segmenter, case))
                rows.append(_row(case, slice_dice(predicted[volume][-1].required_mask(), case)))
                progress.update()
    found = []
    for volume, true in volumes.items():
        truth, seen = stacked(true), stacked(predicted[volume])
        agreements = compare_segmentation(seen.required_mask(), truth)
        kept = {n: {"dice": a.dice, "hausdorff95_mm": a.hausdorff95_mm} for n, a in agreements.items()}
        found.append(_row(truth, kept))
    return {"volumes": found, "slices": rows}


def slice_dice(predicted: UInt8[np.ndarray, "1 x y"], truth: Case) -> dict[str, dict[str, float]]:
    """Return Dice of every target structure of a slice; NaN for one that is neither there nor predicted."""
    mask = truth.required_mask()
    return {label.name: {"dice": dice(predicted == label.code, mask == label.code)} for label in truth.labels.targets}


def _row(case: Case, structures: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    known = {name: {key: _finite(value) for key, value in found.items()} for name, found in structures.items()}
    return {"case": case.case_id, "patient": str(case.provenance["patient"]), "structures": known}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
