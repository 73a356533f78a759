from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.case import Case, IntensityUnit
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import NORMALIZED, NORMALIZED_MR, IntensityScale, Window
from cardiosynth.core.labels import label_table
from cardiosynth.data.dataset import Dataset, DatasetWriter, read_dataset, write_dataset
from cardiosynth.data.preparation import (
    Preparation,
    check_preparation,
    check_window,
    preparation_of,
    read_preparation,
    recorded_preparation,
    suited_scale,
)

WINDOW = Window(low=-1000, high=2000)
BASE = Preparation(
    shape=(8, 8, 8), spacing_mm=(1.5, 1.5, 2.0), intensity_unit="hu", window=WINDOW, labels={"heart": 1, "aorta": 2}
)
OTHERS = {
    "kind": "axial",
    "axes": "image",
    "shape": (8, 8, 16),
    "spacing_mm": (1.5, 1.5, 2.5),
    "intensity_unit": "mr",
    "window": Window(low=-1000, high=1000),
    "labels": {"heart": 2, "aorta": 1},
}


def dataset(root: Path, made: Preparation | None = BASE, masks: bool = True, unit: IntensityUnit = "hu") -> Dataset:
    """A dataset of one case that says it was prepared like this."""
    facts = {} if made is None else {"preparation": made.recorded()}
    mask = np.ones((1, 8, 8, 8), np.uint8) if masks else None
    labels = label_table({"heart": 1, "aorta": 2})
    image = np.zeros((1, 8, 8, 8), np.int16)
    with DatasetWriter(root, labels, facts=facts) as writer:
        writer.write(Case(case_id="a", image=image, mask=mask, affine=np.eye(4), labels=labels, intensity_unit=unit))
    return read_dataset(root)


def test_what_is_recorded_comes_back_and_its_fingerprint_is_of_nothing_else():
    assert read_preparation({"preparation": BASE.recorded()}) == BASE
    prints = {BASE.model_copy(update={field: value}).fingerprint for field, value in OTHERS.items()}
    assert len(prints | {BASE.fingerprint}) == len(Preparation.model_fields) + 1
    assert read_preparation({"preparation": {"shape": [8, 8, 8], "fingerprint": "f"}}) is None, "of an earlier version"


@pytest.mark.parametrize("field", OTHERS)
def test_every_field_that_differs_is_named_with_the_command_that_mends_it(field: str, tmp_path: Path):
    wanted = BASE.model_copy(update={field: OTHERS[field]})
    with pytest.raises(InputError, match=f"run/control was trained on: {field} is ") as error:
        check_preparation(dataset(tmp_path), {"preparation": wanted.recorded()}, Path("run/control"))
    if field == "intensity_unit":
        assert "take scans of that unit" in str(error.value)
    else:
        assert f"`cardiosynth prepare nnunet {tmp_path} OUT --" in str(error.value)
    check_preparation(dataset(tmp_path), {"preparation": wanted.recorded()}, Path("run"), besides=(field,))


def test_the_command_says_all_that_is_known():
    words = " ".join(BASE.model_copy(update={"axes": "image"}).options("run/control"))
    assert words == ("--shape 8 8 8 --spacing-mm 1.5 1.5 2 --axes image --window -1000 2000 --to-labels run/control")
    slices = Preparation(kind="short-axis", axes="image", shape=(128, 128), intensity_unit="mr")
    assert " ".join(slices.options("run")) == "--slices short-axis --size 128"


def test_what_is_not_recorded_is_not_compared(tmp_path: Path):
    unlike = BASE.model_copy(update={"shape": (16, 16, 16)}).recorded()
    check_preparation(dataset(tmp_path / "plain", None), {"preparation": unlike}, Path("run"))
    check_preparation(dataset(tmp_path / "made"), {"grid": {"shape": [16, 16, 16]}}, Path("run"))
    check_preparation([], {"preparation": unlike}, Path("run"))
    partial = Preparation(intensity_unit="hu").recorded()
    check_preparation(dataset(tmp_path / "made"), {"preparation": partial}, Path("run"))
    nearly = BASE.model_copy(update={"spacing_mm": (1.5, 1.5, 2.0000001)}).recorded()
    check_preparation(dataset(tmp_path / "made"), {"preparation": nearly}, Path("run"))


def test_images_without_masks_have_no_label_table(tmp_path: Path):
    found = dataset(tmp_path, masks=False)
    assert preparation_of(found) == BASE.model_copy(update={"labels": None})
    unlike = BASE.model_copy(update={"labels": OTHERS["labels"]}).recorded()
    check_preparation(found, {"preparation": unlike}, Path("run"))


def test_only_prepared_datasets_have_something_to_record(tmp_path: Path):
    assert recorded_preparation(dataset(tmp_path / "a")) == {"preparation": BASE.recorded()}
    plain = write_dataset([dataset(tmp_path / "a")[0]], tmp_path / "b")
    assert recorded_preparation(plain) == recorded_preparation([]) == {}


def test_a_window_that_the_set_was_not_prepared_for_is_refused(tmp_path: Path):
    check_window(dataset(tmp_path), IntensityScale(window=WINDOW))
    check_window(dataset(tmp_path), IntensityScale(unit="mr", window=Window(low=0, high=1)))
    with pytest.raises(InputError, match=r"--window -500 500, or set intensity\.window\.low=-1000"):
        check_window(dataset(tmp_path), IntensityScale(window=Window(low=-500, high=500)))


def test_normalized_mr_and_percentiles_of_each_slice_exclude_each_other(tmp_path: Path):
    plain = BASE.model_copy(update={"intensity_unit": "mr", "window": None})
    as_scanned = dataset(tmp_path / "own", plain, unit="mr")
    check_window(as_scanned, IntensityScale(unit="mr"))
    with pytest.raises(InputError, match=r"prepare it with --normalize, or set intensity\.percentiles"):
        check_window(as_scanned, NORMALIZED_MR)
    made = dataset(tmp_path / "normalized", plain.model_copy(update={"window": NORMALIZED}), unit="mr")
    check_window(made, NORMALIZED_MR)
    assert suited_scale(made) == NORMALIZED_MR
    assert suited_scale(as_scanned) == IntensityScale(unit="mr")
    assert suited_scale(dataset(tmp_path / "ct")) == IntensityScale(window=WINDOW)
    with pytest.raises(InputError, match="was normalized to 0 to 1000 volume by volume"):
        check_window(made, IntensityScale(unit="mr"))
    found = preparation_of(made)
    assert found is not None
    assert "--normalize" in found.options("run")
