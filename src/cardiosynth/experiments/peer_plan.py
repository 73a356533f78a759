"""How methods are compared: which, on what, and with what budget, alike for all."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import pydantic

from cardiosynth.anatomy.template import TemplateSettings
from cardiosynth.baselines.slicewise import write_slices
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.data.dataset import Dataset, DatasetWriter, mark_parts, read_dataset
from cardiosynth.data.preparation import recorded_preparation, suited_scale
from cardiosynth.experiments.phantom_slices import write_phantom_slices
from cardiosynth.recipes.phantoms import Population, write_phantoms

PARTS = ("train", "validation", "test")


class Budget(Settings):
    """What every training may take. Where both are given, the one that is spent first ends it.

    Attributes:
        steps: optimizer steps of all stages together; null for each size's own.
        seconds: of the processor, over all its threads, or of the clock on a GPU. They become steps by a trial before
            the training, so that learning rates fall to their end and the same command gives the same weights.
    """

    steps: int | None = pydantic.Field(default=None, ge=2)
    seconds: float | None = pydantic.Field(default=None, gt=0)

    def affordable(self, seconds_per_step: float) -> int | None:
        """Return the steps that are trained, of which each takes so long."""
        in_time = None if self.seconds is None else max(2, int(self.seconds / seconds_per_step))
        given = [steps for steps in (self.steps, in_time) if steps is not None]
        return min(given) if given else None


class PeersPlan(Settings):
    """How much of everything.

    Attributes:
        data: cases with the parts ``train``, ``validation`` and ``test``, as `prepare --split` writes them; null draws
            phantoms.
        kind: what the phantoms are: volumes, or slices of them.
        shape: voxels per axis of phantoms; of slices the first number is both sides.
        patients: phantoms that train methods, train judges with the next, and are shown to none.
        protocols: in which phantoms come.
        methods: to compare.
        size: of every method.
        steps: of the budget of every training, see `Budget`.
        seconds: likewise.
        seeds: of training and sampling.
        template: how a method that is told of templates gets them from the training cases; null for a patient of the
            same protocol among phantoms and at random among others.
        judge: recipe whose segmenters judge.
        seer: recipe of two dimensions whose segmenter gives the features that sets are compared by.
        judge_steps: optimizer steps of each segmenter.
        changes: ``segmenter.a=value`` settings of both recipes that differ.
    """

    data: str | None = None
    kind: Literal["volumes", "slices"] = "volumes"
    shape: tuple[int, int, int] = (64, 64, 64)
    patients: tuple[int, int, int] = (24, 8, 12)
    protocols: int = pydantic.Field(default=6, ge=1)
    methods: tuple[str, ...]
    size: str = "demo"
    steps: int | None = pydantic.Field(default=None, ge=2)
    seconds: float | None = pydantic.Field(default=None, gt=0)
    seeds: tuple[int, ...] = (0,)
    template: Literal["random", "nearest", "same_acquisition"] | None = None
    judge: str = "fcas/demo"
    seer: str = "fqcdm/cpu"
    judge_steps: int = pydantic.Field(default=400, ge=1)
    changes: tuple[str, ...] = ()

    @property
    def budget(self) -> Budget:
        """What every training may take."""
        return Budget(steps=self.steps, seconds=self.seconds)


@dataclass(frozen=True)
class PeerCases:
    """All cases of a comparison.

    Attributes:
        root: folder of what is drawn or derived.
        plan: which.
    """

    root: Path
    plan: PeersPlan

    @property
    def source(self) -> str:
        """Folder of the real cases with all parts."""
        return self.plan.data or str(self.root / "phantoms")

    def part(self, name: str) -> Dataset:
        """Return the cases of a part."""
        return read_dataset(self.source).part(name)

    def write(self) -> None:
        """Write what is not there yet: phantoms, masks without images, cases without surroundings, slices.

        Raises:
            InputError: data without the three parts, or without image and mask.
        """
        if self.plan.data is None:
            self._draw()
        train, validation, test = map(self.part, PARTS)
        if not all(len(part.with_images().with_masks()) == len(part) for part in (train, validation, test)):
            raise InputError(f"{self.source} has cases without image or mask; give every case both.")
        _write(test, self.root / "masks", image=False)
        if self.has_surroundings:
            _write(test, self.root / "masks-targets", image=False, surroundings=False)
            _write(train, self.root / "train-targets", surroundings=False)
        if self.is_volumes:
            slices = write_slices(validation, self.root / "slices")
            mark_parts(slices.root, dict.fromkeys(slices.case_ids, "validation"))

    def _draw(self) -> None:
        plan, out = self.plan, self.root / "phantoms"
        if plan.kind == "slices":
            write_phantom_slices(out, sum(plan.patients), plan.shape[0])
            return
        population = Population(sum(plan.patients), plan.shape, protocols=plan.protocols)
        drawn = write_phantoms(population, out)
        parts = [part for part, count in zip(PARTS, plan.patients, strict=True) for _ in range(count)]
        mark_parts(out, dict(zip(drawn.case_ids, parts, strict=True)))

    @cached_property
    def has_surroundings(self) -> bool:
        """Whether there are rows with surroundings and without."""
        if self.plan.data is None:
            return self.plan.kind == "volumes"
        return any(label.role == "surrounding" for label in self.part("train").labels)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Voxels per axis of every case."""
        return self.part("test")[0].grid.shape

    @property
    def is_volumes(self) -> bool:
        """Whether cases have three axes."""
        return len(self.shape) == 3

    @cached_property
    def scale(self) -> IntensityScale:
        """How methods see intensities."""
        return suited_scale(self.part("train"))

    def training(self, surroundings: bool) -> Dataset:
        """Return what methods learn from."""
        return self.part("train") if surroundings else read_dataset(self.root / "train-targets")

    def masks(self, surroundings: bool) -> Dataset:
        """Return the masks that get images: those of the test cases, whose images nobody is given."""
        return read_dataset(self.root / ("masks" if surroundings else "masks-targets"))

    @property
    def seen_by_extractor(self) -> Path:
        """Folder of the slices that the segmenter learns from whose features compare sets."""
        return self.root / "slices" if self.is_volumes else Path(self.source)

    @property
    def templates(self) -> TemplateSettings:
        """How templates are chosen."""
        choice = self.plan.template or ("random" if self.plan.data or not self.is_volumes else "same_acquisition")
        return TemplateSettings(choice=choice)


def _write(cases: Dataset, out: Path, *, image: bool = True, surroundings: bool = True) -> None:
    """Write cases without their images or without their surroundings, as far as they are not there."""
    facts = {"image": image, "surroundings": surroundings, **recorded_preparation(cases)}
    with DatasetWriter(out, cases.labels, name=out.name, facts=facts) as writer:
        for case_id in _missing(cases.case_ids, writer):
            case = cases.case(case_id)
            mask = case.required_mask()
            changes = {} if surroundings else {"mask": case.labels.only_targets(mask)}
            writer.write(case.with_(**changes, **({} if image else {"image": None})))


def _missing(names: Sequence[str], writer: DatasetWriter) -> list[str]:
    return [name for name in names if not writer.has(name)]
