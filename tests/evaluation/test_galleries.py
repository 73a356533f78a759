from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.data.dataset import Dataset, read_dataset, write_dataset
from cardiosynth.evaluation.galleries import mask_gallery, template_gallery


def dataset(folder: Path, **provenance) -> Dataset:
    image = np.zeros((1, 4, 4, 4), np.int16)
    mask = image.astype(np.uint8)
    cases = [
        Case(case_id=name, image=image, mask=mask, affine=np.eye(4), labels=CARDIAC_CT, provenance=facts)
        for name, facts in provenance.items()
    ]
    write_dataset(cases, folder)
    return read_dataset(folder)


@pytest.fixture
def sources(tmp_path: Path) -> Dataset:
    return dataset(tmp_path / "sources", p0={}, p1={})


def test_masks_stand_below_their_sources(tmp_path: Path, sources: Dataset):
    masks = dataset(tmp_path / "masks", m0={"parents": ["p1"]}, m1={"parents": ["p0"]})
    above, below = mask_gallery(masks, sources, tmp_path).rows
    assert [(tile.case.dataset, tile.case.case_id) for tile in above if tile] == [("sources", "p1"), ("sources", "p0")]
    assert [tile.case.case_id for tile in below if tile] == ["m0", "m1"]


def test_a_mask_under_several_templates_is_found(tmp_path: Path, sources: Dataset):
    made = dataset(
        tmp_path / "made",
        a={"parents": ["p0"], "template": "p1"},
        b={"parents": ["p0"], "template": "elsewhere"},
        c={"parents": ["p0"], "template": "p1", "mask": {"turned": 1}},
        d={"parents": ["p1"], "template": "p1"},
    )
    figure = template_gallery(made, [sources], tmp_path)
    assert figure is not None
    above, below = figure.rows
    assert [tile and (tile.case.case_id, tile.layer) for tile in above] == [("a", "mask"), ("p1", "image"), None]
    assert [tile and tile.case.case_id for tile in below] == [None, "a", "b"]
    assert template_gallery(made.subset(["a", "c", "d"]), [sources], tmp_path) is None, "each has another mask"
