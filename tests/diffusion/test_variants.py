"""Looks in training: made once, the same for both images of a pair, and absent where none is asked for."""

import shutil

import pytest
import torch

from cardiosynth.anatomy.appearance import AppearanceSettings, appearances, changed
from cardiosynth.autoencoder.codec import load_codec, raw_statistics
from cardiosynth.autoencoder.task import train_autoencoder
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.random import generator
from cardiosynth.core.store import load_tensors, read_json
from cardiosynth.data.dataset import write_dataset
from cardiosynth.data.loader import CaseCache
from cardiosynth.diffusion.control import ConditionSettings, palette
from cardiosynth.diffusion.latents import encode_dataset
from cardiosynth.diffusion.objective import Objective, ObjectiveSettings
from cardiosynth.diffusion.process import RectifiedFlow
from cardiosynth.diffusion.stages import ControlStage, train_control, train_diffusion
from cardiosynth.diffusion.task import ControlTask, without_partner
from cardiosynth.diffusion.variants import encode_variants
from cardiosynth.training.loop import fit as real_fit

from .small import AUTOENCODER, CONTROL, DIFFUSION, case, dataset
from .test_task import generators, network

LOOKS = AppearanceSettings(variants=2, noise_hu=(5.0, 20.0))
CHANGED = CONTROL.model_copy(update={"appearance": LOOKS})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run before its control stage, and its data set."""
    root = tmp_path_factory.mktemp("variants")
    cases, run = dataset(root / "data"), root / "run"
    train_autoencoder(cases, run, AUTOENCODER, IntensityScale())
    train_diffusion(cases, run, DIFFUSION)
    return cases, run


@pytest.fixture(scope="module")
def variants(trained):
    cases, run = trained
    return encode_variants(load_codec(run), cases, run / "latents", appearances(LOOKS))


def task(trained, variants, **options) -> ControlTask:
    cases, run = trained
    cache = CaseCache(cases, IntensityScale(), needs_masks=True)
    latents = encode_dataset(load_codec(run), cases, run / "latents")
    objective = Objective(RectifiedFlow(), "flow", ObjectiveSettings(latents="mean"))
    return ControlTask(network("concatenate"), cache, latents, objective, variants=variants, **options)


def test_latents_image_and_palette_are_of_one_changed_image(trained, variants):
    cases, run = trained
    codec = load_codec(run)
    for look, variant in zip(appearances(LOOKS), variants, strict=True):
        wanted = changed(cases[1], look)
        mean, _ = codec.with_statistics(raw_statistics(2)).encode_case(wanted)
        torch.testing.assert_close(variant.latents[1][0], mean, atol=2e-3 * float(mean.std()), rtol=0)
        shown = torch.from_numpy(codec.window_of(wanted).to_model(wanted.required_image().astype("float32")))
        torch.testing.assert_close(variant.image(1), shown)
        part = (slice(4, 12), slice(0, 8), slice(8, 16))
        torch.testing.assert_close(variant.image(1, part), shown[(slice(None), *part)])
        own = palette(shown, torch.from_numpy(cases[1].required_mask()), cases.labels)
        torch.testing.assert_close(variant.palette(1), own)


def test_files_know_their_look_image_and_mask_and_are_written_once(trained, variants, tmp_path):
    cases, run = trained
    codec, looks = load_codec(run), appearances(LOOKS)
    plain = encode_dataset(codec, cases, run / "latents").files
    names = {file.name for files in (plain, *(v.latents.files for v in variants)) for file in files}
    assert len(names) == 3 * len(cases)
    before = variants[0].latents.files[0].stat().st_mtime_ns
    again = encode_variants(codec, cases, run / "latents", looks)
    assert again[0].latents.files == variants[0].latents.files
    assert variants[0].latents.files[0].stat().st_mtime_ns == before
    other = write_dataset([case(0).with_(mask=case(1).mask), case(1)], tmp_path / "other")
    remade = encode_variants(codec, other, tmp_path / "latents", looks[:1])[0].latents.files
    assert [file.name == kept.name for file, kept in zip(remade, variants[0].latents.files, strict=False)] == [
        False,
        True,
    ]


@pytest.mark.parametrize("bidirectional", [True, False])
def test_both_images_of_a_pair_have_one_look(trained, variants, bidirectional):
    made, seen = task(trained, variants, bidirectional=bidirectional), set()
    looks = [(made._latents, made._cases.image, made._palettes.__getitem__)]
    looks += [(v.latents, v.image, v.palette) for v in variants]
    for number in range(12):
        batch = made.batch([generator(0, "pair", number)])
        drawn = []
        for direction in range(2):
            target, template = batch["index"][direction].tolist()
            (found,) = [
                i for i, (latents, image, shades) in enumerate(looks)
                if torch.equal(batch["x0"][direction], latents[target][0])
                and torch.equal(batch["template_image"][direction], image(template))
                and torch.equal(batch["palette"][direction], shades(template))
            ]  # fmt: skip
            drawn.append(found)
        assert not bidirectional or drawn[0] == drawn[1]
        seen.update(drawn)
    assert seen == {0, 1, 2}


def test_without_looks_examples_are_what_they_were(trained, variants):
    plain, looked = task(trained, ()), task(trained, variants)
    for name, value in plain.batch(generators(2)).items():
        assert value.dtype == looked.batch(generators(2))[name].dtype
    rng = generator(0, "batch")
    pairs = plain.pairs(rng)
    after = generator(0, "batch")
    assert looked.pairs(after) == pairs
    plain._look(rng)
    assert torch.equal(rng.get_state(), after.get_state()), "a random number was drawn for no look"
    looked._look(rng)
    assert not torch.equal(rng.get_state(), after.get_state())


def test_held_out_cases_are_seen_as_they_were_scanned(trained, variants):
    for index in range(4):
        one, two = (task(trained, v, held_out=(1,)).held_out_batch(1, generator(index)) for v in ((), variants))
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_stopped_stage_with_looks_ends_like_an_unbroken_one(trained, tmp_path, monkeypatch):
    cases, run = trained
    runs = [tmp_path / name for name in ("whole", "stopped")]
    for copy in runs:
        shutil.copytree(run, copy)

    def stopping(*args, **options):
        return real_fit(*args, **options, stop_at=1)

    train_control(cases, runs[0], CHANGED)
    with monkeypatch.context() as patch:
        patch.setattr("cardiosynth.diffusion.stages.fit", stopping)
        train_control(cases, runs[1], CHANGED)
    train_control(cases, runs[1], CHANGED)
    for file in ("model.safetensors", "training.safetensors"):
        first, second = (load_tensors(r / "control" / "step-0000002" / file) for r in runs)
        assert all(torch.equal(first[name], second[name]) for name in first)
    record = read_json(runs[0] / "control" / "step-0000002" / "record.json")
    assert record["appearances"] == [look.facts() for look in appearances(LOOKS)]
    assert record["settings"]["appearance"]["variants"] == 2
    with pytest.raises(InputError, match="was begun with"):
        train_control(cases, runs[0], CONTROL)


def test_runs_from_before_there_were_looks_go_on(trained, tmp_path):
    cases, run = trained
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    record = read_json(train_control(cases, copy, CONTROL) / "record.json")
    assert "appearance" not in record["settings"]
    assert "appearances" not in record


def test_looks_need_a_template_and_blood(trained, tmp_path):
    with pytest.raises(ValueError, match="no template to tell a look"):
        ControlStage(condition=ConditionSettings(kind="mask"), appearance=LOOKS)
    cases, run = trained
    bloodless = CONTROL.model_copy(update={"appearance": LOOKS.model_copy(update={"blood_pools": (("liver_vein",),)})})
    with pytest.raises(InputError, match="blood_pools names no structure"):
        train_control(cases, run, bloodless)


def test_who_has_no_partner_is_said_once(trained, tmp_path, capsys):
    _, run = trained
    stage = CONTROL.model_copy(
        update={"condition": CONTROL.condition.model_copy(update={"template": "same_acquisition"})}
    )
    kinds = {"none": ("a", "b", None), "some": ("a", "a", ""), "all": ("a", "a", "a")}
    for name, acquisitions in kinds.items():
        real = [
            case(i, provenance={"acquisition": kind} if kind is not None else {}) for i, kind in enumerate(acquisitions)
        ]
        cases = write_dataset(real, tmp_path / name)
        train_control(cases, tmp_path / f"run-{name}", stage, autoencoder=run, diffusion=run)
        said = capsys.readouterr().err
        assert said.count("No case shares its acquisition") == (name == "none")
        assert said.count("1 of 3 cases share their acquisition with none") == (name == "some")
    cache = CaseCache([case(i, provenance={"acquisition": "series"}) for i in range(3)], IntensityScale())
    assert without_partner(cache) == []
    assert without_partner(cache, held_out=(1, 2)) == [0]  # fmt: skip
