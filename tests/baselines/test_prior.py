"""The prior's stage: its record explains it, a stop changes nothing, and examples are functions of their generators."""

import numpy as np
import pytest
import torch

from cardiosynth.autoencoder.codec import load_codec
from cardiosynth.autoencoder.task import train_autoencoder
from cardiosynth.baselines.prior import PriorTask, build_prior, case_codes, label_shares, load_prior, train_prior
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.random import generator
from cardiosynth.core.store import load_tensors
from cardiosynth.data.dataset import write_dataset
from cardiosynth.data.loader import CaseCache
from cardiosynth.diffusion.latents import encode_dataset
from cardiosynth.training.loop import fit as real_fit

from .slices import AUTOENCODER, PRIOR, SIZE, TRAINING, slice_case, slices


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with both stages and the slices that it was trained on."""
    root = tmp_path_factory.mktemp("prior")
    cases = slices(root / "data")
    train_autoencoder(cases, root / "run", AUTOENCODER, IntensityScale())
    train_prior(cases, root / "run", PRIOR)
    return cases, root / "run"


def test_shares_of_labels_are_those_of_their_blocks_in_raster_order():
    mask = torch.zeros((1, 1, 8, 8), dtype=torch.uint8)
    mask[0, 0, :4, 4:] = 4  # one block, the second in raster order
    mask[0, 0, 4, :4] = 9  # a row of the third
    shares = label_shares(mask, CARDIAC_CT, 4)
    expected = torch.zeros((1, 4, len(CARDIAC_CT.codes)))
    expected[0, 1, CARDIAC_CT.codes.index(4)] = 1
    expected[0, 2, CARDIAC_CT.codes.index(9)] = 0.25
    assert torch.equal(shares, expected)


def test_codes_are_those_of_the_cases(trained):
    cases, run = trained
    codec = load_codec(run)
    codes = case_codes(codec, encode_dataset(codec, cases, run / "latents"))
    assert codes.shape == (3, (SIZE // 4) ** 2)
    for row, case in zip(codes, cases, strict=True):
        own = codec.nearest_codes(codec.encode_case(case)[0])
        assert torch.equal(row.view(own.shape), own)
    assert len(codes.unique()) > 1


def task_of(cases, run, **changes):
    stage, codec = PRIOR.model_copy(update=changes), load_codec(run)
    module = build_prior(stage, codec, cases.labels, (SIZE, SIZE))
    codes = case_codes(codec, encode_dataset(codec, cases, run / "latents"))
    return PriorTask(module, codes, CaseCache(cases, codec.scale), codec.compression)


def test_an_example_is_a_function_of_its_generator_and_has_its_own_mask(trained):
    cases, run = trained
    task = task_of(cases, run)
    batch = task.batch([generator(0, "batch", index) for index in range(5)])
    alone = task.batch([generator(0, "batch", 4)])
    assert all(torch.equal(batch[name][4:], alone[name]) for name in alone)
    assert len(batch["index"].unique()) > 1
    for name, mask in zip(task.case_names(batch), batch["mask"], strict=True):
        np.testing.assert_array_equal(mask.numpy(), cases.case(name).mask)
    assert "mask" not in task_of(cases, run, conditional=False).batch([generator(0, "batch")])


def test_an_untrained_prior_knows_nothing(trained):
    cases, run = trained
    task = task_of(cases, run)
    parts = task.loss(task.batch([generator(0, "batch")]))
    assert abs(float(parts["total"].detach()) - np.log(8)) < 0.1


def test_the_record_suffices_to_load_it(trained):
    cases, run = trained
    network, stage, record = load_prior(run, load_codec(run))
    assert stage == PRIOR
    assert record["labels"] == cases.labels.model_dump(mode="json")
    assert record["grid"]["shape"] == [SIZE, SIZE]
    assert record["licences"] == ["CC0-1.0"]
    saved = load_tensors(run / "prior" / "step-0000003" / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in network.state_dict().items())


def test_a_stopped_stage_ends_like_an_unbroken_one(trained, tmp_path, monkeypatch):
    cases, run = trained
    (tmp_path / "autoencoder").symlink_to(run / "autoencoder")
    with monkeypatch.context() as patch:
        patch.setattr("cardiosynth.baselines.prior.fit", lambda *a, **k: real_fit(*a, **k, stop_at=1))
        train_prior(cases, tmp_path, PRIOR)
    train_prior(cases, tmp_path, PRIOR)
    for file in ("model.safetensors", "training.safetensors"):
        first, second = (load_tensors(r / "prior" / "step-0000003" / file) for r in (run, tmp_path))
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_autoencoder_without_codes_and_cases_on_two_grids_are_refused(trained, tmp_path):
    cases, run = trained
    late = AUTOENCODER.network.model_copy(
        update={"codebook": AUTOENCODER.network.codebook.model_copy(update={"begin_step": 9})}
    )
    stage = AUTOENCODER.model_copy(update={"network": late, "training": TRAINING.model_copy(update={"steps": 1})})
    train_autoencoder(cases, tmp_path, stage, IntensityScale())
    with pytest.raises(InputError, match="begin_step=9"):
        train_prior(cases, tmp_path, PRIOR)
    mixed = write_dataset([slice_case(0), slice_case(1, 2 * SIZE)], tmp_path / "mixed")
    with pytest.raises(InputError, match="grid"):
        train_prior(mixed, run, PRIOR)
