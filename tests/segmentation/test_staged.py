import numpy as np
import pydantic
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.store import read_json
from cardiosynth.data.dataset import read_dataset, write_dataset
from cardiosynth.segmentation.predict import predict_ensemble
from cardiosynth.segmentation.staged import StagedTraining, load_folds, train_folds, train_staged

from . import chain as process
from .cases import SCALE, case, stage
from .killed import assert_same, killed_again_and_again

ONCE = stage(training=stage().training.model_copy(update={"steps": 1, "warmup_steps": 0}))


@pytest.mark.parametrize(("steps", "share"), [(60, 0.8), (7, 0.5), (1000, 0.123)])
def test_the_stages_have_all_steps_together(steps, share):
    whole = stage(training=stage().training.model_copy(update={"steps": steps}))
    staged = StagedTraining(stage=whole, pretrain_share=share, finetune_learning_rate=1e-3)
    first, second = staged.pretraining.training, staged.finetuning.training
    assert first.steps + second.steps == steps
    assert first.steps == pytest.approx(share * steps, abs=0.5)
    assert (first.learning_rate, second.learning_rate) == (whole.training.learning_rate, 1e-3)
    assert staged.finetuning.model_copy(update={"training": whole.training}) == whole


def test_steps_that_cannot_be_shared_out_are_refused():
    with pytest.raises(pydantic.ValidationError, match="take more steps"):
        StagedTraining(stage=ONCE)


def test_fine_tuning_goes_on_from_pretraining(tmp_path):
    two = stage(training=ONCE.training.model_copy(update={"steps": 2}))
    staged = StagedTraining(stage=two, pretrain_share=0.5)
    synthetic, real = [case(0), case(1)], [case(2), case(3)]
    last = train_staged(synthetic, real, tmp_path, staged, SCALE)
    first, second = (read_json(p / "record.json") for p in (tmp_path / "pre-trained/segmenter/step-0000001", last))
    assert second["init"] == first["fingerprint"]
    assert (first["cases"], second["cases"]) == (["box-0", "box-1"], ["box-2", "box-3"])
    assert train_staged(synthetic, real, tmp_path, staged, SCALE) == last


def test_every_fold_is_trained_without_its_patients_and_all_decide_together(tmp_path):
    write_dataset((case(i) for i in range(4)), tmp_path / "data")
    cases = read_dataset(tmp_path / "data")
    records = [read_json(p / "record.json") for p in train_folds(cases, tmp_path / "run", ONCE, SCALE, count=2)]
    trained_on = [set(record["cases"]) for record in records]
    assert trained_on[0].isdisjoint(trained_on[1])
    assert trained_on[0] | trained_on[1] == set(cases.case_ids)
    segmenters = load_folds(tmp_path / "run")
    assert [one.fingerprint for one in segmenters] == [record["fingerprint"] for record in records]
    assert predict_ensemble(segmenters, cases[0]).required_mask().shape == (1, 12, 12, 12)


def test_a_run_without_folds_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no fold-0"):
        load_folds(tmp_path)


@pytest.mark.slow
def test_kills_in_pretraining_fine_tuning_and_predicting_leave_no_trace(tmp_path):
    confidence = np.full((1, 12, 12, 12), 0.5, np.float32)
    made = [case(i, confidence=confidence, origin="synthetic") for i in (0, 1)]
    write_dataset(made, tmp_path / "data" / "synthetic")
    write_dataset([case(i) for i in (2, 3)], tmp_path / "data" / "real")
    write_dataset([case(i) for i in (4, 5)], tmp_path / "data" / "test")
    process.chain(tmp_path / "unbroken")
    # Steps of pre-training 5, of fine-tuning 3, cases 2; a checkpoint every two steps and at the end.
    deaths = {3: "pre-trained/segmenter/step-0000002", 5: "fine-tuned/segmenter/step-0000002", 2: "masks"}
    killed_again_and_again("tests.segmentation.chain", tmp_path / "broken", deaths)
    process.chain(tmp_path / "broken")
    assert_same(tmp_path / "unbroken", tmp_path / "broken", "segmenter")
