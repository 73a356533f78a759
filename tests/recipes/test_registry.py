from pathlib import Path

import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.recipes import fqcdm
from cardiosynth.recipes.fcas import DEMO, TINY
from cardiosynth.recipes.registry import RECIPES, as_fcas, find_recipe, keep_recipe, recorded_recipe, resolve_recipe
from cardiosynth.recipes.stages import Earlier, train_stage


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_a_recipe_survives_its_file_and_answers_to_its_name(recipe, tmp_path: Path):
    keep_recipe(tmp_path, recipe)
    assert recorded_recipe(tmp_path) == recipe
    assert RECIPES[recipe.name] is find_recipe(recipe.name) is recipe


def test_later_stages_take_the_runs_own_recipe_with_their_changes(tmp_path: Path):
    changed = resolve_recipe(tmp_path, "fcas/tiny", overrides=["masks.rotation_deg=3"])
    keep_recipe(tmp_path, changed)
    again = resolve_recipe(tmp_path, None, overrides=["control.training.steps=9"])
    assert again.masks.rotation_deg == 3
    assert again.control.training.steps == 9


def test_a_file_changes_the_recipe_and_the_command_line_changes_the_file(tmp_path: Path):
    config = tmp_path / "mine.yaml"
    config.write_text("control:\n  training: {steps: 7, learning_rate: 1e-5}\n")
    recipe = resolve_recipe(tmp_path, "fcas/tiny", config, ["control.training.steps=9"])
    assert recipe.control.training.steps == 9
    assert recipe.control.training.learning_rate == 1e-5


def test_another_recipe_in_the_same_run_is_refused(tmp_path: Path):
    keep_recipe(tmp_path, TINY)
    with pytest.raises(InputError, match="begun with recipe fcas/tiny"):
        keep_recipe(tmp_path, DEMO)


def test_what_only_fcas_has_is_refused_of_other_recipes():
    assert as_fcas(TINY) is TINY
    with pytest.raises(InputError, match="fqcdm/tiny is no recipe of FCaS"):
        as_fcas(fqcdm.TINY)


def test_a_stage_that_the_recipe_lacks_is_refused_before_anything_is_read(tmp_path: Path):
    with pytest.raises(InputError, match=r"fqcdm/tiny has no stage 'control'; its stages are autoencoder, .*segmenter"):
        train_stage("control", tmp_path / "nothing", tmp_path, fqcdm.TINY, Earlier(), "cpu")


def test_a_run_without_a_recipe_says_how_to_name_one(tmp_path: Path):
    with pytest.raises(InputError, match="--recipe fcas/demo"):
        resolve_recipe(tmp_path, None)
