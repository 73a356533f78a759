"""Which source reads which kind of folder, and which grid a recipe wants."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from cardiosynth.core.case import Case
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.data.prepare import PrepareSettings
from cardiosynth.data.sources.acdc import acdc
from cardiosynth.data.sources.folder import folder
from cardiosynth.data.sources.nnunet import nnunet
from cardiosynth.recipes.registry import find_recipe

SOURCES: dict[str, tuple[str, ...]] = {
    "folder": ("--labels", "--unit", "--licence"),
    "nnunet": ("--unit",),
    "acdc": (),
}
"""Kinds of folders, and the options that tell what the folder itself does not."""

SMALLEST = 8
"""Voxels per axis below which no network here works."""


def read_source(kind: str, root: Path, labels: Path | None, unit: str | None, licence: str = "") -> Iterable[Case]:
    """Return the cases of a folder as downloaded.

    Raises:
        InputError: an unknown kind, or an option that this kind does not take.
    """
    if kind not in SOURCES:
        raise InputError(f"there is no kind of source '{kind}'" + suggest(kind, sorted(SOURCES)))
    given = {"--labels": labels, "--unit": unit, "--licence": licence}
    refused = [option for option, value in given.items() if value and option not in SOURCES[kind]]
    if refused:
        raise InputError(f"prepare {kind} finds in {root} what {refused[0]} would say; leave {refused[0]} out.")
    if kind == "acdc":
        return acdc(root)
    if kind == "nnunet":
        return nnunet(root, unit)
    return folder(root, labels, unit, licence)


def plan_preparation(
    recipe: str | None, shape: Sequence[int] | None, spacing_mm: Sequence[float] | None, axes: str = "patient"
) -> PrepareSettings:
    """Return the grid to prepare for: the recipe's, changed by what is given.

    Raises:
        InputError: neither a recipe nor a shape, or numbers that make no grid.
    """
    grid = find_recipe(recipe).grid if recipe is not None else None
    if grid is None and shape is None:
        raise InputError("say which grid to prepare for: --recipe fcas/demo, or --shape X Y Z and --spacing-mm.")
    wanted = tuple(shape or (grid.shape if grid else ()))
    if len(wanted) not in (2, 3) or min(wanted) < SMALLEST:
        raise InputError(f"--shape {_listed(wanted)}: give two or three numbers of voxels, each at least {SMALLEST}.")
    spacing = tuple(spacing_mm or (grid.spacing_mm if grid else ()))
    if spacing and (len(spacing) not in (1, len(wanted)) or min(spacing) <= 0):
        raise InputError(f"--spacing-mm {_listed(spacing)}: give one or {len(wanted)} positive numbers of millimeters.")
    values = {"shape": wanted, "spacing_mm": spacing * (len(wanted) // len(spacing)) if spacing else None, "axes": axes}
    return parse_settings(PrepareSettings, values, "prepare")


def _listed(numbers: Sequence[float]) -> str:
    return " ".join(f"{number:g}" for number in numbers)
