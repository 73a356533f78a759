import json
from pathlib import Path

import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.recipes.fcas import TINY
from cardiosynth.recipes.fqcdm import TINY as SMALL_SLICES
from cardiosynth.recipes.wishes import Wishes, plan_preparation


def test_a_recipe_gives_grid_and_window_and_options_change_them():
    plain = plan_preparation(Wishes(TINY.name))
    assert (plain.shape, plain.spacing_mm) == (TINY.grid.shape, TINY.grid.spacing_mm)
    assert plain.window == TINY.intensity.window
    changed = plan_preparation(Wishes(TINY.name, (40, 40, 40), (1.0,), window=(-500, 1500)))
    assert changed.spacing_mm == (1.0, 1.0, 1.0)
    assert (changed.window.low, changed.window.high) == (-500, 1500)
    assert plan_preparation(Wishes(shape=(64, 64), spacing_mm=(1.5,))).spacing_mm == (1.5, 1.5), "slices have two axes"
    kept = plan_preparation(Wishes(shape=(64, 64, 8)))
    assert (kept.spacing_mm, kept.window) == (None, None), "the scan's own voxel size is kept"


def test_a_recipe_of_slices_says_how_they_are_cut_and_normalized():
    plain = plan_preparation(Wishes(SMALL_SLICES.name))
    assert (plain.slices, plain.normalize, plain.spacing_mm) == (SMALL_SLICES.slices, True, None)
    changed = plan_preparation(Wishes(SMALL_SLICES.name, spacing_mm=(1.5,), size=64)).slices
    assert changed is not None
    assert (changed.plane, changed.size, changed.scale) == (SMALL_SLICES.slices.plane, 64, "mm")
    assert plan_preparation(Wishes(SMALL_SLICES.name, whole=True)).slices is None


def test_the_whole_field_of_view_has_no_shape_of_its_own():
    assert plan_preparation(Wishes(whole=True)).shape is None
    assert plan_preparation(Wishes(TINY.name, whole=True)).spacing_mm == TINY.grid.spacing_mm


def test_slices_are_square_and_of_one_scale():
    plain = plan_preparation(Wishes(TINY.name, slices="short-axis"))
    assert plain.slices is not None
    assert (plain.shape, plain.slices.size, plain.slices.scale) == (None, 128, "auto")
    known = plan_preparation(Wishes(slices="axial", size=64, spacing_mm=(1.5,)))
    assert known.slices is not None
    assert (known.slices.scale, known.spacing_mm) == ("mm", (1.5, 1.5))


def test_labels_are_read_as_they_are_named(tmp_path: Path):
    (tmp_path / "map.json").write_text(json.dumps({"lv": "left ventricle"}))
    names = [str(tmp_path / "map.json"), "rib="]
    found = plan_preparation(Wishes(TINY.name, to_labels="cardiac_ct", names=names)).mapping
    assert found.table == CARDIAC_CT
    assert found.names == {"lv": "left_ventricle", "rib": None}


@pytest.mark.parametrize(
    ("wishes", "part"),
    [
        (Wishes(), "--recipe"),
        (Wishes(shape=(64,)), "two or three"),
        (Wishes(shape=(64, 64, 4)), "at least 8"),
        (Wishes(shape=(64, 64, 64), spacing_mm=(1.0, 1.0)), "one or 3"),
        (Wishes(shape=(64, 64, 64), spacing_mm=(-1.0,)), "positive"),
        (Wishes(shape=(64, 64, 64), axes="sideways"), "axes"),
        (Wishes(shape=(64, 64, 64), window=(1.0,)), "lowest and the highest"),
        (Wishes(shape=(64, 64, 64), window=(10.0, -10.0)), "window"),
        (Wishes(shape=(64, 64, 64), size=64), "--slices"),
        (Wishes(slices="axial", shape=(64, 64)), "--size 64"),
        (Wishes(slices="axial", spacing_mm=(1.5,), scale="width"), "give one"),
        (Wishes(slices="coronal"), "plane"),
        (Wishes(slices="axial", size=4), "size"),
        (Wishes(slices="axial", whole=True), "--size"),
        (Wishes(shape=(64, 64, 64), whole=True), "give one"),
    ],
)
def test_what_cannot_be_prepared_for_is_refused(wishes: Wishes, part: str):
    with pytest.raises(InputError, match=part):
        plan_preparation(wishes)
