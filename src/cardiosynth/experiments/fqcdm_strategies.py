"""FQCDM's three strategies: what synthetic slices are worth beside real ones, in ever new proportions.

Mixed with real slices, alone, painted before real slices are learned (in-painting), with augmentation and without. All
arms take as many optimizer steps, and all are judged on the same test patients: slices put together to volumes, and
slice by slice. The data are split by patient; the paper divides slices.

Run: ``python -m cardiosynth.experiments.fqcdm_strategies OUT --data ACDC --synthetic DATASET``. The same command goes
on after a stop; ``--only`` names the cells to do now, and several processes may share the rest.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pydantic
from cyclopts import App, Parameter
from jaxtyping import UInt8

from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings, parse_settings, with_overrides
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.progress import Progress
from cardiosynth.core.random import named_seed
from cardiosynth.core.store import read_json, write_json, write_text
from cardiosynth.data.dataset import Dataset, read_dataset
from cardiosynth.data.preparation import suited_scale
from cardiosynth.data.splits import patient_of
from cardiosynth.data.stacking import by_volume, stacked
from cardiosynth.evaluation.segmentations import compare_segmentation
from cardiosynth.experiments.strategies import PAINTING_SHARE, STRATEGIES, Arm, Network
from cardiosynth.experiments.strategy_tables import tables
from cardiosynth.experiments.study import Study
from cardiosynth.metrics.overlap import dice
from cardiosynth.recipes.recipe import Recipe
from cardiosynth.recipes.registry import find_recipe
from cardiosynth.segmentation.augmentation import GEOMETRIC, NONE
from cardiosynth.segmentation.inpainting import InpaintingStage, segmenter_start, train_inpainting
from cardiosynth.segmentation.networks import target_classes
from cardiosynth.segmentation.predict import load_segmenter, predict_mask
from cardiosynth.segmentation.staged import of_length
from cardiosynth.segmentation.task import SegmentationStage, train_segmenter

Several = Parameter(consume_multiple=True)


class StrategyPlan(Settings):
    """How much of everything.

    Attributes:
        data: real slices with the parts ``train`` and ``test``, as `prepare --slices --split` writes them.
        synthetic: synthetic slices; of no test patient's mask.
        strategies: of `STRATEGIES`.
        networks: which segmenters.
        recipe: its segmenter is trained; its intensities are those of the data.
        ratio: synthetic slices for each real one, in arms that say no number.
        steps: optimizer steps of every arm.
        seeds: of the segmenters; the slices are the same for all.
        changes: ``segmenter.b=value`` settings of the recipe that differ.
    """

    data: str
    synthetic: str | None = None
    strategies: tuple[str, ...] = ("table-4",)
    networks: tuple[Network, ...] = ("unet",)
    recipe: str = "fqcdm/cpu"
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
        return {arm.name: arm for name in self.strategies for arm in STRATEGIES[name].arms}


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


def run_study(out: Path, plan: StrategyPlan, only: Sequence[str] = (), device: str = "cpu") -> Path:
    """Do what is not done yet of the study in ``out`` and return its tables.

    Writes ``runs/CELL``, ``measures/CELL.json`` and ``table.md``, of the cells that there are.

    Args:
        out: the study's folder.
        plan: how much of everything.
        only: what to do now: cells such as ``real-unet-0``, or arms; all by default.
        device: ``cpu`` or ``cuda``.

    Raises:
        InputError: the folder holds a study of another plan, a name of no cell, too few slices, or synthetic slices of
            test patients.
    """
    cells = _chosen(plan, only)
    study = StrategyStudy(out, plan, device)
    for cell in cells:
        study.do(cell)
    return study.write_tables()


def _chosen(plan: StrategyPlan, only: Sequence[str]) -> list[Cell]:
    cells = [Cell(arm, network, seed) for seed, network, arm in product(plan.seeds, plan.networks, plan.arms.values())]
    names = {cell.name for cell in cells} | plan.arms.keys()
    for name in only:
        if name not in names:
            raise InputError(f"--only {name}" + suggest(name, sorted(names)))
    return [cell for cell in cells if not only or cell.name in only or cell.arm.name in only]


@dataclass(frozen=True)
class StrategyStudy:
    """One study in one folder; see :func:`run_study`."""

    out: Path
    plan: StrategyPlan
    device: str = "cpu"

    @cached_property
    def recipe(self) -> Recipe:
        """As the plan changes it."""
        return with_overrides(find_recipe(self.plan.recipe), self.plan.changes)

    @cached_property
    def steps(self) -> Study:
        """What was done."""
        expected_s = {}
        for cell in _chosen(self.plan, ()):
            if cell.arm.painted:
                expected_s[f"train {cell.painter}"] = 0.1 * PAINTING_SHARE * self.plan.steps
            expected_s[f"train {cell.name}"] = 0.1 * self.plan.steps
        return Study(self.out, self.plan.model_dump(mode="json"), expected_s)

    def do(self, cell: Cell) -> None:
        """Train and judge one segmenter, and first what it starts from."""
        command = self._command(cell)
        if cell.arm.painted:
            self.steps.step(f"train {cell.painter}", command, partial(self._paint, cell))
        self.steps.step(f"train {cell.name}", command, partial(self._train, cell))

    def _command(self, cell: Cell) -> str:
        plan = self.plan
        words = ["python", "-m", "cardiosynth.experiments.fqcdm_strategies", self.out, "--data", plan.data]
        words += ["--synthetic", plan.synthetic] if plan.synthetic else []
        words += ["--strategies", *plan.strategies, "--networks", *plan.networks, "--recipe", plan.recipe]
        words += ["--ratio", plan.ratio, "--steps", plan.steps, "--seeds", len(plan.seeds), "--device", self.device]
        words += [word for change in plan.changes for word in ("--set", change)]
        return shlex.join(map(str, [*words, "--only", cell.name]))

    # -----------------------------------------------------------------------------------------------------------
    # Slices.

    @cached_property
    def real(self) -> Dataset:
        """All real slices to learn from."""
        return read_dataset(self.plan.data).part("train")

    @cached_property
    def test(self) -> Dataset:
        """Slices of the patients that all arms are judged on."""
        return read_dataset(self.plan.data).part("test")

    @cached_property
    def synthetic(self) -> Dataset:
        """All synthetic slices."""
        if self.plan.synthetic is None:
            raise InputError("this arm learns from synthetic slices; give --synthetic a dataset of them.")
        found, tested = read_dataset(self.plan.synthetic), {patient_of(i) for i in self.test.case_ids}
        for case_id, row in found.rows.items():
            facts = row["provenance"]
            for origin in (*facts.get("parents", ()), facts.get("reference"), facts.get("template")):
                if origin is not None and patient_of(str(origin)) in tested:
                    raise InputError(
                        f"{found.root}: {case_id} was made from {origin}, a test patient; make slices for the masks of "
                        f"{self.plan.data}:train."
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

    def write_tables(self) -> Path:
        """Write the tables of what there is and return their file."""
        found: dict[Network, dict[str, dict[int, Any]]] = {}
        for arm, network, seed in _chosen(self.plan, ()):
            file = self._measures(Cell(arm, network, seed).name)
            if file.exists():
                found.setdefault(network, {}).setdefault(arm.name, {})[seed] = read_json(file)
        strategies = {name: STRATEGIES[name] for name in self.plan.strategies}
        write_text(self.out / "table.md", tables(strategies, found, self.plan.steps))
        return self.out / "table.md"


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


app = App(help=__doc__)


@app.default
def main(
    out: Path,
    /,
    *,
    data: Path,
    synthetic: Path | None = None,
    strategies: Annotated[list[str] | None, Several] = None,
    networks: Annotated[list[Network] | None, Several] = None,
    recipe: str = StrategyPlan.model_fields["recipe"].default,
    ratio: float = 1.0,
    steps: int = StrategyPlan.model_fields["steps"].default,
    seeds: int = 3,
    changes: Annotated[list[str] | None, Parameter("--set", consume_multiple=False)] = None,
    only: Annotated[list[str] | None, Several] = None,
    device: str = "cpu",
) -> None:
    """Run the study, or what is not done yet of it.

    Args:
        out: folder for everything.
        data: real slices, split by patient into train and test.
        synthetic: synthetic slices, for masks of training patients.
        strategies: table-4 (default), figure-4, figure-5, figure-6.
        networks: unet (default), swin_unet.
        recipe: whose segmenter is trained.
        ratio: synthetic slices for each real one, in table-4.
        steps: optimizer steps of every arm.
        seeds: how many.
        changes: one setting of the recipe, e.g. --set segmenter.training.batch_size=4; may be given often.
        only: cells to do now, such as real-unet-0, or arms; all by default.
        device: cpu or cuda.
    """
    plan = parse_settings(
        StrategyPlan,
        {
            "data": str(data), "synthetic": None if synthetic is None else str(synthetic),
            "strategies": strategies or ["table-4"], "networks": networks or ["unet"], "recipe": recipe,
            "ratio": ratio, "steps": steps, "seeds": list(range(seeds)), "changes": changes or [],
        },
        "the plan",
    )  # fmt: skip
    print(run_study(out, plan, only or [], device).read_text())  # noqa: T201


if __name__ == "__main__":
    app()
