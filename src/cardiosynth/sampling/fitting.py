"""Cases as a model takes them: in its codes, on a grid and with voxels that suit it."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable, relabel

SPACING_TOLERANCE = 0.05
"""Relative difference of voxel sizes that still counts as the grid of training."""


@runtime_checkable
class Trained(Protocol):
    """What a trained model says of the cases that it takes."""

    @property
    def labels(self) -> LabelTable:
        """The structures that it learned."""
        ...

    @property
    def record(self) -> Mapping[str, Any]:
        """Of its checkpoint; ``grid`` is looked at."""
        ...

    @property
    def multiple(self) -> int:
        """Voxels per axis that its networks take at a time."""
        ...


def fitted(model: Trained, mask: Case, template: Case, told: bool) -> tuple[Case, Case, list[str]]:
    """Return mask and template as a model takes them, and the template's structures that it does not know.

    Args:
        model: the trained one.
        mask: the reference.
        template: image, and mask where ``told``.
        told: whether the model is told of masks; else only the reference's grid is looked at.

    Raises:
        InputError: see :func:`reference_of` and :func:`adapted`.
    """
    if not told:
        check_grid(model, mask)
        return mask, template, []
    return reference_of(model, mask), *adapted(model, template)


def reference_of(model: Trained, mask: Case) -> Case:
    """Return a reference in the model's codes, with all its target structures.

    Raises:
        InputError: it holds a target that the model never learned, or see :func:`adapted`.
    """
    fitted, _ = adapted(model, mask)
    targets = {label.name for label in model.labels.targets}
    present = [label.name for label in mask.labels.targets if (mask.required_mask() == label.code).any()]
    unknown = [name for name in present if name not in targets]
    if unknown:
        raise InputError(
            f"case {mask.case_id}: the model never learned to draw {', '.join(unknown)}; remove it from the mask, "
            "make it a surrounding, or give it the model's name with cardiosynth prepare --map "
            f"({', '.join(sorted(targets))})."
        )
    return fitted


def adapted(model: Trained, case: Case) -> tuple[Case, list[str]]:
    """Return a case in the model's codes, matched by name, and the structures that the model does not know.

    Raises:
        InputError: the grid or the voxel size does not suit.
    """
    check_grid(model, case)
    if case.labels == model.labels:
        return case, []
    codes, missing = relabel(case.required_mask(), case.labels, model.labels)
    return case.with_(mask=codes, labels=model.labels), missing


def missing_targets(model: Trained, template: Case, reference: Case) -> list[str]:
    """Return the target structures of a reference whose intensity the template does not tell."""
    wanted, there = (set(np.unique(case.required_mask()).tolist()) for case in (reference, template))
    return [label.name for label in model.labels.targets if label.code in wanted - there]


def check_same_grid(mask: Case, template: Case) -> None:
    """Refuse a template that is on another grid than the mask."""
    if mask.grid.shape != template.grid.shape:
        raise InputError(
            f"case {mask.case_id} has a grid of {mask.grid.shape} and its template {template.case_id} one of "
            f"{template.grid.shape}; run cardiosynth prepare on both with the same --shape first."
        )


def check_own_mask(reference: Case, source: Case) -> None:
    """Refuse to show an image that is only encoded and decoded under a mask that is not its own.

    Args:
        reference: in the model's codes.
        source: whose image it is, in the model's codes.
    """
    ours, theirs = (case.labels.only_targets(case.required_mask()) for case in (reference, source))
    if not np.array_equal(ours, theirs):
        raise InputError(
            f"a reconstruction of {source.case_id} shows its own structures, not those of mask {reference.case_id}; "
            "give no --masks and the template self, or start from noise or from the image."
        )


def check_grid(model: Trained, case: Case) -> None:
    """Refuse a case on a grid, or with voxels, that a model cannot take."""
    shape, multiple = case.grid.shape, model.multiple
    trained = model.record["grid"]["spacing_mm"]
    wanted = "--shape " + " ".join(str(max(1, round(n / multiple)) * multiple) for n in shape)
    if trained and case.spacing_mm:
        wanted += f" --spacing-mm {' '.join(f'{v:g}' for v in trained)}"
    if any(n % multiple for n in shape):
        raise InputError(
            f"case {case.case_id} has a grid of {shape} and the model's networks need multiples of {multiple}; run "
            f"cardiosynth prepare with {wanted} first."
        )
    if trained and case.spacing_mm and not np.allclose(case.spacing_mm, trained, rtol=SPACING_TOLERANCE):
        given = " x ".join(f"{v:g}" for v in case.spacing_mm)
        raise InputError(
            f"case {case.case_id} has voxels of {given} mm, another size than the model was trained on; run "
            f"cardiosynth prepare with {wanted} first."
        )
