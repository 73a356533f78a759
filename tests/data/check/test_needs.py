from dataclasses import replace

import pytest

from cardiosynth.data.check.examination import check_dataset
from cardiosynth.data.check.needs import Needs
from cardiosynth.data.dataset import write_dataset

SUITS = Needs("fcas/test", (32, 32, 32), (3.75, 3.75, 3.75), 8, "hu", {"left_ventricle": "its weight"}, 3, 200)


def levels(clean, folder, **changes) -> list[tuple[str, str]]:
    write_dataset(clean, folder)
    needs = replace(SUITS, **changes)
    return [(f.level, f.kind) for f in check_dataset(folder, needs=needs).findings if f.kind.startswith("recipe")]


def test_a_recipe_that_suits_is_told_how_many_cases_there_are(clean, tmp_path):
    assert levels(clean, tmp_path) == [("info", "recipe_cases")]


@pytest.mark.parametrize(
    ("changes", "level", "kind"),
    [
        ({"unit": "mr"}, "error", "recipe_unit"),
        ({"multiple": 5}, "error", "recipe_grid"),
        ({"shape": (32, 32)}, "error", "recipe_grid"),
        ({"shape": (64, 32, 32)}, "warning", "recipe_grid"),
        ({"spacing_mm": (3.75, 3.75, 3.0)}, "warning", "recipe_grid"),
        ({"names": {"kidney": "its weight"}}, "info", "recipe_labels"),
        ({"least_cases": 4}, "error", "recipe_cases"),
    ],
)
def test_what_a_recipe_asks_for_and_does_not_get_is_told(clean, tmp_path, changes, level, kind):
    assert (level, kind) in levels(clean, tmp_path, **changes)


def test_a_structure_under_another_name_is_to_be_renamed(clean, tmp_path):
    from cardiosynth.core.labels import label_table

    names = {("lv" if label.name == "left_ventricle" else label.name): label.code for label in clean[0].labels}
    table = label_table(names, [label.name for label in clean[0].labels if label.role == "surrounding"])
    write_dataset([case.with_(labels=table) for case in clean], tmp_path)
    told = [f for f in check_dataset(tmp_path, needs=SUITS).findings if f.kind == "recipe_labels"]
    assert [f.level for f in told] == ["warning"]
    assert "knows 'lv' as 'left_ventricle'" in told[0].text
