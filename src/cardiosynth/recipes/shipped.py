"""Trained runs that come with the program, so that it can be used before anything is trained."""

from pathlib import Path

from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.store import read_json
from cardiosynth.recipes.registry import RECIPE

FOLDER = Path(__file__).resolve().parent.parent / "shipped"
"""Holds one packed run per name; data of the package, no code."""
DEFAULT = "fcas-phantoms"


def shipped_names() -> list[str]:
    """Return the names of the runs that are shipped."""
    return sorted(file.parent.name for file in FOLDER.glob(f"*/{RECIPE}"))


def shipped_run(name: str = DEFAULT) -> Path:
    """Return the folder of a shipped run, for whatever takes a run.

    Raises:
        InputError: none has this name.
    """
    if name not in shipped_names():
        raise InputError(f"no run '{name}' is shipped" + suggest(name, shipped_names()))
    return FOLDER / name


def shipped_for(recipe: str) -> Path | None:
    """Return the shipped run of a recipe; None where there is none."""
    found = [FOLDER / name for name in shipped_names()]
    return next((run for run in found if read_json(run / RECIPE)["name"] == recipe), None)
