from pathlib import Path

import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.recipes.fcas import TINY
from cardiosynth.recipes.prepare import plan_preparation, read_source


def test_a_recipe_gives_the_grid_and_options_change_it():
    plain = plan_preparation(TINY.name, None, None)
    assert (plain.shape, plain.spacing_mm) == (TINY.grid.shape, TINY.grid.spacing_mm)
    assert plan_preparation(TINY.name, (40, 40, 40), (1.0,)).spacing_mm == (1.0, 1.0, 1.0)
    assert plan_preparation(None, (64, 64), (1.5,)).spacing_mm == (1.5, 1.5), "slices have two axes"
    assert plan_preparation(None, (64, 64, 8), None).spacing_mm is None, "the scan's own voxel size is kept"


@pytest.mark.parametrize(
    ("shape", "spacing", "axes", "part"),
    [
        (None, None, "patient", "--recipe"),
        ((64,), None, "patient", "two or three"),
        ((64, 64, 4), None, "patient", "at least 8"),
        ((64, 64, 64), (1.0, 1.0), "patient", "one or 3"),
        ((64, 64, 64), (-1.0,), "patient", "positive"),
        ((64, 64, 64), None, "sideways", "axes"),
    ],
)
def test_what_makes_no_grid_is_refused(shape, spacing, axes, part):
    with pytest.raises(InputError, match=part):
        plan_preparation(None, shape, spacing, axes)


def test_an_option_that_the_folder_answers_itself_is_refused():
    with pytest.raises(InputError, match="leave --unit out"):
        read_source("acdc", Path("acdc"), None, "hu")
    with pytest.raises(InputError, match="leave --labels out"):
        read_source("nnunet", Path("raw"), Path("labels.json"), None)
