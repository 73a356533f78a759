import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import label_table
from cardiosynth.data.prepare.mapping import LabelMapping
from cardiosynth.data.prepare.preview import in_words, preview
from cardiosynth.data.prepare.settings import PrepareSettings, SliceSettings

from .scans import scan, stream

GOOD = scan(np.eye(4))
HEART, RIB = int((GOOD.mask == 1).sum()), int((GOOD.mask == 2).sum())


def test_structures_grids_and_parts_are_told():
    mapping = LabelMapping(names={"heart": "left_ventricle", "rib": None})
    settings = PrepareSettings(shape=(16, 16, 16), spacing_mm=(2.0, 2.0, 2.0), mapping=mapping)
    found = preview(stream(a_ED=GOOD, a_ES=GOOD, b=GOOD.with_(mask=None)), settings, {"train": 1, "test": 1})
    assert found["structures"] == [
        {"source": "heart", "target": "left_ventricle", "cases": 2, "voxels": 2 * HEART},
        {"source": "rib", "target": None, "cases": 2, "voxels": 2 * RIB},
    ]
    assert {tuple(row["becomes"]) for row in found["grids"]} == {(16, 16, 16)}
    assert sum(part["cases"] for part in found["parts"].values()) == 3
    words = in_words(found)
    assert f"heart -> left_ventricle: 2 cases, {2 * HEART} voxels" in words
    assert "rib -> background" in words
    assert "b: 30 x 32 x 28 of 1 x 1 x 1 mm -> 16 x 16 x 16 of 2 x 2 x 2 mm" in words
    assert "all of them" in words


def test_a_sample_says_that_it_is_one():
    found = preview(stream(**{f"p{i}": GOOD for i in range(9)}), PrepareSettings(slices=SliceSettings()), sample=3)
    assert [row["case_id"] for row in found["grids"]] == ["p0", "p3", "p6"]
    assert "counted in 3 of them" in in_words(found)
    assert "128 x 128 pixels, at most 28 slices" in in_words(found)


def test_what_would_be_refused_is_told_and_nothing_else_is_lost():
    mapping = LabelMapping(table=label_table({"hearts": 1}))
    found = preview(stream(a=GOOD, b="b.nii is truncated"), PrepareSettings(mapping=mapping))
    assert len(found["problems"]) == 2
    assert "b.nii is truncated" in in_words(found)
    assert "did you mean 'hearts'" in in_words(found)
    assert [row["target"] for row in found["structures"]] == ["?", "?"]
    with pytest.raises(InputError, match="no case"):
        preview(stream(), PrepareSettings())
