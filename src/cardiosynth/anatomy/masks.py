"""The Mask Generation Module (FCaS 3.1.3, Eq. 5 and 6): new masks from deformed ones, each compared with its source."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pydantic
from jaxtyping import UInt8

from cardiosynth.anatomy.comparison import Carried, Tolerances, compare
from cardiosynth.anatomy.deform import Deformation, affine_matrix, diffeomorphism, pull_back
from cardiosynth.anatomy.fields import random_field
from cardiosynth.anatomy.structures import (
    close_each,
    dilate_each,
    is_thin,
    solid_structures,
    thin_structure,
    without_specks,
)
from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable, normalized_name
from cardiosynth.core.random import numpy_generator
from cardiosynth.data.dataset import Dataset


class MaskSettings(Settings):
    """How far new masks may go from their sources. The paper names the parameters of Eq. 5 and gives no values.

    Attributes:
        rotation_deg: phi, largest angle about each axis.
        scale: gamma, largest relative change of size along each axis.
        shear: largest shear between axes.
        translation_mm: delta, largest shift along each axis.
        amplitude_mm: alpha, range of the smooth field's largest velocity, which no displacement exceeds.
        smoothness_mm: zeta, range of the distance between the smooth field's knots.
        closing: ``closing`` keeps calibers and pieces and closes each structure with a 2x2x2 cube; ``literal`` is
            Eq. 6 as printed, a max-pool that thickens thin vessels; ``none`` leaves what deformation breaks. The
            last two take the nearest voxel, as masks usually are warped, and are for comparison: what they do to
            pieces and volumes is recorded and not refused.
        thin: structures to carry as vessels whatever their width; names that the label table lacks are passed over.
            Tubes two voxels wide or less are carried so under any name.
        attempts: draws per mask, each a tenth milder than the one before, until one keeps its source's anatomy.
        smallest_jacobian: the smooth field is made milder until no volume shrinks by more than this factor.
        tolerances: how far a mask may be from what the deformation makes of its source.
    """

    rotation_deg: float = pydantic.Field(default=10.0, ge=0)
    scale: float = pydantic.Field(default=0.1, ge=0, lt=1)
    shear: float = pydantic.Field(default=0.05, ge=0, lt=0.5)
    translation_mm: float = pydantic.Field(default=6.0, ge=0)
    amplitude_mm: tuple[float, float] = (3.0, 8.0)
    smoothness_mm: tuple[float, float] = (25.0, 45.0)
    closing: Literal["closing", "literal", "none"] = "closing"
    thin: tuple[str, ...] = ("coronary_artery", "coronary_arteries", "coronaries")
    attempts: int = pydantic.Field(default=20, ge=1)
    smallest_jacobian: float = pydantic.Field(default=0.2, gt=0, lt=1)
    tolerances: Tolerances = Tolerances()

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> "MaskSettings":
        for name, (low, high) in (("amplitude_mm", self.amplitude_mm), ("smoothness_mm", self.smoothness_mm)):
            if not 0 < low <= high:
                raise ValueError(f"{name} must be a range of positive numbers, low first")
        return self


def mask_name(index: int) -> str:
    """Return the name of the mask with this index: ``mask-00007``."""
    return f"mask-{index:05d}"


def make_masks(
    cases: Sequence[Case], count: int, seed: int, settings: MaskSettings | None = None, first: int = 0
) -> Iterator[Case]:
    """Yield masks number ``first`` to ``first + count - 1``, made from randomly chosen masks of ``cases``.

    Mask i depends on (seed, i, the set of cases) only, whatever was made before.

    Args:
        cases: sources; those without a mask are passed over.
        count: how many.
        seed: the run's seed.
        settings: how far masks may go from their sources.
        first: index of the first.

    Yields:
        Mask-only cases of target structures on their source's grid. ``provenance`` tells ``parents``, ``seed``,
        the parameters under ``mask``, and the source's ``acquisition`` and ``licence`` where known.

    Raises:
        InputError: no case has a mask, a source has no target structure or an unknown spacing, or no attempt kept
            a source's anatomy.
    """
    sources = _sources(cases)
    for index in range(first, first + count):
        chosen = int(numpy_generator(seed, "mask", index).integers(len(sources)))
        yield make_mask(sources[chosen], index, seed, settings or MaskSettings())


def make_mask(source: Case, index: int, seed: int, settings: MaskSettings) -> Case:
    """Return mask number ``index``, made from ``source``.

    Raises:
        InputError: as ``make_masks``.
    """
    reference = _reference_mask(source)
    fault = ""
    for attempt in range(settings.attempts):
        rng = numpy_generator(seed, "mask", index, attempt)
        deformation, facts = draw_deformation(source, reference, settings, 0.9**attempt, rng)
        carried = deform_mask(reference, source.labels, deformation, settings)
        found = compare(reference, carried, deformation, source.labels, settings.tolerances)
        fault = found.left_view(settings.tolerances)
        if not fault and settings.closing == "closing":
            fault = found.fault(settings.tolerances)
        if not fault:
            known = {key: source.provenance[key] for key in ("acquisition", "licence") if key in source.provenance}
            facts |= {"closing": settings.closing, "attempts": attempt + 1, "comparison": found.facts()}
            return Case(
                case_id=mask_name(index),
                image=None,
                mask=carried.mask[None],
                affine=source.affine,
                labels=source.labels,
                intensity_unit=source.intensity_unit,
                origin="synthetic",
                provenance={"parents": [source.case_id], "seed": seed, **known, "mask": facts},
            )
    raise InputError(
        f"case {source.case_id} could not be deformed in {settings.attempts} attempts ({fault}); clean its mask, "
        "give a finer grid, or set masks.rotation_deg, masks.scale and masks.amplitude_mm lower."
    )


def draw_deformation(
    source: Case,
    reference: UInt8[np.ndarray, "*grid"],
    settings: MaskSettings,
    strength: float,
    rng: np.random.Generator,
) -> tuple[Deformation, dict[str, Any]]:
    """Draw the parameters of Eq. 5, each scaled by ``strength``, and return the deformation and its parameters."""
    assert source.spacing_mm is not None
    spacing = np.array(source.spacing_mm)
    n = len(spacing)
    center = np.argwhere(reference > 0).mean(0) * spacing
    pairs = n * (n - 1) // 2
    rotation = strength * rng.uniform(-settings.rotation_deg, settings.rotation_deg, pairs)
    scale = 1 + strength * rng.uniform(-settings.scale, settings.scale, n)
    shear = strength * rng.uniform(-settings.shear, settings.shear, pairs)
    translation = strength * rng.uniform(-settings.translation_mm, settings.translation_mm, n)
    alpha, zeta = strength * rng.uniform(*settings.amplitude_mm), rng.uniform(*settings.smoothness_mm)
    high = (np.array(reference.shape) - 1) * spacing - center
    field = random_field((-center).tolist(), high.tolist(), alpha, zeta, rng)
    matrix = affine_matrix(rotation.tolist(), scale.tolist(), shear.tolist())
    milder = 1.0
    while True:
        velocity = field.scaled(milder)
        deformation = diffeomorphism(reference.shape, source.spacing_mm, center, matrix, translation, velocity)
        jacobian = deformation.jacobian_range()
        if jacobian[0] > settings.smallest_jacobian:
            break
        milder *= 0.8
    facts = {
        "rotation_deg": rotation, "scale": scale, "shear": shear, "translation_mm": translation,
        "amplitude_mm": alpha * milder, "smoothness_mm": zeta, "jacobian": jacobian,
    }  # fmt: skip
    return deformation, {name: np.round(value, 4).tolist() for name, value in facts.items()}


def deform_mask(
    reference: UInt8[np.ndarray, "*grid"], labels: LabelTable, deformation: Deformation, settings: MaskSettings
) -> Carried:
    """Return the deformed mask (Eq. 6).

    Where structures meet, thin ones go before myocardium, and myocardium before the rest.
    """
    thin, solid = _priority(labels, reference, settings)
    if settings.closing == "closing":
        mask, volumes = solid_structures(reference, solid, thin, deformation)
        mask = close_each(mask, solid)
        for code in reversed(thin):
            inside, volumes[code] = thin_structure(reference == code, deformation)
            mask[inside] = code
        return Carried(without_specks(mask, reference, solid), volumes, thin)
    structures, volumes = {}, {}
    for code in reversed((*thin, *solid)):
        inside = reference == code
        volumes[code] = float(pull_back(inside, deformation)[1].sum(dtype=np.float64))
        box, nearest = pull_back(inside, deformation, mode="nearest")
        structures[code] = np.zeros(reference.shape, bool)
        structures[code][box] = nearest > 0
    if settings.closing == "literal":
        return Carried(dilate_each(structures, reference.shape), volumes, thin)
    mask = np.zeros(reference.shape, np.uint8)
    for code, inside in structures.items():
        mask[inside] = code
    return Carried(mask, volumes, thin)


@dataclass(frozen=True)
class _Sources(Sequence[Case]):
    """Cases with masks, by name, so that their order in the folder does not matter; read when needed."""

    cases: Sequence[Case]
    order: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index):
        return self.cases[self.order[index]]


def _sources(cases: Sequence[Case]) -> _Sources:
    if isinstance(cases, Dataset):
        named = [(name, i) for i, name in enumerate(cases.case_ids) if cases.has("mask", name)]
    else:
        named = [(case.case_id, i) for i, case in enumerate(cases) if case.mask is not None]
    if not named:
        raise InputError("no case has a mask to make new ones from; give a dataset with labelsTr.")
    return _Sources(cases, tuple(i for _, i in sorted(named)))


def _reference_mask(source: Case) -> np.ndarray:
    if source.spacing_mm is None:
        raise InputError(f"case {source.case_id} has no known voxel size; masks are deformed in mm, give it one.")
    reference = source.labels.only_targets(source.required_mask())[0]
    if not reference.any():
        raise InputError(f"case {source.case_id} has no target structure in its mask; leave it out.")
    return reference


def _priority(
    labels: LabelTable, reference: np.ndarray, settings: MaskSettings
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    present = set(np.unique(reference).tolist())
    names = {normalized_name(name) for name in settings.thin}
    targets = [label for label in labels.targets if label.code in present]
    thin = [label.code for label in targets if label.name in names]
    thin += [x.code for x in targets if x.code not in thin and is_thin(reference == x.code)]
    solid = sorted(
        (x for x in targets if x.code not in thin), key=lambda label: ("myocardium" not in label.name, label.code)
    )
    return tuple(thin), tuple(label.code for label in solid)
