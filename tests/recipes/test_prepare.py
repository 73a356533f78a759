import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardiosynth.cli.data import prepare
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import NORMALIZED_MR, PERCENTILES
from cardiosynth.data.dataset import read_dataset
from cardiosynth.data.preparation import suited_scale
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


def test_the_verb_normalizes_and_splits(tmp_path: Path):
    for name, pixels in (("images", np.arange(256)), ("masks", np.ones(256))):
        (tmp_path / "in" / name).mkdir(parents=True)
        for patient in "abc":
            Image.fromarray(pixels.reshape(16, 16).astype(np.uint8)).save(tmp_path / "in" / name / f"{patient}_1.png")
    (tmp_path / "in" / "labels.json").write_text('{"heart": 1}')
    out, options = tmp_path / "out", {"slices": "axial", "size": 8, "scale": "width"}
    prepare("slices", tmp_path / "in", out, unit="mr", normalize=True, split="train=2,test=1", **options)
    assert [len(read_dataset(f"{out}:{part}")) for part in ("train", "test")] == [2, 1]
    assert suited_scale(read_dataset(out)) == NORMALIZED_MR
    ends = np.percentile(np.arange(256), PERCENTILES)
    for case in read_dataset(out):
        assert case.provenance["normalized_from"] == pytest.approx(list(ends))


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_takes_its_options_refuses_a_missing_folder_and_is_told_to_users(kind: str, tmp_path: Path):
    source = SOURCES[kind]
    assert {ARGUMENTS[option] for option in source.options} <= set(inspect.signature(source.read).parameters)
    with pytest.raises(InputError, match="nowhere"):
        read_source(kind, tmp_path / "nowhere", None, None)
    word = re.compile(rf"\b{kind}\b")
    assert word.search(prepare.__doc__ or "")
    assert f"prepare {kind} " in (DOCS / "data.md").read_text(encoding="utf-8")
