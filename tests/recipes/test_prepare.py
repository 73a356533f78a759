import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardiosynth.cli.data import prepare
from cardiosynth.core.errors import InputError
from cardiosynth.recipes.prepare import ARGUMENTS, SOURCES, read_source

DOCS = Path(__file__).parents[2] / "docs"


def test_an_option_that_the_folder_answers_itself_is_refused():
    with pytest.raises(InputError, match="leave --unit out"):
        read_source("acdc", Path("acdc"), None, "hu")
    with pytest.raises(InputError, match="leave --labels out"):
        read_source("nnunet", Path("raw"), Path("labels.json"), None)


def test_an_unknown_kind_is_told_the_near_one():
    with pytest.raises(InputError, match="no kind of source 'image_cas'; did you mean 'imagecas'"):
        read_source("image_cas", Path("x"), None, None)


def test_options_reach_the_source(tmp_path: Path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.ones((3, 4), np.uint8)).save(tmp_path / name / "7_1.png")
    (tmp_path / "mine.json").write_text('{"aorta": 1}')
    case = next(read_source("slices", tmp_path, tmp_path / "mine.json", "mr", "CC0"))
    assert (case.labels.named("aorta").code, case.intensity_unit, case.provenance["licence"]) == (1, "mr", "CC0")


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_takes_its_options_refuses_a_missing_folder_and_is_told_to_users(kind: str, tmp_path: Path):
    source = SOURCES[kind]
    assert {ARGUMENTS[option] for option in source.options} <= set(inspect.signature(source.read).parameters)
    with pytest.raises(InputError, match="nowhere"):
        read_source(kind, tmp_path / "nowhere", None, None)
    word = re.compile(rf"\b{kind}\b")
    assert word.search(prepare.__doc__ or "")
    assert f"prepare {kind} " in (DOCS / "data.md").read_text(encoding="utf-8")
