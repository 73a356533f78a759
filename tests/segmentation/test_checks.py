import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale, Window
from cardiosynth.core.store import write_json
from cardiosynth.data.dataset import Dataset, DatasetWriter, read_dataset
from cardiosynth.data.preparation import Preparation
from cardiosynth.segmentation.checks import check_datasets, check_start

from .cases import LABELS, SCALE, case

FINE = Preparation(
    shape=(12, 12, 12), spacing_mm=(1.0, 1.0, 1.0), intensity_unit="hu", window=SCALE.window, labels={"chamber": 3}
)
COARSE = FINE.model_copy(update={"spacing_mm": (2.0, 2.0, 2.0)})
RENAMED = FINE.model_copy(update={"labels": {"chamber": 4}, "shape": (24, 24, 24)})


def prepared(root, made: Preparation) -> Dataset:
    with DatasetWriter(root, LABELS, facts={"preparation": made.recorded()}) as writer:
        writer.write(case(0))
    return read_dataset(root)


def test_datasets_prepared_otherwise_are_not_mixed_and_the_command_is_told(tmp_path):
    real = prepared(tmp_path / "real", FINE)
    with pytest.raises(InputError, match=r"real \(spacing_mm\); run `cardiosynth prepare nnunet .*--spacing-mm 1 1 1"):
        check_datasets([real, prepared(tmp_path / "synthetic", COARSE)], (), SCALE)
    check_datasets([real, prepared(tmp_path / "other", RENAMED), [case(1)]], (1, 2, 3), SCALE)


def test_a_dataset_prepared_for_another_window_is_refused(tmp_path):
    narrow = IntensityScale(window=Window(low=-500, high=800))
    with pytest.raises(InputError, match=r"was prepared for a window of -1000 to 2000 HU"):
        check_datasets([prepared(tmp_path, FINE)], (), narrow)


def test_weights_trained_on_other_voxels_are_no_start(tmp_path):
    record = {"preparation": COARSE.recorded()}
    write_json(tmp_path / "pre" / "step-0000001" / "record.json", record)
    data = prepared(tmp_path / "data", FINE)
    with pytest.raises(
        InputError, match=r"was prepared otherwise than what .*pre was trained on: spacing_mm is 1 x 1 x 1"
    ):
        check_start(tmp_path / "pre", data, LABELS, SCALE)
    check_start(tmp_path / "pre", [case(0)], LABELS, SCALE)
    check_start(tmp_path / "weights.safetensors", data, LABELS, SCALE)
