"""Datasets whose masks are brought to another's label table as they are read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import label_table
from cardiosynth.data.dataset import Dataset, read_dataset, write_dataset
from cardiosynth.data.mapped import mapped, one_table
from cardiosynth.data.preparation import preparation_of
from cardiosynth.data.prepare.mapping import LabelMapping


def dataset(root: Path, **codes: int) -> Dataset:
    """Two cases with two voxels of each structure."""
    labels = label_table(codes, surroundings=["lung"])
    mask = np.zeros((1, 4, 4, 4), np.uint8)
    for row, code in enumerate(codes.values()):
        mask[0, row // 4, row % 4, :2] = code
    facts = {"mask": mask, "image": np.zeros(mask.shape, np.int16), "labels": labels, "affine": np.eye(4)}
    return write_dataset((Case(case_id=name, **facts) for name in ("a", "b")), root)


def together(*datasets: Dataset, **names: str | None) -> list[Dataset]:
    mappings = one_table(datasets, names)
    return [mapped(one, mapping) for one, mapping in zip(datasets, mappings, strict=True)]


def test_structures_are_matched_by_name_and_what_the_first_lacks_is_left_out(tmp_path: Path):
    real = dataset(tmp_path / "real", left_ventricle=7, aorta=2)
    synthetic = dataset(tmp_path / "synthetic", aorta=1, coronary_artery=2, left_ventricle=3, lung=9)
    kept, found = together(real, synthetic)
    assert kept is real
    assert {label.name: label.code for label in found.labels} == {"left_ventricle": 7, "aorta": 2}
    before, after = synthetic.case("a").required_mask(), found.case("a").required_mask()
    assert np.array_equal(after, np.array([0, 2, 0, 7, 0, 0, 0, 0, 0, 0], np.uint8)[before])
    assert found.subset(["b"])[0].labels == found.labels
    assert [one.case_id for one in found.with_masks()] == ["a", "b"]
    assert read_dataset(tmp_path / "synthetic").labels == synthetic.labels


def test_two_structures_become_one_under_a_new_name_in_every_dataset(tmp_path: Path):
    real = dataset(tmp_path / "real", left_coronary_artery=1, right_coronary_artery=2)
    synthetic = dataset(tmp_path / "synthetic", coronary_artery=5)
    both = {"left_coronary_artery": "coronary_artery", "right_coronary_artery": "coronary_artery"}
    merged, found = together(real, synthetic, **both)
    assert merged.labels.codes == found.labels.codes == (1,)
    assert merged.labels.named("coronary_artery").components == 2
    assert int((merged.case("a").required_mask() == 1).sum()) == 4
    assert int((found.case("a").required_mask() == 1).sum()) == 2


def test_a_split_is_refused_with_the_mend(tmp_path: Path):
    real = dataset(tmp_path / "real", left_coronary_artery=1, right_coronary_artery=2)
    synthetic = dataset(tmp_path / "synthetic", coronary_artery=5)
    merge = "--map left_coronary_artery=coronary_artery --map right_coronary_artery=coronary_artery"
    with pytest.raises(InputError, match=f"a name cannot split a structure; make them one with {merge}"):
        one_table([real, synthetic], {})
    with pytest.raises(InputError, match=f"has no coronary_artery, but left.* and right.*; add {merge}"):
        one_table([synthetic, real], {})


def test_a_structure_that_is_lacking_is_told_with_what_there_is(tmp_path: Path):
    real, synthetic = dataset(tmp_path / "real", aorta=1, heart=2), dataset(tmp_path / "synthetic", great_vessel=5)
    with pytest.raises(InputError, match=r"has no aorta, heart, .*\(great_vessel\).*--map NAME=aorta, or leave it out"):
        one_table([real, synthetic], {})
    kept, found = together(real, synthetic, great_vessel="aorta", heart=None)
    assert kept.labels == found.labels
    assert [label.name for label in found.labels] == ["aorta"]


def test_names_that_nobody_has_are_answered_with_the_right_ones(tmp_path: Path):
    real, synthetic = dataset(tmp_path / "real", aorta=1), dataset(tmp_path / "synthetic", great_vessel=5)
    with pytest.raises(InputError, match=r"--map grate_vessel: .*did you mean 'great_vessel'"):
        one_table([real, synthetic], {"grate_vessel": "aorta"})
    with pytest.raises(
        InputError, match=r"--map great_vessel=aorte: .* has no structure 'aorte'; did you mean 'aorta'"
    ):
        one_table([real, synthetic], {"great_vessel": "aorte"})
    with pytest.raises(InputError, match="no target structure"):
        one_table([dataset(tmp_path / "lungs", lung=1)], {})


def test_a_mapped_dataset_says_what_became_of_it(tmp_path: Path):
    source = dataset(tmp_path / "source", aorta=1, heart=2)
    prepared = {"intensity_unit": "hu", "labels": {"aorta": 1, "heart": 2}}
    source = Dataset(source.root, replace(source.description, facts={"preparation": prepared}), source.rows)
    found = mapped(source, LabelMapping(names={"heart": None}))
    preparation = preparation_of(found)
    assert preparation is not None
    assert preparation.labels == {"aorta": 1}
    assert found.description.facts["mapping"] == {"aorta": "aorta", "heart": None}
    assert mapped(source, LabelMapping()) is source
