"""The generator: same seed same bits, mask and template matter, and what may not enter."""

import shutil

import numpy as np
import pytest
import torch
from diffusion.small import AUTOENCODER, CONTROL, DIFFUSION, SHAPE, case, dataset

from cardiosynth.autoencoder.codec import Codec
from cardiosynth.autoencoder.streaming import plan_decode
from cardiosynth.core.case import Case
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import Label, LabelTable
from cardiosynth.core.random import generator, named_seed
from cardiosynth.core.store import load_tensors, write_json
from cardiosynth.data.dataset import read_dataset, write_dataset
from cardiosynth.diffusion.process import RectifiedFlow, TimeShift, times
from cardiosynth.diffusion.stages import train_control
from cardiosynth.diffusion.unet import CT, TemplateUNet
from cardiosynth.sampling.confidence import ConfidenceSettings, moved_mask
from cardiosynth.sampling.generator import (
    Generator,
    LatentDiffusionGenerator,
    LatentDiffusionStages,
    load_generator,
)
from cardiosynth.sampling.model import LatentDiffusionModel, load_model
from cardiosynth.sampling.sampler import SamplerSettings, draw_latent

SAMPLER = SamplerSettings(steps=4, precision="fp32", confidence=ConfidenceSettings(interval=2))
PAIR = (case(0), case(1))
STAGES = LatentDiffusionStages(autoencoder=AUTOENCODER, diffusion=DIFFUSION, control=CONTROL)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run trained by the generator's own ``fit``."""
    root = tmp_path_factory.mktemp("run")
    LatentDiffusionGenerator(STAGES, SAMPLER).fit(dataset(root / "data"), root)
    return root


@pytest.fixture(scope="module")
def loaded(run):
    return load_generator(run, sampler=SAMPLER)


def test_a_case_comes_out_complete(loaded):
    mask = case(0, provenance={"parents": ["patient-3"], "mask": {"angle": 3}}).with_(image=None)
    made = loaded.generate(mask, case(1), 5)
    assert isinstance(loaded, Generator)
    assert made.image.dtype == np.int16
    assert made.image.shape == made.mask.shape == made.confidence.shape == (1, *SHAPE)
    assert made.origin == "synthetic"
    assert set(np.unique(made.mask)) == {0, 1, 4}  # surroundings come from the template
    facts = made.provenance
    assert (facts["parents"], facts["template"], facts["seed"]) == (["patient-3"], "small-1", 5)
    assert facts["mask"] == {"angle": 3}
    assert facts["acquisition"] == "protocol-1"
    assert facts["licence"] == "CC0-1.0"
    assert facts["checkpoints"].keys() == {"autoencoder", "diffusion", "control"}
    assert facts["confidence"]["images"] == 2
    assert facts["sampler"]["steps"] == 4


def test_same_seed_same_bits_in_any_order(loaded, run):
    pairs = [(case(0), case(1)), (case(2), case(3))]
    forth = {mask.case_id: loaded.generate(mask, template, 0) for mask, template in pairs}
    fresh = load_generator(run, sampler=SAMPLER)
    back = {mask.case_id: fresh.generate(mask, template, 0) for mask, template in reversed(pairs)}
    for name, made in forth.items():
        np.testing.assert_array_equal(made.image, back[name].image)
        np.testing.assert_array_equal(made.confidence, back[name].confidence)


def test_seed_mask_and_template_matter(loaded):
    first = loaded.generate(case(0), case(1), 0).image
    assert (first != loaded.generate(case(0), case(1), 1).image).any()
    assert (first != loaded.generate(case(0), case(2), 0).image).any()
    same_noise = case(2).with_(case_id="small-0", provenance={})
    assert (first != loaded.generate(same_noise, case(1), 0).image).any()


def test_surroundings_of_the_reference_mask_change_nothing(loaded):
    mask = case(0).mask.copy()
    mask[mask == 9] = 0
    with_, without = (loaded.generate(m, case(1), 0).image for m in (case(0), case(0).with_(mask=mask)))
    np.testing.assert_array_equal(with_, without)


def test_confidence_can_be_left_out_and_changes_no_image(loaded, run):
    plain = load_generator(run, sampler=SAMPLER.model_copy(update={"confidence": None})).generate(case(0), case(1), 0)
    assert plain.confidence is None
    np.testing.assert_array_equal(plain.image, loaded.generate(case(0), case(1), 0).image)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "latent"}, {"kind": "raw"}, {"steps": "last_half", "interval": 1}, {"mask_shift": 1},
        {"kind": "latent", "mask_shift": 1}, {"kind": "ensemble", "members": 2, "member_steps": 2},
    ],
)  # fmt: skip
def test_every_confidence_map_is_another_and_changes_no_image(loaded, run, changes):
    settings = SAMPLER.confidence.model_copy(update=changes)
    made = load_generator(run, sampler=SAMPLER.model_copy(update={"confidence": settings})).generate(*PAIR, 0)
    known = loaded.generate(*PAIR, 0)
    np.testing.assert_array_equal(made.image, known.image)
    assert (made.confidence != known.confidence).any()
    assert (made.confidence.min(), made.confidence.max()) == (0, 1)
    assert made.provenance["confidence"].items() >= changes.items()


def test_an_ensembles_map_is_the_deviation_over_samples_from_other_noise(run):
    settings = ConfidenceSettings(kind="ensemble", members=3, box=1, percentiles=(0.0, 100.0))
    made = load_generator(run, sampler=SAMPLER.model_copy(update={"confidence": settings})).generate(*PAIR, 0)
    plain = load_generator(run, sampler=SAMPLER.model_copy(update={"confidence": None}))
    others = [plain.generate(*PAIR, named_seed(0, "confidence", number)).image for number in (1, 2)]
    spread = np.std(np.stack([made.image, *others]), axis=0, ddof=1)
    expected = 1 - (spread - spread.min()) / (spread.max() - spread.min())
    np.testing.assert_allclose(made.confidence, expected, atol=0.02)  # the case's own image is not rounded


def test_a_moved_mask_is_told_to_the_network_in_its_place(loaded, run, monkeypatch):
    settings = SAMPLER.confidence.model_copy(update={"mask_shift": 1})
    made, told = load_generator(run, sampler=SAMPLER.model_copy(update={"confidence": settings})), []
    embed = made.model.network.embed
    monkeypatch.setattr(made.model.network, "embed", lambda condition: told.append(condition) or embed(condition))
    made.generate(*PAIR, 0)
    expected = [PAIR[0].mask, moved_mask(PAIR[0].mask, 1, 0), moved_mask(PAIR[0].mask, 1, 1)]
    for condition, mask in zip(told, expected, strict=True):
        np.testing.assert_array_equal(condition.reference[0].numpy(), mask)
        assert torch.equal(condition.template_image, told[0].template_image)


@pytest.mark.parametrize("solver", ["ddpm_ancestral", "ddim", "euler", "heun", "dpm_solver_pp_2m"])
def test_every_solver_generates(run, solver):
    sampler = SAMPLER.model_copy(update={"solver": solver})
    first, second = (load_generator(run, sampler=sampler).generate(case(0), case(1), 0) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)


def test_a_case_that_does_not_suit_is_refused_with_the_mend(loaded):
    with pytest.raises(InputError, match=r"need multiples of 8; run cardiosynth prepare with --shape 16 16 16 "):
        loaded.generate(case(0, (16, 16, 20)), case(1), 0)
    with pytest.raises(InputError, match=r"on both with the same --shape"):
        loaded.generate(case(0, (16, 16, 24)), case(1), 0)
    with pytest.raises(InputError, match="has no mask"):
        loaded.generate(case(0), case(1).with_(mask=None), 0)
    with pytest.raises(InputError, match="has no image"):
        loaded.generate(case(0), case(1).with_(image=None), 0)
    with pytest.raises(InputError, match="use a model of that unit"):
        loaded.generate(case(0), case(1).with_(intensity_unit="mr"), 0)
    coarser = case(0).with_(affine=np.diag([2.0, 2.0, 2.0, 1.0]) @ case(0).affine)
    with pytest.raises(InputError, match="another size than the model was trained on"):
        loaded.generate(coarser, case(1), 0)


def renamed(original: Case, codes: dict[int, tuple[str, int]]) -> Case:
    """The case with other codes and names."""
    mask = np.zeros_like(original.required_mask())
    labels = []
    for code, (name, new) in codes.items():
        mask[original.required_mask() == code] = new
        role = "surrounding" if code == 9 else "target"
        labels.append(Label(name=name, code=new, role=role, color=(new, new, new)))
    return original.with_(mask=mask, labels=LabelTable(labels=tuple(labels)))


def test_masks_with_other_codes_are_matched_by_name(loaded):
    names = {label.code: label.name for label in loaded.model.labels}
    codes = {code: (name, 40 + code) for code, name in names.items()}
    plain = loaded.generate(case(0), case(1), 0)
    other = loaded.generate(renamed(case(0), codes), renamed(case(1), codes), 0)
    np.testing.assert_array_equal(other.image, plain.image)
    np.testing.assert_array_equal(other.mask, np.where(plain.mask > 0, plain.mask + 40, 0))


def test_a_target_the_model_does_not_know_is_refused_and_a_surrounding_of_the_template_is_named(loaded):
    names = {label.code: label.name for label in loaded.model.labels}
    first = next(label.code for label in loaded.model.labels.targets)
    strange = {**{code: (name, code) for code, name in names.items()}, first: ("appendage", first)}
    with pytest.raises(InputError, match="never learned to draw appendage"):
        loaded.generate(renamed(case(0), strange), case(1), 0)
    made = loaded.generate(case(0), renamed(case(1), strange), 0)
    assert made.provenance["left_out"] == ["appendage"]
    assert made.provenance["not_in_template"] == [loaded.model.labels.targets[0].name]


def test_an_untrained_generator_says_so():
    with pytest.raises(InputError, match="call fit"):
        LatentDiffusionGenerator(STAGES, SAMPLER).generate(case(0), case(1), 0)


def test_a_loaded_generator_knows_how_it_was_trained(loaded):
    assert loaded.stages == STAGES


def test_fitting_a_finished_run_again_changes_nothing(run):
    before = load_tensors(run / "control" / "step-0000002" / "model.safetensors")
    LatentDiffusionGenerator(STAGES, SAMPLER).fit(read_dataset(run / "data"), run)
    after = load_tensors(run / "control" / "step-0000002" / "model.safetensors")
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_sampler_of_the_runs_recipe_is_the_default(run, tmp_path):
    shutil.copytree(run / "autoencoder", tmp_path / "autoencoder")
    shutil.copytree(run / "control", tmp_path / "control")
    assert load_generator(tmp_path).sampler == SamplerSettings()
    write_json(tmp_path / "recipe.json", {"sampler": SAMPLER.model_dump(mode="json")})
    assert load_generator(tmp_path).sampler == SAMPLER


def test_the_autoencoder_of_another_run_is_taken_where_named(run, tmp_path, loaded):
    shutil.copytree(run / "control", tmp_path / "control")
    with pytest.raises(InputError):
        load_generator(tmp_path)
    elsewhere = load_generator(tmp_path, sampler=SAMPLER, autoencoder=run)
    np.testing.assert_array_equal(
        elsewhere.generate(case(0), case(1), 0).image, loaded.generate(case(0), case(1), 0).image
    )


def test_mr_takes_the_window_of_the_template(tmp_path):
    root, scale = tmp_path / "data", IntensityScale(unit="mr")
    mr = [case(i).with_(image=(case(i).image + 200).clip(0), intensity_unit="mr") for i in range(3)]
    made = LatentDiffusionGenerator(STAGES.model_copy(update={"intensity": scale}), SAMPLER)
    made.fit(write_dataset(mr, root), tmp_path / "run")
    found = made.generate(mr[0], mr[1], 0)
    low, high = np.percentile(mr[1].image, scale.percentiles)
    assert found.image.dtype == np.float32
    assert low - 1e-3 <= found.image.min() <= found.image.max() <= high + 1e-3


def test_too_few_steps_for_a_confidence_map_are_refused():
    with pytest.raises(InputError, match="confidence needs two"):
        parse_settings(SamplerSettings, {"steps": 2, "confidence": {"interval": 2}}, "--set")


@pytest.mark.parametrize("solver", ["ddim", "heun", "ddpm_ancestral"])
def test_the_sampler_takes_its_steps_and_reaches_a_single_datum(solver):
    datum, seen = torch.full((1, 2, 3, 3, 3), 0.4), []
    noise = torch.randn(datum.shape, generator=generator(0, "noise"))
    found = draw_latent(
        SamplerSettings(solver=solver, steps=3, confidence=None),
        lambda x, t, c: datum,
        RectifiedFlow(),
        noise,
        None,
        rng=generator(0, "ancestral"),
        callback=lambda step, x, t, denoised: seen.append(float(t)),
    )
    torch.testing.assert_close(found, datum)
    assert seen == pytest.approx(times(3, "time", RectifiedFlow())[:-1].tolist())


def test_a_network_in_bfloat16_is_given_float32_states_and_changes_the_image_little(run, loaded):
    plain = loaded.generate(case(0), case(1), 0)
    rough, seen = guided(run, precision="bf16"), set()
    rough.model.network.register_forward_pre_hook(
        lambda module, inputs: seen.add((inputs[0].dtype, inputs[1].dtype, torch.is_autocast_enabled("cpu")))
    )
    made = rough.generate(case(0), case(1), 0)
    assert seen == {(torch.float32, torch.float32, True)}
    assert abs(made.image.astype(float) - plain.image).mean() < 0.02 * np.ptp(plain.image)


def test_the_shift_by_volume_moves_the_times():
    seen = []
    settings = SamplerSettings(solver="euler", steps=4, confidence=None, shift=TimeShift(by_volume=True))
    draw_latent(
        settings,
        lambda x, t, c: x * 0,
        RectifiedFlow(),
        torch.randn(1, 1, 64, 64, 64),
        None,
        rng=generator(0, "ancestral"),
        callback=lambda step, x, t, denoised: seen.append(float(t)),
    )
    assert seen == pytest.approx([1, 6 / 7, 2 / 3, 2 / 5])  # 2 t / (1 + t)


def test_another_size_of_the_same_voxels_is_made_where_the_networks_can(loaded):
    larger = (24, 16, 16)
    made = loaded.generate(case(0, larger), case(1, larger), 0)
    assert made.image.shape == made.confidence.shape == (1, *larger)
    assert made.image.std() > 0


@pytest.fixture(scope="module")
def dropped(run, tmp_path_factory):
    """The same run with a control stage that was trained with condition dropout."""
    root = tmp_path_factory.mktemp("dropped")
    for stage in ("autoencoder", "diffusion"):
        shutil.copytree(run / stage, root / stage)
    train_control(read_dataset(run / "data"), root, CONTROL.model_copy(update={"drop_template": 0.3, "drop_mask": 0.3}))
    return root


def guided(run, **changes):
    return load_generator(run, sampler=SAMPLER.model_copy(update=changes))


@pytest.mark.parametrize("part", ["template", "mask"])
def test_guidance_needs_a_model_trained_with_dropout(run, part):
    with pytest.raises(InputError, match=rf"never saw a case without its {part}; .* --set control.drop_{part}=0.1"):
        guided(run, **{f"guidance_{part}": 2.0}).generate(case(0), case(1), 0)


def test_guidance_changes_the_image_and_a_seed_repeats_it(dropped):
    plain, both = {}, {"guidance_template": 2.0, "guidance_mask": 1.0}
    made = [guided(dropped, **how).generate(case(0), case(1), 0) for how in (plain, both, both)]
    assert (made[0].image != made[1].image).any()
    np.testing.assert_array_equal(made[1].image, made[2].image)
    np.testing.assert_array_equal(made[1].confidence, made[2].confidence)
    assert (made[0].mask == made[1].mask).all()
    recorded = made[1].provenance["sampler"]
    assert (recorded["guidance_template"], recorded["guidance_mask"]) == (2.0, 1.0)


def test_how_guidance_is_computed_changes_no_more_than_rounding_and_is_not_recorded(dropped):
    weights = {"guidance_template": 2.0, "guidance_mask": 1.0}
    first, second = (
        guided(dropped, **weights, guidance_stacked=stacked).generate(case(0), case(1), 0) for stacked in (False, True)
    )
    assert abs(first.image.astype(int) - second.image).max() <= 1
    assert first.provenance["sampler"] == second.provenance["sampler"]


def test_each_variant_is_embedded_once_per_case(dropped, monkeypatch):
    made, calls = guided(dropped, guidance_template=2.0, guidance_mask=1.0), []
    network = made.model.network
    embed = network.embed
    monkeypatch.setattr(network, "embed", lambda condition: calls.append(condition) or embed(condition))
    made.generate(case(0), case(1), 0)
    assert len(calls) == 3


def test_every_decoding_keeps_to_the_budget_and_the_image_is_the_same(run, loaded, monkeypatch):
    autoencoder = loaded.model.codec.autoencoder
    shape = (1, loaded.model.codec.latent_channels, 8, 4, 4)
    larger = [case(index, (32, 16, 16)) for index in range(2)]
    budget_gb, seen = 0.7 * plan_decode(autoencoder, shape, None, torch.float32).peak_gb, []
    tight, decode = guided(run, decode_budget_gb=budget_gb), Codec.decode
    monkeypatch.setattr(Codec, "decode", lambda self, z, window, gb, _: seen.append(gb) or decode(self, z, window, gb))
    made, plain = tight.generate(*larger, 0), loaded.generate(*larger, 0)
    assert seen == [budget_gb] * 3 + [None] * 3  # two for the confidence map, and the image
    assert abs(made.image.astype(int) - plain.image).max() <= 1
    assert abs(made.confidence - plain.confidence).mean() < 1e-3
    assert made.provenance["sampler"] == plain.provenance["sampler"]
    with pytest.raises(InputError, match="GB"):
        guided(run, decode_budget_gb=1e-9).generate(*larger, 0)


@pytest.fixture
def told(run):
    """A generator whose networks are told the voxel size and the modality, with random weights."""
    model = load_model(run)
    size = model.first.denoiser.model_copy(update={"spacing_input": True, "num_modalities": 4})
    codec, known = model.codec, model.network
    network = TemplateUNet(codec.latent_channels, codec.compression, 3, size, known.condition, known.labels)
    shake = generator(0, "shake")
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=shake))
    network.requires_grad_(False).eval()
    record = {**model.record, "settings": {**model.record["settings"], "drop_template": 0.1}}
    sampler = SAMPLER.model_copy(update={"guidance_template": 1.0, "guidance_stacked": True})
    return LatentDiffusionGenerator(STAGES, sampler, model=LatentDiffusionModel(codec, network, model.first, record))


def test_networks_are_told_the_masks_acquisition_in_every_variant(told):
    seen = []
    told.model.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[3]))
    first = told.generate(case(0), case(1), 0)
    assert len(seen) == 4
    for acquisition in seen:
        assert acquisition.spacing_mm.tolist() == [[2.0, 2.0, 2.0]] * 2
        assert acquisition.modality.tolist() == [CT] * 2
    wider = case(0).with_(affine=np.diag([2.08, 2.08, 2.08, 1.0]))
    assert (told.generate(wider, case(1), 0).image != first.image).any()


def test_networks_that_must_be_told_refuse_a_case_of_unknown_voxel_size(told):
    with pytest.raises(InputError, match="voxel size is not known and this model must be told"):
        told.generate(case(0).with_(spacing_known=False), case(1), 0)
