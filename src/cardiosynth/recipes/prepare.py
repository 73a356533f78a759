"""Which source reads which kind of folder, and which grid a recipe wants."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.data.prepare import PrepareSettings
from cardiosynth.data.sources.acdc import acdc
from cardiosynth.data.sources.folder import folder
from cardiosynth.data.sources.nnunet import nnunet
from cardiosynth.recipes.registry import find_recipe

SOURCES: dict[str, Callable[..., Iterator[Case]]] = {"folder": folder, "nnunet": nnunet, "acdc": acdc}


def read_source(kind: str, root: Path, labels: Path | None, unit: str | None) -> Iterator[Case]:
    """Return the cases of a folder as downloaded.

    Raises:
        InputError: an unknown kind, or an option that this kind does not take.
    """
    if kind not in SOURCES:
        raise InputError(f"there is no kind of source '{kind}'" + suggest(kind, sorted(SOURCES)))
    if kind == "acdc":
        if labels or unit:
            raise InputError("prepare acdc knows its labels and unit; leave --labels and --unit out.")
        return acdc(root)
    if kind == "nnunet":
        return nnunet(root, intensity_unit=unit)
    return folder(root, labels=labels, intensity_unit=unit)


def plan_preparation(
    recipe: str | None, shape: tuple[int, ...] | None, spacing_mm: Sequence[float] | None
) -> PrepareSettings:
    """Return the grid to prepare for: the recipe's, changed by what is given.

    Raises:
        InputError: neither a recipe nor a shape, or a spacing that is not one or three positive numbers.
    """
    if spacing_mm is not None and (len(spacing_mm) not in (1, 3) or min(spacing_mm) <= 0):
        given = " ".join(map(str, spacing_mm))
        raise InputError(f"--spacing-mm {given}: give one or three positive numbers of millimeters.")
    spacing = tuple(spacing_mm) * (3 // len(spacing_mm)) if spacing_mm else None
    if recipe is None:
        if shape is None:
            raise InputError("say which grid to prepare for: --recipe fcas/demo, or --shape X Y Z and --spacing-mm.")
        return PrepareSettings(shape=shape, spacing_mm=spacing)
    grid = find_recipe(recipe).grid
    return PrepareSettings(shape=shape or grid.shape, spacing_mm=spacing or grid.spacing_mm)
