"""Every adversarial peer: resumed runs, seeds, provenance, and records that explain themselves."""

import numpy as np
import pytest
import torch

from cardiosynth.baselines.adversarial import (
    STAGE,
    AdversarialGenerator,
    AdversarialTask,
    build_game,
    train_adversarial,
)
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.random import generator
from cardiosynth.core.store import load_tensors, read_json, read_rows, save_tensors
from cardiosynth.data.loader import CaseCache
from cardiosynth.training.loop import fit as real_fit

from .adversaries import METHODS, SHAPES, box, boxes, stage_of

CONDITIONAL = [name for name, method in METHODS.items() if method.conditional]
STEPS = 3


@pytest.fixture(scope="module", params=list(METHODS))
def trained(request, tmp_path_factory):
    """Name, cases, run and generator of a method that was trained for three steps."""
    root = tmp_path_factory.mktemp(request.param)
    cases = boxes(root / "data", SHAPES[request.param])
    made = AdversarialGenerator(stage_of(request.param, steps=STEPS))
    made.fit(cases, root / "run")
    return request.param, cases, root / "run", made


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(trained, tmp_path, monkeypatch):
    name, cases, run, _ = trained
    monkeypatch.setattr("cardiosynth.baselines.adversarial.fit", lambda *a, **k: real_fit(*a, **k, stop_at=1))
    assert train_adversarial(cases, tmp_path, stage_of(name, steps=STEPS)).name == "step-0000001"
    monkeypatch.undo()
    train_adversarial(cases, tmp_path, stage_of(name, steps=STEPS))
    for file in ("model.safetensors", "training.safetensors"):
        one, other = (load_tensors(root / STAGE / f"step-{STEPS:07d}" / file) for root in (run, tmp_path))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert read_rows(run / STAGE / "metrics.jsonl") == read_rows(tmp_path / STAGE / "metrics.jsonl")


def test_both_sides_move_and_the_seed_decides_how(trained):
    name, _, run, made = trained
    weights = load_tensors(run / STAGE / f"step-{STEPS:07d}" / "training.safetensors")
    begun, same, other = (
        {
            f"raw.{key}": value
            for part, network in (("used", built.used), ("opponent", built.opponent))
            for key, value in ((f"{part}.{k}", v) for k, v in network.state_dict().items())
        }
        for built in (build_game(made.stage.model_copy(update={"training": t}), CARDIAC_CT) for t in (
            made.stage.training, made.stage.training, made.stage.training.model_copy(update={"seed": 1})
        ))
    )  # fmt: skip
    learned = [key for key in begun if f"optimizer.generator.{key[4:]}.exp_avg" in weights]
    judging = [key for key in begun if f"optimizer.discriminator.{key[4:]}.exp_avg" in weights]
    assert learned, name
    assert judging, name
    # A bias before a normalization has no gradient and stays.
    moved = {key for key in begun if not torch.equal(begun[key], weights[key])}
    assert moved & set(learned)
    assert moved & set(judging)
    assert all(torch.equal(begun[key], same[key]) for key in begun)
    assert not all(torch.equal(begun[key], other[key]) for key in learned)


def test_what_is_made_says_where_it_comes_from(trained):
    name, cases, run, made = trained
    case = made.generate(cases[0], cases[1], 5)
    record = read_json(run / STAGE / f"step-{STEPS:07d}" / "record.json")
    assert case.origin == "synthetic"
    assert case.image is not None
    assert case.image.dtype == np.int16
    assert np.array_equal(case.affine, cases[0].affine)
    facts = case.provenance
    assert facts["checkpoints"] == {STAGE: record["fingerprint"]}
    assert (facts["method"], facts["seed"], facts["template"], facts["licence"]) == (name, 5, "box-1", "CC0-1.0")
    if name in CONDITIONAL:
        assert np.array_equal(case.required_mask(), CARDIAC_CT.only_targets(cases[0].required_mask()))
        assert facts["parents"] == ["box-0"]
    else:
        assert case.mask is None
        assert facts["conditional"] is False


def test_a_seed_reproduces_and_another_seed_changes_what_is_drawn_from_noise(trained):
    name, cases, run, made = trained
    one, same, other = (made.generate(cases[0], cases[1], seed).required_image() for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert np.array_equal(one, other) == (name in CONDITIONAL)
    again = AdversarialGenerator(made.stage)
    again.fit(cases, run)
    assert np.array_equal(again.generate(cases[0], cases[1], 0).required_image(), one)


def test_the_record_explains_the_checkpoint(trained):
    name, cases, run, made = trained
    record = read_json(run / STAGE / f"step-{STEPS:07d}" / "record.json")
    assert record["settings"] == made.stage.model_dump(mode="json")
    assert record["settings"]["method"] == name
    assert record["settings"]["game"], "all of a game's own settings are told"
    assert record["labels"] == cases.labels.model_dump(mode="json")
    assert record["grid"] == {"shape": list(SHAPES[name]), "spacing_mm": [2.0] * len(SHAPES[name])}
    assert record["intensity"] == IntensityScale().model_dump(mode="json")
    assert record["licences"] == ["CC0-1.0"]


def test_unpaired_masks_come_from_any_case_and_paired_ones_from_their_own(tmp_path):
    for name, paired in (("pix2pix-3d", True), ("cyclegan", False)):
        cases = boxes(tmp_path / name, SHAPES[name])
        stage = stage_of(name)
        task = AdversarialTask(CaseCache(cases, stage.intensity), build_game(stage, CARDIAC_CT), stage)
        batch = task.batch([generator(0, index) for index in range(24)])
        masks = torch.stack([torch.from_numpy(cases[index].required_mask()) for index in batch["index"].tolist()])
        own = (batch["mask"] == masks).flatten(1).all(1)
        assert bool(own.all()) == paired
        assert bool(own.any())
        assert task.case_names(batch)[0] == f"box-{int(batch['index'][0])}"
        assert batch["image"].min() >= -1
        assert batch["image"].min() < -0.5


def test_weights_of_another_network_are_refused(tmp_path):
    cases, stage = boxes(tmp_path / "data", SHAPES["dcgan"]), stage_of("dcgan", steps=1)
    checkpoint = train_adversarial(cases, tmp_path / "run", stage)
    weights = load_tensors(checkpoint / "model.safetensors")
    save_tensors({"stranger": torch.ones(1), **weights}, checkpoint / "model.safetensors")
    with pytest.raises(InputError, match="does not know"):
        AdversarialGenerator(stage).fit(cases, tmp_path / "run")


def test_what_does_not_suit_is_refused(tmp_path):
    shape = SHAPES["cyclegan"]
    cases, made = boxes(tmp_path / "data", shape), AdversarialGenerator(stage_of("cyclegan", steps=1))
    with pytest.raises(InputError, match="call fit"):
        made.generate(cases[0], cases[1], 0)
    with pytest.raises(InputError, match=r"makes images on \(16, 16\)"):
        made.fit(boxes(tmp_path / "large", (20, 20)), tmp_path / "other")
    made.fit(cases, tmp_path / "run")
    with pytest.raises(InputError, match="--shape 16 16"):
        made.generate(box(0, (20, 20)), cases[1], 0)
    with pytest.raises(InputError, match="template of that unit"):
        made.generate(cases[0], box(1, shape, intensity_unit="mr"), 0)
    with pytest.raises(InputError, match="voxels of"):
        made.generate(box(0, shape, affine=np.eye(4)), cases[1], 0)
