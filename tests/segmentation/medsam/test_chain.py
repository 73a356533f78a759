"""Stage after stage: what each is given, how long it takes, and that kills leave no trace."""

from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.store import checkpoints, read_json, save_checkpoint
from cardiosynth.data.dataset import Dataset, read_dataset, write_dataset
from cardiosynth.recipes.weights import describe
from cardiosynth.segmentation.medsam.chain import MedsamTraining, train
from cardiosynth.segmentation.medsam.network import build_medsam
from cardiosynth.segmentation.medsam.predict import load_medsam
from cardiosynth.segmentation.medsam.task import STAGE

from ..cases import case
from ..killed import assert_same, killed_again_and_again
from . import chain as process
from .models import TINY, TRAINING, stage

SHAPE = (12, 12, 4)
ONE_STEP = MedsamTraining(
    stage=stage(freeze_encoder=True, cache_embeddings=True),
    counted_in="steps", pretraining=1, finetuning=1, real_only=2, finetune_learning_rate=1e-5,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of synthetic cases with confidence maps, real ones, and ones to test on."""
    folder = tmp_path_factory.mktemp("chain") / "data"
    confidence = np.full((1, *SHAPE), 0.5, np.float32)
    made = [case(i, SHAPE, confidence=confidence, origin="synthetic") for i in (0, 1)]
    write_dataset(made, folder / "synthetic")
    write_dataset([case(i, SHAPE) for i in (2, 3)], folder / "real")
    write_dataset([case(i, SHAPE) for i in (4, 5)], folder / "test")
    return folder


@pytest.fixture
def synthetic(data: Path) -> Dataset:
    return read_dataset(data / "synthetic")


@pytest.fixture
def real(data: Path) -> Dataset:
    return read_dataset(data / "real")


def released(run: Path) -> Path:
    """Write random weights as `import_medsam` would."""
    weights = {name: value.clone() for name, value in build_medsam(TINY, seed=5).state_dict().items()}
    save_checkpoint(run / STAGE, 0, weights, {}, {"stage": STAGE, "licences": ["Apache-2.0"]})
    return run


def test_fine_tuning_starts_where_pretraining_ended_and_that_from_released_weights(
    synthetic: Dataset, real: Dataset, tmp_path: Path
):
    settings = ONE_STEP.model_copy(update={"weights": released(tmp_path / "released")})
    last = train(synthetic, real, tmp_path / "run", settings)
    origin = read_json(tmp_path / "released" / STAGE / "step-0000000" / "record.json")
    first, second = (read_json(p / "record.json") for p in (*checkpoints(tmp_path / "run/pre-trained" / STAGE), last))
    assert (first["init"], second["init"]) == (origin["fingerprint"], first["fingerprint"])
    assert (first["cases"], second["cases"]) == (["box-0", "box-1"], ["box-2", "box-3"])
    assert (first["licences"], second["licences"]) == (["Apache-2.0", "unknown"],) * 2
    rates = [record["training"]["learning_rate"] for record in (first, second)]
    assert rates == [TRAINING.learning_rate, 1e-5]
    assert (first["step"], second["step"]) == (1, 1)
    assert load_medsam(tmp_path / "run").fingerprint == second["fingerprint"]
    assert [each["fingerprint"] for each in describe(tmp_path / "run")] == [first["fingerprint"], second["fingerprint"]]
    shown = sum(int(np.isin(one.required_mask(), (3, 7)).any((0, 1, 2)).sum()) for one in (*synthetic, *real))
    assert len(list((tmp_path / "run" / "embeddings").rglob("*.safetensors"))) == shown, "of both stages, each once"
    assert train(synthetic, real, tmp_path / "run", settings) == last
    with pytest.raises(InputError, match="was begun with"):
        train(None, real, tmp_path / "run", settings)


def test_either_stage_may_be_missing(synthetic: Dataset, real: Dataset, tmp_path: Path):
    alone = read_json(train(None, real, tmp_path / "real", ONE_STEP) / "record.json")
    assert (alone["step"], alone["init"], alone["cases"]) == (ONE_STEP.real_only, None, ["box-2", "box-3"])
    assert alone["training"]["learning_rate"] == TRAINING.learning_rate
    before = read_json(train(synthetic, None, tmp_path / "synthetic", ONE_STEP) / "record.json")
    assert (before["step"], before["cases"]) == (ONE_STEP.pretraining, ["box-0", "box-1"])
    assert load_medsam(tmp_path / "synthetic").fingerprint == before["fingerprint"]
    with pytest.raises(InputError, match="nothing to train on"):
        train(None, None, tmp_path / "none", ONE_STEP)


def test_lengths_are_the_published_epochs_or_steps():
    published = MedsamTraining()
    assert (published.pretraining, published.finetuning, published.real_only) == (800, 200, 1000)
    assert published.of_length(800).epochs == 800
    counted = published.model_copy(update={"counted_in": "steps"}).of_length(7, learning_rate=0.5)
    assert (counted.epochs, counted.training.steps, counted.training.learning_rate) == (None, 7, 0.5)


@pytest.mark.slow
def test_kills_in_pretraining_fine_tuning_and_predicting_leave_no_trace(data: Path):
    unbroken, broken = data.parent / "unbroken", data.parent / "broken"
    process.chain(unbroken)
    # Steps of pre-training 5, of fine-tuning 3, cases 2; a checkpoint every two steps and at the end.
    deaths = {3: "pre-trained/medsam/step-0000002", 5: "fine-tuned/medsam/step-0000002", 2: "masks"}
    killed_again_and_again("tests.segmentation.medsam.chain", broken, deaths)
    process.chain(broken)
    assert_same(unbroken, broken, STAGE)
