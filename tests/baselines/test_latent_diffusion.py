"""The diffusion peers as values: what they are told and how they are trained; what they do, `test_methods.py` shows."""

import numpy as np
import pytest
import torch
from diffusion.small import DENOISER, TRAINING, case, dataset

from cardiosynth.autoencoder.codebook import CodebookSettings
from cardiosynth.autoencoder.codec import load_codec, raw_statistics
from cardiosynth.autoencoder.networks import AutoencoderSettings
from cardiosynth.autoencoder.task import AutoencoderStage, train_autoencoder
from cardiosynth.baselines.latent_diffusion import CONCATENATED, untrained
from cardiosynth.baselines.method import Terms
from cardiosynth.baselines.registry import PEERS, load_method
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.random import generator
from cardiosynth.data.dataset import write_dataset
from cardiosynth.data.loader import CaseCache
from cardiosynth.diffusion.control import mask_alone
from cardiosynth.diffusion.latents import encode_dataset
from cardiosynth.diffusion.objective import Objective, ObjectiveSettings
from cardiosynth.diffusion.process import RectifiedFlow
from cardiosynth.diffusion.records import build_network
from cardiosynth.diffusion.settings import ControlStage, DiffusionStage
from cardiosynth.diffusion.task import DiffusionTask
from cardiosynth.sampling.generator import LatentDiffusionGenerator, LatentDiffusionStages, load_generator
from cardiosynth.sampling.sampler import SamplerSettings

SCALE = IntensityScale()
NAMES = ("controlnet", "t2i-adapter", "diffinfinite", "med-ddpm", "maisi", "wdm", "medical-diffusion", "ddpm")
STAGE = DiffusionStage(
    denoiser=DENOISER, condition=CONCATENATED, prediction="x0", normalization="raw", training=TRAINING
)
SAMPLER = SamplerSettings(steps=2, clamp="image", precision="fp32", confidence=None)
STAGES = LatentDiffusionStages(autoencoder=untrained("identity", 3), diffusion=STAGE, control=None)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("cases"), 3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", ["tiny", "demo", "paper"])
def test_every_size_holds_together_and_takes_all_steps(name, size):
    method = load_method(name, PEERS[name])
    generator = method.build(size, Terms((64,) * method.spatial_dims, SCALE, steps=1000, seed=3))
    stages = generator.stages
    assert parse_settings(LatentDiffusionStages, stages.model_dump(mode="json"), name) == stages
    trained = [stages.diffusion, stages.control] + [stages.autoencoder] * (not stages.autoencoder.network.is_fixed)
    trained = [stage for stage in trained if stage is not None]
    assert abs(sum(stage.training.steps for stage in trained) - 1000) <= 1
    assert {stage.training.seed for stage in trained} == {3}
    told = [stage.condition for stage in trained if isinstance(stage, DiffusionStage | ControlStage)]
    assert any(condition is not None for condition in told) == method.conditional
    assert all(condition.structures == "all" for condition in told if condition is not None)


@pytest.mark.parametrize("kind", ["identity", "haar"])
def test_voxels_and_wavelets_are_learned_as_they_are(cases, tmp_path, kind):
    train_autoencoder(cases, tmp_path, untrained(kind, 3), SCALE)
    codec = load_codec(tmp_path)
    latents = encode_dataset(codec, cases, tmp_path / "latents").normalized(raw_statistics(codec.latent_channels))
    mean, std = latents[0]
    assert not std.any()
    expected = codec.autoencoder.encode(CaseCache(cases, SCALE).image(0)[None])[0][0]
    torch.testing.assert_close(mean, expected, atol=1e-3, rtol=0)  # float16 on disk


@pytest.fixture(scope="module")
def pixels(cases, tmp_path_factory):
    """A generator on voxels that is told of masks, and its run."""
    run, made = tmp_path_factory.mktemp("pixels"), LatentDiffusionGenerator(STAGES, SAMPLER)
    made.fit(cases, run)
    return made, run


def test_a_generator_on_voxels_goes_through_all_that_others_go_through(pixels, cases):
    made, run = pixels
    one = made.generate(case(0), case(1), 0)
    again = load_generator(run, sampler=SAMPLER).generate(case(0), case(1), 0)
    np.testing.assert_array_equal(one.required_image(), again.required_image())
    assert one.provenance["checkpoints"].keys() == {"autoencoder", "diffusion"}
    assert one.required_image().min() >= SCALE.window.low
    assert (one.required_image() != made.generate(case(0), case(1), 1).required_image()).any()


def test_surroundings_are_told_where_all_structures_are(pixels):
    network = pixels[0].model.network
    condition = network.condition
    mask = torch.from_numpy(case(0).required_mask())[None]
    told = network.embed(mask_alone(mask))
    assert told.shape[1] == len(network.labels)
    assert torch.equal(told[0].sum(0), (mask[0, 0] > 0).float())
    targets = build_network(
        DENOISER, condition.model_copy(update={"structures": None}), pixels[0].model.codec, network.labels
    )
    left = targets.embed(mask_alone(mask))
    assert not left[0].sum(0)[mask[0, 0] == 9].any()


def test_one_that_is_told_nothing_shows_no_mask_and_looks_at_none(cases, tmp_path):
    stage = STAGE.model_copy(update={"condition": None})
    made = LatentDiffusionGenerator(STAGES.model_copy(update={"diffusion": stage}), SAMPLER)
    made.fit(cases, tmp_path)
    one, other = (made.generate(case(k, case_id="same"), case(1), 0) for k in (0, 2))
    assert one.mask is None
    assert one.provenance["conditional"] is False
    assert one.provenance["parents"] == []
    np.testing.assert_array_equal(one.required_image(), other.required_image())
    with pytest.raises(InputError, match="was told no masks"):
        load_generator(tmp_path)
    shifted = {"confidence": {"interval": 1, "mask_shift": 1}}
    sampler = parse_settings(SamplerSettings, {**SAMPLER.model_dump(mode="json"), **shifted}, "test")
    with pytest.raises(InputError, match="no mask that could be moved"):
        LatentDiffusionGenerator(made.stages, sampler, model=made.model).generate(case(0), case(1), 0)


def test_an_example_is_told_one_of_its_structures(cases, pixels):
    condition = CONCATENATED.model_copy(update={"classes": "one"})
    codec = pixels[0].model.codec
    module = build_network(DENOISER, condition, codec, cases.labels)
    latents = encode_dataset(codec, cases, pixels[1] / "latents")
    task = DiffusionTask(
        module, latents, Objective(RectifiedFlow(), "x0", ObjectiveSettings()), (), CaseCache(cases, SCALE)
    )
    batch = task.batch([generator(0, "batch", index) for index in range(40)])
    held = [set(mask.unique().tolist()) - {0} for mask in batch["reference"]]
    assert all(len(codes) == 1 for codes in held)
    assert set().union(*held) == {1, 4, 9}
    for index, told in zip(batch["index"].tolist(), batch["reference"], strict=True):
        whole = torch.from_numpy(cases[index].required_mask())
        assert torch.equal(told[told > 0], whole[told > 0])
        assert int((told > 0).sum()) == int((whole == told.max()).sum())


def test_latents_in_the_range_of_their_codes(cases, tmp_path):
    network = AutoencoderSettings(
        channels=(4, 8), num_res_blocks=(0, 1), latent_channels=2, codebook=CodebookSettings(codes=4, begin_step=1)
    )
    train_autoencoder(cases, tmp_path, AutoencoderStage(network=network, crop=(16, 16, 16), training=TRAINING), SCALE)
    codec = load_codec(tmp_path)
    latents = encode_dataset(codec, cases, tmp_path / "latents")
    seen = codec.with_statistics(latents.of_codes(codec))
    codes = seen.quantize(torch.linspace(-3, 3, 50).view(1, 1, 50, 1, 1).expand(1, 2, -1, -1, -1))
    assert codec.autoencoder.codebook is not None
    every = codec.autoencoder.codebook.codes.T[None, :, :, None, None]
    inside = seen._normalized((every, every))[0]
    assert float(inside.min()) == pytest.approx(-1)
    assert float(inside.max()) == pytest.approx(1)
    assert float(codes.abs().max()) <= 1 + 1e-6
    train_autoencoder(cases, tmp_path / "plain", untrained("haar", 3), SCALE)
    with pytest.raises(InputError, match="needs codes"):
        latents.of_codes(load_codec(tmp_path / "plain"))


def test_slices_without_any_structure_are_learned_from_by_a_control_that_is_told_of_masks(tmp_path):
    """Slices beyond the heart hold nothing."""
    method = load_method("controlnet", PEERS["controlnet"])
    flat = [case(i).with_(image=case(i).image[..., 4], mask=case(i).mask[..., 4]) for i in range(3)]
    empty = [one.with_(case_id=f"empty-{i}", mask=np.zeros_like(one.mask)) for i, one in enumerate(flat)]
    cases = write_dataset([*flat, *empty], tmp_path / "data")
    made = method.build("tiny", Terms((16, 16), SCALE, steps=3))
    made.fit(cases, tmp_path / "run")
    assert not made.generate(empty[0], flat[0], 0).required_mask().any()


def test_settings_that_cannot_work_are_refused():
    values = STAGE.model_dump()
    with pytest.raises(ValueError, match=r"drop_mask=0\.5"):
        DiffusionStage(**{**values, "condition": {**CONCATENATED.model_dump(), "classes": "one"}})
    with pytest.raises(ValueError, match="classes"):
        ControlStage(condition=CONCATENATED.model_copy(update={"classes": "one"}))
    with pytest.raises(ValueError, match="encoding=one_hot"):
        type(CONCATENATED)(**{**CONCATENATED.model_dump(), "encoding": "bits"})
    with pytest.raises(ValueError, match="nothing to learn"):
        AutoencoderStage(**{**untrained("haar", 3).model_dump(), "adversarial": {}})
