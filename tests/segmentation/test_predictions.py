"""Datasets of masks that our own segmenters predict: of one run, of stages, of folds."""

from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.store import save_checkpoint
from cardiosynth.data.dataset import Dataset, write_dataset
from cardiosynth.data.loader import CaseCache
from cardiosynth.segmentation import predictions
from cardiosynth.segmentation.networks import build_segmenter, target_classes
from cardiosynth.segmentation.predict import PredictionSettings, load_segmenter, predict_ensemble
from cardiosynth.segmentation.predictions import predict_dataset
from cardiosynth.segmentation.records import training_record
from cardiosynth.segmentation.staged import load_trained

from .cases import LABELS, SCALE, case, stage


def trained(run: Path, seed: int) -> Path:
    """Write a segmenter with random weights, as training would."""
    record = training_record("segmenter", stage(), CaseCache([case(0), case(1)], SCALE), SCALE, None)
    record["classes"] = target_classes(LABELS).model_dump(mode="json")
    network = build_segmenter(stage().network, target_classes(LABELS), seed)
    return save_checkpoint(run / "segmenter", 1, network.state_dict(), {}, record)


@pytest.fixture
def test(tmp_path: Path) -> Dataset:
    return write_dataset([case(4), case(5)], tmp_path / "test")


def test_a_runs_last_stage_is_what_it_ended_with_and_all_folds_of_it(tmp_path: Path):
    wanted = [load_segmenter(trained(tmp_path, 0)).fingerprint]
    assert [one.fingerprint for one in load_trained(tmp_path)] == wanted
    trained(tmp_path / "pre-trained", 1)
    assert [one.fingerprint for one in load_trained(tmp_path)] != wanted
    folds = [load_segmenter(trained(tmp_path / "fine-tuned" / f"fold-{i}", 2 + i)).fingerprint for i in range(2)]
    assert [one.fingerprint for one in load_trained(tmp_path)] == folds
    with pytest.raises(InputError, match="holds no checkpoint"):
        load_trained(tmp_path / "elsewhere")


def test_masks_are_those_of_the_ensemble_and_say_whose(test: Dataset, tmp_path: Path):
    segmenters = [load_segmenter(trained(tmp_path / "run" / f"fold-{i}", i)) for i in range(2)]
    settings = PredictionSettings(mirror_axes=(0,))
    found = predict_dataset(tmp_path / "run", test, tmp_path / "out", settings=settings)
    for one in found:
        wanted = predict_ensemble(segmenters, test.case(one.case_id), settings)
        assert np.array_equal(one.required_mask(), wanted.required_mask())
        assert one.image is None
        assert one.origin == test.case(one.case_id).origin
        assert one.provenance["segmented_by"] == "+".join(each.fingerprint for each in segmenters)
    with pytest.raises(InputError, match="was made with other settings"):
        predict_dataset(tmp_path / "run", test, tmp_path / "out")


def test_what_was_predicted_is_not_predicted_again(test: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trained(tmp_path / "run", 0)
    whole, seen = predictions.predict_ensemble, []

    def until_the_second(segmenters, one, settings):
        seen.append(one.case_id)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return whole(segmenters, one, settings)

    monkeypatch.setattr(predictions, "predict_ensemble", until_the_second)
    with pytest.raises(KeyboardInterrupt):
        predict_dataset(tmp_path / "run", test, tmp_path / "out")
    assert predict_dataset(tmp_path / "run", test, tmp_path / "out").case_ids == ("box-4", "box-5")
    assert seen == ["box-4", "box-5", "box-5"]
