"""The diffusion stages of a run: their records, their refusals, and going on after a stop."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from cardiosynth.autoencoder.codec import load_codec, raw_statistics
from cardiosynth.autoencoder.task import train_autoencoder
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.picture import contact_sheet
from cardiosynth.core.store import load_tensors, read_json, read_rows
from cardiosynth.data.dataset import write_dataset
from cardiosynth.diffusion.control import ConditionSettings
from cardiosynth.diffusion.latents import encode_dataset
from cardiosynth.diffusion.records import load_control
from cardiosynth.diffusion.stages import ControlStage, DiffusionStage, train_control, train_diffusion
from cardiosynth.training.loop import fit as real_fit
from cardiosynth.training.watch import WatchSettings

from .small import AUTOENCODER, CONTROL, DENOISER, DIFFUSION, case, dataset


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with all stages, and its data set."""
    root = tmp_path_factory.mktemp("trained")
    cases, run = dataset(root / "data"), root / "run"
    train_autoencoder(cases, run, AUTOENCODER, IntensityScale())
    train_diffusion(cases, run, DIFFUSION)
    train_control(cases, run, CONTROL)
    return cases, run


def test_measured_statistics_normalize_the_latents_draws(trained):
    cases, run = trained
    latents = encode_dataset(load_codec(run), cases, run / "latents")
    assert latents.statistics == raw_statistics(2)
    normalized = list(latents.normalized(latents.measured()))
    means = torch.stack([mean for mean, _ in normalized]).double()
    variance = means.square() + torch.stack([std for _, std in normalized]).double().square()
    torch.testing.assert_close(means.mean((0, 2, 3, 4)), torch.zeros(2).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(variance.mean((0, 2, 3, 4)), torch.ones(2).double(), atol=1e-4, rtol=0)


def test_records_say_what_the_checkpoints_are(trained):
    cases, run = trained
    records = {name: read_json(run / name / "step-0000002" / "record.json") for name in ("diffusion", "control")}
    codec = load_codec(run)
    for name, record in records.items():
        assert record["stage"] == name
        assert record["autoencoder"] == codec.fingerprint
        assert record["grid"] == {"shape": [16, 16, 16], "spacing_mm": [2.0, 2.0, 2.0]}
        assert record["licences"] == ["CC0-1.0"]
        assert record["labels"] == cases.labels.model_dump(mode="json")
    assert records["control"]["diffusion"] == records["diffusion"]["fingerprint"]
    assert records["control"]["statistics"] == records["diffusion"]["statistics"]
    assert parse_settings(DiffusionStage, records["control"]["first_stage"], "record") == DIFFUSION
    assert parse_settings(ControlStage, records["control"]["settings"], "record") == CONTROL


def test_control_begins_as_the_diffusion_stage_and_is_loaded_as_trained(trained):
    _, run = trained
    network, first, record = load_control(run, load_codec(run), "cpu")
    assert first == DIFFUSION
    saved = load_tensors(run / "control" / "step-0000002" / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in network.state_dict().items())
    assert not any(p.requires_grad for p in network.parameters())
    assert record["step"] == 2


@pytest.mark.parametrize("stage", ["diffusion", "control"])
def test_a_stopped_stage_ends_like_an_unbroken_one(trained, tmp_path, monkeypatch, stage):
    cases, run = trained
    again = tmp_path / "run"
    shutil.copytree(run, again)
    shutil.rmtree(again / stage)

    def stopping(*args, **options):
        return real_fit(*args, **options, stop_at=1)

    train, settings = {"diffusion": (train_diffusion, DIFFUSION), "control": (train_control, CONTROL)}[stage]
    with monkeypatch.context() as patch:
        patch.setattr("cardiosynth.diffusion.stages.fit", stopping)
        assert train(cases, again, settings).name == "step-0000001"
    assert train(cases, again, settings).name == "step-0000002"
    for file in ("model.safetensors", "training.safetensors"):
        first, second = (load_tensors(r / stage / "step-0000002" / file) for r in (run, again))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_images_without_masks_train_the_first_stage_but_not_the_second(trained, tmp_path):
    _, run = trained
    bare = write_dataset([case(0).with_(mask=None), case(1).with_(mask=None), case(2)], tmp_path / "bare")
    shutil.copytree(run / "autoencoder", tmp_path / "run" / "autoencoder")
    objective = CONTROL.objective  # weighted, where there is a mask
    train_diffusion(bare, tmp_path / "run", DIFFUSION.model_copy(update={"objective": objective}))
    with pytest.raises(InputError, match="has 1 case with what this stage needs"):
        train_control(bare, tmp_path / "run", CONTROL)


def test_stages_of_another_autoencoder_are_refused(trained, tmp_path):
    cases, run = trained
    other = tmp_path / "run"
    reseeded = AUTOENCODER.training.model_copy(update={"seed": 1})
    train_autoencoder(cases, other, AUTOENCODER.model_copy(update={"training": reseeded}), IntensityScale())
    with pytest.raises(InputError, match="was trained with the autoencoder"):
        train_control(cases, other, CONTROL, diffusion=run)


def test_a_missing_or_wrong_stage_is_named(trained, tmp_path):
    cases, run = trained
    with pytest.raises(InputError, match="holds no checkpoint"):
        train_control(cases, tmp_path, CONTROL, autoencoder=run)
    with pytest.raises(InputError, match="is of stage 'diffusion', not control"):
        load_control(run / "diffusion" / "step-0000002", load_codec(run), "cpu")


def test_grids_that_do_not_suit_are_refused(trained, tmp_path):
    _, run = trained
    odd = write_dataset([case(i, (12, 12, 12)) for i in range(2)], tmp_path / "odd")
    with pytest.raises(InputError, match="prepare --shape"):
        train_diffusion(odd, tmp_path / "run", DIFFUSION, autoencoder=run)
    mixed = write_dataset([case(0), case(1, (24, 16, 16))], tmp_path / "mixed")
    with pytest.raises(InputError, match="small-1 is not on a grid of"):
        train_diffusion(mixed, tmp_path / "run", DIFFUSION, autoencoder=run)


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="pure noise"):
        DiffusionStage(**{**DIFFUSION.model_dump(), "prediction": "epsilon"})
    with pytest.raises(ValueError, match="freeze_unet leaves no weight"):
        ControlStage(condition=ConditionSettings(inject="concatenate"), freeze_unet=True)


def test_weights_of_another_run_are_a_starting_point(trained, tmp_path):
    cases, run = trained
    train_diffusion(cases, tmp_path, DIFFUSION, autoencoder=run, init=run)
    record = read_json(tmp_path / "diffusion" / "step-0000002" / "record.json")
    assert record["init"] == read_json(run / "diffusion" / "step-0000002" / "record.json")["fingerprint"]


@pytest.mark.parametrize("stage", ["diffusion", "control"])
def test_validation_is_logged_and_changes_no_weight(trained, tmp_path, stage):
    cases, run = trained
    train, settings = {"diffusion": (train_diffusion, DIFFUSION), "control": (train_control, CONTROL)}[stage]
    shutil.copytree(run, tmp_path / "run")
    found = {}
    for every in (0, 1):
        shutil.rmtree(tmp_path / "run" / stage)
        watch = WatchSettings(cases=1, validate_every=every)
        folder = train(cases, tmp_path / "run", settings.model_copy(update={"watch": watch})).parent
        found[every] = load_tensors(folder / "step-0000002" / "training.safetensors")
        rows = read_rows(folder / "metrics.jsonl")
        assert [("validation/mse" in row) for row in rows] == [bool(every)] * 2
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    assert rows[0]["validation/mse"] != rows[1]["validation/mse"]


def drawn(trainee, template, reference):
    """A sampler that draws the template, a little darker."""
    assert not trainee.network.training
    name = "sample" if reference is None else f"synthetic-{reference.case_id}"
    return template.with_(case_id=name, image=template.image - np.int16(50), origin="synthetic")


@pytest.mark.parametrize(
    ("held_out", "rows"), [(0, ["training: small-0", "training: small-1"]), (1, ["held out: small-"])]
)
def test_sheets_are_drawn_of_held_out_cases_or_say_that_they_are_not(trained, tmp_path, monkeypatch, held_out, rows):
    cases, run = trained
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "control")
    titles = []
    monkeypatch.setattr(
        "cardiosynth.diffusion.sheets.contact_sheet",
        lambda pictures, rows, columns: titles.append(rows) or contact_sheet(pictures, rows, columns),
    )
    watch = WatchSettings(cases=held_out, sheet_every=2)
    train_control(cases, tmp_path / "run", CONTROL.model_copy(update={"watch": watch}), draw=drawn)
    (sheet,) = (tmp_path / "run" / "control" / "samples").iterdir()
    assert sheet.name == "step-0000002.png"
    told = [title for title in titles[0] if title]
    assert all(title.startswith(row) for title, row in zip(told, rows, strict=True))
    with Image.open(sheet) as picture:
        assert picture.width > 4 * 200


def test_sheets_of_the_first_stage_show_samples(trained, tmp_path):
    cases, run = trained
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "diffusion")
    stage = DIFFUSION.model_copy(update={"watch": WatchSettings(sheet_every=1, sheet_cases=1)})
    train_diffusion(cases, tmp_path / "run", stage, draw=drawn)
    sheets = tmp_path / "run" / "diffusion" / "samples"
    assert sorted(path.name for path in sheets.iterdir()) == ["step-0000001.png", "step-0000002.png"]


def test_crops_train_both_stages_and_are_checked(trained, tmp_path):
    cases, run = trained
    shutil.copytree(run / "autoencoder", tmp_path / "run" / "autoencoder")
    cropped = {"crop": (8, 8, 16)}
    train_diffusion(cases, tmp_path / "run", DIFFUSION.model_copy(update=cropped))
    last = train_control(cases, tmp_path / "run", CONTROL.model_copy(update=cropped))
    assert read_json(last / "record.json")["settings"]["crop"] == [8, 8, 16]
    for crop, part in (((8, 8, 4), "multiples of 8 voxels"), ((8, 8, 24), "larger than the grid")):
        with pytest.raises(InputError, match=part):
            train_diffusion(cases, tmp_path / "other", DIFFUSION.model_copy(update={"crop": crop}), autoencoder=run)


def test_a_network_that_is_told_the_voxel_size_must_be(trained, tmp_path):
    _, run = trained
    told = DIFFUSION.model_copy(update={"denoiser": DENOISER.model_copy(update={"spacing_input": True})})
    known = write_dataset([case(0), case(1)], tmp_path / "known")
    assert train_diffusion(known, tmp_path / "run", told, autoencoder=run).name == "step-0000002"
    unknown = write_dataset([case(0), case(1, spacing_known=False)], tmp_path / "unknown")
    with pytest.raises(InputError, match="case small-1 has no voxel size, which this network must be told"):
        train_diffusion(unknown, tmp_path / "other", told, autoencoder=run)
