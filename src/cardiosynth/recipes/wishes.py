"""What a preparation is asked for, on the command line or in a notebook: a recipe's grid, changed by options."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import NORMALIZED_MR
from cardiosynth.data.prepare.mapping import read_mapping, read_target_table
from cardiosynth.data.prepare.settings import PrepareSettings
from cardiosynth.recipes.fcas import FcasRecipe
from cardiosynth.recipes.fqcdm import FqcdmRecipe
from cardiosynth.recipes.recipe import Recipe
from cardiosynth.recipes.registry import find_recipe

SMALLEST = 8
"""Voxels per axis below which no network here works."""
DEFAULT_SIZE = 128
"""Pixels per side of slices."""


@dataclass(frozen=True)
class Wishes:
    """What is asked of a preparation; None where nothing is asked.

    Attributes:
        recipe: gives shape, voxel size and window, or how slices are cut and normalized, where nothing else does.
        shape: voxels per axis.
        spacing_mm: voxel size per axis, or one number for all.
        axes: ``patient`` or ``image``.
        window: the two HU that networks will see; recorded only.
        to_labels: label table of the dataset: ``cardiac_ct``, a dataset folder, or a JSON file.
        names: ``source name=name`` each, or JSON files of such pairs.
        slices: ``axial`` or ``short-axis``.
        size: pixels per side of slices.
        scale: of slices: ``auto``, ``mm`` or ``width``.
        whole: keep the whole field of view, whatever its shape.
        normalize: bring every volume of MR to the same units.
    """

    recipe: str | None = None
    shape: Sequence[int] | None = None
    spacing_mm: Sequence[float] | None = None
    axes: str = "patient"
    window: Sequence[float] | None = None
    to_labels: str | None = None
    names: Sequence[str] = ()
    slices: str | None = None
    size: int | None = None
    scale: str | None = None
    whole: bool = False
    normalize: bool = False


def plan_preparation(wishes: Wishes) -> PrepareSettings:
    """Return what to prepare for: the recipe's grid and window, changed by what is asked.

    Raises:
        InputError: neither a recipe nor a shape, numbers that make no grid or window, or a label table or a mapping
            that cannot be read.
    """
    recipe = None if wishes.recipe is None else find_recipe(wishes.recipe)
    wishes = _completed(wishes, recipe)
    grid = _slices(wishes) if wishes.slices is not None else _volumes(wishes, recipe)
    table = None if wishes.to_labels is None else read_target_table(wishes.to_labels).model_dump(mode="json")
    values = {
        **grid,
        "axes": wishes.axes,
        "normalize": wishes.normalize,
        "window": _window(wishes.window, recipe),
        "mapping": {"table": table, "names": read_mapping(wishes.names)},
    }
    return parse_settings(PrepareSettings, values, "prepare")


def _completed(wishes: Wishes, recipe: Recipe | None) -> Wishes:
    """Return the wishes and, where the recipe is one of slices and no volumes are asked for, its slices."""
    if not isinstance(recipe, FqcdmRecipe) or wishes.shape is not None or wishes.whole:
        return wishes
    cut, is_normalized = recipe.slices, recipe.intensity == NORMALIZED_MR
    return replace(
        wishes,
        slices=wishes.slices or cut.plane,
        size=wishes.size or cut.size,
        scale=wishes.scale or ("auto" if wishes.spacing_mm else cut.scale),
        normalize=wishes.normalize or is_normalized,
    )


def _volumes(wishes: Wishes, recipe: Recipe | None) -> dict[str, Any]:
    grid = recipe.grid if isinstance(recipe, FcasRecipe) else None
    if wishes.size is not None or wishes.scale is not None:
        raise InputError("--size and --scale are those of slices; give --slices axial or short-axis, or --shape X Y Z.")
    if wishes.whole:
        return _whole(wishes, recipe)
    if grid is None and wishes.shape is None:
        raise InputError(
            "say which grid to prepare for: --recipe fcas/demo, --shape X Y Z and --spacing-mm, or --whole to keep "
            "the whole field of view."
        )
    shape = tuple(wishes.shape or (grid.shape if grid else ()))
    if len(shape) not in (2, 3) or min(shape) < SMALLEST:
        raise InputError(f"--shape {_listed(shape)}: give two or three numbers of voxels, each at least {SMALLEST}.")
    return {"shape": shape, "spacing_mm": _spacing(wishes.spacing_mm or (grid.spacing_mm if grid else ()), len(shape))}


def _whole(wishes: Wishes, recipe: Recipe | None) -> dict[str, Any]:
    if wishes.shape is not None:
        raise InputError(f"--whole keeps every voxel and --shape {_listed(wishes.shape)} does not; give one of them.")
    grid = recipe.grid if isinstance(recipe, FcasRecipe) else None
    return {"shape": None, "spacing_mm": _spacing(wishes.spacing_mm or (grid.spacing_mm if grid else ()), 3)}


def _slices(wishes: Wishes) -> dict[str, Any]:
    if wishes.whole:
        raise InputError("--whole is for volumes; give slices a --size.")
    if wishes.shape is not None:
        raise InputError(f"--shape {_listed(wishes.shape)}: slices are square; give --size {wishes.shape[0]}.")
    spacing, scale = _spacing(wishes.spacing_mm or (), 2), wishes.scale or "auto"
    if spacing is not None and scale == "width":
        raise InputError("--spacing-mm says how wide a pixel is and --scale width takes it from the image; give one.")
    scale = "mm" if spacing is not None else scale
    return {
        "spacing_mm": spacing,
        "slices": {"plane": wishes.slices, "size": wishes.size or DEFAULT_SIZE, "scale": scale},
    }


def _spacing(given: Sequence[float], axes: int) -> tuple[float, ...] | None:
    if not given:
        return None
    if len(given) not in (1, axes) or min(given) <= 0:
        raise InputError(f"--spacing-mm {_listed(given)}: give one or {axes} positive numbers of millimeters.")
    return tuple(given) * (axes // len(given))


def _window(given: Sequence[float] | None, recipe: Recipe | None) -> dict[str, float] | None:
    if given is not None:
        if len(given) != 2:
            raise InputError(
                f"--window {_listed(given)}: give the lowest and the highest HU, e.g. --window -1000 2000."
            )
        return {"low": given[0], "high": given[1]}
    if recipe is None or recipe.intensity.unit != "hu":
        return None
    return recipe.intensity.window.model_dump(mode="json")


def _listed(numbers: Sequence[float]) -> str:
    return " ".join(f"{number:g}" for number in numbers)
