"""The cases of the downstream study: real ones, held-out ones, and what a trained generator makes for other masks."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from cardiosynth.autoencoder.codec import load_codec
from cardiosynth.core.config import Settings, with_overrides
from cardiosynth.core.errors import InputError
from cardiosynth.data.dataset import Dataset, read_dataset
from cardiosynth.data.splits import patient_of, read_split, split
from cardiosynth.evaluation.measures import measure_pair
from cardiosynth.experiments.coded import write_coded
from cardiosynth.experiments.protocols import Protocol, find_protocol
from cardiosynth.recipes.fcas import FcasRecipe
from cardiosynth.recipes.phantoms import Population, write_phantoms
from cardiosynth.recipes.registry import as_fcas, recorded_recipe
from cardiosynth.recipes.stages import Synthesis, generate_cases

FIRST_TEST, FIRST_REAL, FIRST_OTHER = 50_000, 20_000, 30_000
"""Indices of patients that are in no other group. The test's are in no other study either, since generators are chosen
by what studies show."""
FIRST_PROTOCOL = 1_000
"""Of the test; likewise."""
GIVEN = ("real", "test", "others")
"""What the generator does not make."""
Rows = list[dict[str, Any]]


class DownstreamPlan(Settings):
    """How much of everything.

    Attributes:
        generator: a trained run, its autoencoder in it; None trains one on phantoms.
        templates: what it was trained on, phantoms where ``real`` is not given: masks are deformed from theirs.
        recipe: of the generator that is trained.
        training: how many phantoms it is trained on.
        protocols: scanner protocols they come in.
        protocol: of ``protocols.PROTOCOLS``.
        scale: factor on the protocol's numbers of cases.
        synthetic_scale: on top of it, on those of all but the real ones.
        steps: optimizer steps of every arm.
        seeds: of the segmenters; the cases are the same for all.
        looked_at: how many of the other patients pre-trained segmenters are judged on.
        real: dataset that is split into real and test cases, prepared as the templates are; the bounds' other patients
            are then the templates'. None draws phantoms.
        data: folder of the cases, where studies share them; None keeps them in the study's.
        changes: ``a.b=value`` settings of the generator's recipe that differ: of segmenter, sampler, masks, templates.
    """

    generator: str | None = None
    templates: str | None = None
    recipe: str = "fcas/demo"
    training: int = pydantic.Field(default=72, ge=2)
    protocols: int = pydantic.Field(default=18, ge=1)
    real: str | None = None
    data: str | None = None
    protocol: str = "few-phantoms"
    scale: float = pydantic.Field(default=1.0, gt=0)
    synthetic_scale: float = pydantic.Field(default=1.0, gt=0)
    steps: int = pydantic.Field(default=400, ge=5)
    seeds: tuple[int, ...] = (0, 1, 2)
    looked_at: int = pydantic.Field(default=8, ge=2)
    changes: tuple[str, ...] = ()

    @pydantic.model_validator(mode="after")
    def _has_templates(self) -> "DownstreamPlan":
        if (self.generator is None) != (self.templates is None):
            raise ValueError("a generator comes with the dataset it was trained on: give --set templates=DATASET, too")
        if self.real is not None and self.generator is None:
            raise ValueError("real cases need a generator that has seen none of the test patients: give --generator")
        return self

    @property
    def arms(self) -> Protocol:
        """The arms, with as many cases as are wanted."""
        return find_protocol(self.protocol).scaled(self.scale, self.synthetic_scale)


@dataclass(frozen=True)
class StudyCases:
    """All datasets of one study.

    Attributes:
        root: their folder.
        plan: which; with a generator.
        device: where they are made.
    """

    root: Path
    plan: DownstreamPlan
    device: str = "cpu"

    @property
    def generator(self) -> Path:
        """Its run."""
        assert self.plan.generator is not None, "the study trains one before"
        return Path(self.plan.generator)

    @property
    def templates(self) -> Path:
        """What it was trained on."""
        assert self.plan.templates is not None, "they come with the generator"
        return Path(self.plan.templates)

    @cached_property
    def recipe(self) -> FcasRecipe:
        """The generator's, as the plan changes it."""
        return with_overrides(as_fcas(recorded_recipe(self.generator)), self.plan.changes)

    def read(self, name: str, count: int | None = None) -> Dataset:
        """Return the first ``count`` cases, or all, of the ``real`` or ``test`` ones, or of a source of ``protocols``.

        Raises:
            InputError: there are fewer.
        """
        found = self._given(name) if self.plan.real and name in GIVEN else read_dataset(self.root / name)
        if count is not None and count > len(found):
            raise InputError(
                f"{found.root} has {len(found)} cases '{name}' and {count} are needed; give --set scale=F below 1."
            )
        return found[:count]

    def _given(self, name: str) -> Dataset:
        if name == "others":
            return read_dataset(self.templates)
        whole, part = read_dataset(str(self.plan.real)), {"real": "train"}.get(name, name)
        parts = split(map(patient_of, whole.case_ids), read_split(self.plan.arms.split))
        return whole.subset(case_id for case_id in whole.case_ids if parts[patient_of(case_id)] == part)

    @property
    def _others(self) -> int:
        return max(self.plan.looked_at, self.plan.arms.count("others", "coded", "reference"))

    def draw(self) -> None:
        """Draw real, test and other patients, where they are phantoms."""
        templates, arms = read_dataset(self.templates), self.plan.arms
        protocols, (seed, *_) = _protocols(templates), (row["provenance"]["seed"] for row in templates.rows.values())
        grid = {"shape": self.recipe.grid.shape, "spacing_mm": self.recipe.grid.spacing_mm, "seed": seed}
        seen = {"protocols": len(protocols), **grid}
        test = Population(arms.test, protocols=arms.test, first=FIRST_TEST, first_protocol=FIRST_PROTOCOL, **grid)
        write_phantoms(Population(arms.real, first=FIRST_REAL, **seen), self.root / "real", "real")
        both = protocols & _protocols(write_phantoms(test, self.root / "test", "test"))
        if both:
            raise InputError(f"{self.templates} holds {min(both)}, which the test has too; take other templates.")
        write_phantoms(Population(self._others, first=FIRST_OTHER, **seen), self.root / "others", "others")

    def make(self) -> None:
        """Make coded and synthetic cases."""
        run, templates, device = self.generator, self.templates, self.device
        others, count = self.read("others", self._others), self.plan.arms.count("deformed")
        changes = tuple(change for change in self.plan.changes if not change.startswith("segmenter."))
        write_coded(load_codec(run, device), others, self.root / "coded")
        # Where protocols are known, these patients' templates show their own, so that images can be compared.
        choice = None if self.plan.real else "same_acquisition"
        known = Synthesis(
            run, templates, others.root, len(others), 0, device=device, template=choice, overrides=changes
        )
        generate_cases(known, self.root / "reference")
        if count:
            request = Synthesis(run, templates, None, count, 0, device=device, overrides=changes)
            generate_cases(request, self.root / "deformed")

    def look(self) -> dict[str, Rows]:
        """Return by kind of images, for every case, what coded and synthetic ones keep of the real ones."""
        count, codec = self.plan.looked_at, load_codec(self.generator)
        found: dict[str, Rows] = {"coded": [], "reference": []}
        for name, rows in found.items():
            for real, image in zip(self.read("others", count), self.read(name, count), strict=True):
                assert name == "coded" or image.provenance["reference"] == real.case_id, "cases are in one order"
                pair = measure_pair(real, image.required_image(), codec.window_of(real), real.labels.targets)
                row = {"case": real.case_id, "psnr_db": pair.psnr_db, "ssim_heart": pair.ssim_heart}
                rows.append(row | {"kept": known_values(pair.kept), "error_hu": known_values(pair.error)})
        return found


def _protocols(phantoms: Dataset) -> set[str]:
    """Return the protocols that phantoms were scanned with.

    Raises:
        InputError: they are no phantoms.
    """
    found = {str(row["provenance"].get("acquisition", "")) for row in phantoms.rows.values()}
    if "" in found:
        raise InputError(f"{phantoms.root} holds cases that are no phantoms; name your real cases with --real, too.")
    return found


def known_values(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return the values with None for NaN, which JSON does not have, and for infinity, which is no distance."""
    return {name: value if np.isfinite(value) else None for name, value in values.items()}
