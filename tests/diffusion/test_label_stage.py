"""A first stage that is told of masks (FQCDM): slices, their labels in the decoder, and going on after a stop."""

import pytest
import torch

from cardiosynth.autoencoder.codec import load_codec
from cardiosynth.autoencoder.networks import AutoencoderSettings
from cardiosynth.autoencoder.task import AutoencoderStage, train_autoencoder
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.random import generator
from cardiosynth.core.store import load_tensors, read_json, read_rows
from cardiosynth.data.dataset import write_dataset
from cardiosynth.data.loader import CaseCache
from cardiosynth.diffusion.control import ConditionSettings
from cardiosynth.diffusion.dropout import ConditionDropout
from cardiosynth.diffusion.latents import encode_dataset
from cardiosynth.diffusion.objective import Objective, ObjectiveSettings
from cardiosynth.diffusion.process import ProcessSettings, build_process
from cardiosynth.diffusion.records import build_network, load_diffusion
from cardiosynth.diffusion.settings import DiffusionStage
from cardiosynth.diffusion.stages import train_diffusion
from cardiosynth.diffusion.task import DiffusionTask
from cardiosynth.training.loop import fit as real_fit
from cardiosynth.training.watch import WatchSettings

from .small import DENOISER, DIFFUSION, TRAINING, case

SPADE = ConditionSettings(kind="mask", encoding="one_hot", inject="spade", stem="area", features=4)
AUTOENCODER = AutoencoderStage(
    network=AutoencoderSettings(spatial_dims=2, channels=(4, 8), num_res_blocks=(0, 1), latent_channels=2),
    crop=(16, 16), thin_fraction=0.0, training=TRAINING,
)  # fmt: skip
STAGE = DiffusionStage(
    denoiser=DENOISER, condition=SPADE, drop_mask=0.5, process=ProcessSettings(kind="cosine"), prediction="v",
    objective=ObjectiveSettings(target_weight=1.0), watch=WatchSettings(cases=1, validate_every=1), training=TRAINING,
)  # fmt: skip
SCALE = IntensityScale(unit="mr")


def cut(index):
    """A slice of a small case, as MR."""
    whole = case(index)
    return whole.with_(image=whole.image[..., 4], mask=whole.mask[..., 4], intensity_unit="mr")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with both stages, and its slices, one of them without a mask."""
    root = tmp_path_factory.mktemp("trained")
    cases = write_dataset([*(cut(index) for index in range(4)), cut(4).with_(mask=None)], root / "data")
    train_autoencoder(cases, root / "run", AUTOENCODER, SCALE)
    train_diffusion(cases, root / "run", STAGE)
    return cases, root / "run"


def test_the_record_suffices_to_load_it(trained):
    cases, run = trained
    network, stage, record = load_diffusion(run, load_codec(run), "cpu")
    assert stage == STAGE
    assert network.condition == SPADE
    assert record["labels"] == cases.labels.model_dump(mode="json")
    saved = load_tensors(run / "diffusion" / "step-0000002" / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in network.state_dict().items())
    assert any(name.startswith("modulation.") for name in saved)


def test_a_stopped_stage_ends_like_an_unbroken_one(trained, tmp_path, monkeypatch):
    cases, run = trained
    with monkeypatch.context() as patch:
        patch.setattr("cardiosynth.diffusion.stages.fit", lambda *a, **k: real_fit(*a, **k, stop_at=1))
        train_diffusion(cases, tmp_path, STAGE, autoencoder=run)
    train_diffusion(cases, tmp_path, STAGE, autoencoder=run)
    for file in ("model.safetensors", "training.safetensors"):
        first, second = (load_tensors(r / "diffusion" / "step-0000002" / file) for r in (run, tmp_path))
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert [row["step"] for row in read_rows(tmp_path / "diffusion" / "metrics.jsonl")] == [1, 2]


def task_of(cases, run, drop=0.0):
    cases, codec = cases.with_masks(), load_codec(run)
    latents = encode_dataset(codec, cases, run / "latents")
    module = build_network(DENOISER, SPADE, codec, cases.labels)
    objective = Objective(build_process(STAGE.process), "v", STAGE.objective)
    return DiffusionTask(module, latents, objective, (), CaseCache(cases, SCALE), ConditionDropout(mask=drop))


def test_each_example_is_told_its_own_mask(trained):
    cases, run = trained
    task, given = task_of(cases, run), [cut(index).mask for index in range(4)]
    batch = task.batch([generator(0, "batch", index) for index in range(6)])
    for index, told in zip(batch["index"].tolist(), batch["reference"], strict=True):
        assert (told.numpy() == given[index]).all()


def test_what_an_example_lacks_is_drawn_last(trained):
    cases, run = trained
    rngs = lambda: [generator(0, "batch", index) for index in range(8)]  # noqa: E731
    whole, dropped = task_of(cases, run).batch(rngs()), task_of(cases, run, 0.5).batch(rngs())
    lacking = (dropped["reference"] == 0).flatten(1).all(1)
    assert 0 < int(lacking.sum()) < 8
    assert torch.equal(dropped["reference"][~lacking], whole["reference"][~lacking])
    assert all(torch.equal(dropped[name], whole[name]) for name in whole if name != "reference")


def test_a_stage_that_was_told_nothing_cannot_follow_a_mask(trained, tmp_path):
    cases, run = trained
    plain = DIFFUSION.model_copy(update={"training": TRAINING.model_copy(update={"steps": 1})})
    train_diffusion(cases, tmp_path, plain, autoencoder=run)
    record = read_json(tmp_path / "diffusion" / "step-0000001" / "record.json")
    assert "condition" not in record["settings"], "a run that was begun before there was one must go on"
    with pytest.raises(InputError, match="was told no masks"):
        load_diffusion(tmp_path, load_codec(run), "cpu")


def test_settings_that_cannot_work_are_refused():
    values = STAGE.model_dump()
    with pytest.raises(ValueError, match="sees one case at a time"):
        DiffusionStage(**{**values, "condition": {**SPADE.model_dump(), "kind": "template"}})
    with pytest.raises(ValueError, match="none to drop"):
        DiffusionStage(**{**values, "condition": None})
    with pytest.raises(ValueError, match="pure noise"):
        DiffusionStage(**{**values, "prediction": "epsilon"})
