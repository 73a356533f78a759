"""Recipes by name: SYSTEM/SIZE. A run keeps the recipe that its first stage was trained with."""

from collections.abc import Sequence
from pathlib import Path

from cardiosynth.core.config import parse_settings, with_overrides
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.store import read_json, write_json
from cardiosynth.recipes import fcas, fqcdm, sizes
from cardiosynth.recipes.fcas import FcasRecipe
from cardiosynth.recipes.fqcdm import FqcdmRecipe
from cardiosynth.recipes.recipe import Recipe

RECIPE = "recipe.json"
"""File of a run that holds its recipe."""

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        fcas.TINY, fcas.DEMO, sizes.SMALL, sizes.PAPER, fqcdm.TINY, fqcdm.CPU, fqcdm.SMALL, fqcdm.PAPER,
    )
}  # fmt: skip

WHOLE_RUN = {"name", "grid", "slices", "intensity"}
"""Settings that all stages of a run share."""


def find_recipe(name: str) -> Recipe:
    """Return the recipe called ``name``, e.g. ``"fcas/demo"``.

    Raises:
        InputError: no recipe has this name.
    """
    if name not in RECIPES:
        raise InputError(f"there is no recipe '{name}'" + suggest(name, sorted(RECIPES)))
    return RECIPES[name]


def as_fcas(recipe: Recipe) -> FcasRecipe:
    """Return ``recipe`` where it is one of FCaS.

    Raises:
        InputError: it is another system's.
    """
    if not isinstance(recipe, FcasRecipe):
        raise InputError(f"{recipe.name} is no recipe of FCaS, which this is for; take {fcas.DEMO.name} or another.")
    return recipe


def resolve_recipe(run: Path, name: str | None, config: Path | None = None, overrides: Sequence[str] = ()) -> Recipe:
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
        raise InputError(f"{run} has no recipe yet; name one with --recipe, e.g. --recipe {fcas.DEMO.name}.")
    return with_overrides(find_recipe(name) if name is not None else recorded_recipe(run), overrides, config)


def recorded_recipe(run: Path) -> Recipe:
    """Return the recipe that a run was trained with.

    Raises:
        InputError: the run has none, or one of another version.
    """
    values = read_json(run / RECIPE)
    # Runs of released weights have names of their own and FCaS's stages.
    kind = FqcdmRecipe if str(values.get("name")).startswith("fqcdm/") else FcasRecipe
    return parse_settings(kind, values, str(run / RECIPE))


def check_recipe(run: Path, recipe: Recipe) -> None:
    """Refuse a recipe that a run was not begun with.

    Raises:
        InputError: the run was begun with a recipe of another name, grid or intensity scale.
    """
    if (run / RECIPE).exists():
        before = recorded_recipe(run)
        if before.model_dump(include=WHOLE_RUN) != recipe.model_dump(include=WHOLE_RUN):
            raise InputError(
                f"{run} was begun with recipe {before.name} on grid {before.shape}, not with {recipe.name} on "
                f"{recipe.shape}; use another run folder or that recipe."
            )


def keep_recipe(run: Path, recipe: Recipe, writes: bool = True) -> None:
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
