"""Recipes by name: SYSTEM/SIZE. A run keeps the recipe that its first stage was trained with."""

from collections.abc import Sequence
from pathlib import Path

from cardiosynth.core.config import parse_settings, with_overrides
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.store import read_json, write_json
from cardiosynth.recipes.fcas import DEMO, TINY, FcasRecipe
from cardiosynth.recipes.sizes import PAPER, SMALL

RECIPE = "recipe.json"
"""File of a run that holds its recipe."""

RECIPES: dict[str, FcasRecipe] = {recipe.name: recipe for recipe in (TINY, DEMO, SMALL, PAPER)}


def find_recipe(name: str) -> FcasRecipe:
    """Return the recipe called ``name``, e.g. ``"fcas/demo"``.

    Raises:
        InputError: no recipe has this name.
    """
    if name not in RECIPES:
        raise InputError(f"there is no recipe '{name}'" + suggest(name, sorted(RECIPES)))
    return RECIPES[name]


def resolve_recipe(
    run: Path, name: str | None, config: Path | None = None, overrides: Sequence[str] = ()
) -> FcasRecipe:
    """Return the recipe a run is trained with: the named one, else the run's own, with changes applied.

    Args:
        run: the run's folder.
        name: SYSTEM/SIZE, or None for the recipe that the run began with.
        config: YAML file of settings that differ.
        overrides: ``a.b=value`` settings that differ.

    Raises:
        InputError: neither a name nor a recipe in the run, an unknown name, or a wrong setting.
    """
    if name is None and not (run / RECIPE).exists():
        raise InputError(f"{run} has no recipe yet; name one with --recipe, e.g. --recipe {DEMO.name}.")
    return with_overrides(find_recipe(name) if name is not None else recorded_recipe(run), overrides, config)


def recorded_recipe(run: Path) -> FcasRecipe:
    """Return the recipe that a run was trained with.

    Raises:
        InputError: the run has none, or one of another version.
    """
    return parse_settings(FcasRecipe, read_json(run / RECIPE), str(run / RECIPE))


def check_recipe(run: Path, recipe: FcasRecipe) -> None:
    """Refuse a recipe that a run was not begun with.

    Raises:
        InputError: the run was begun with a recipe of another name, grid or intensity scale.
    """
    if (run / RECIPE).exists():
        before = recorded_recipe(run)
        if (before.name, before.grid, before.intensity) != (recipe.name, recipe.grid, recipe.intensity):
            raise InputError(
                f"{run} was begun with recipe {before.name} on grid {before.grid.shape}, not with {recipe.name} on "
                f"{recipe.grid.shape}; use another run folder or that recipe."
            )


def keep_recipe(run: Path, recipe: FcasRecipe, writes: bool = True) -> None:
    """Write the run's recipe, so that later stages need not name it.

    Args:
        run: the run's folder.
        recipe: what it is trained with.
        writes: whether this process writes files.

    Raises:
        InputError: see :func:`check_recipe`.
    """
    check_recipe(run, recipe)
    if writes:
        write_json(run / RECIPE, recipe.model_dump(mode="json"))
