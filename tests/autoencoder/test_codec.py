import math

import numpy as np
import pytest
import torch

from cardiosynth.autoencoder.chain import Chain
from cardiosynth.autoencoder.codec import Codec, LatentStatistics, load_codec, measure_statistics, raw_statistics
from cardiosynth.autoencoder.folds import DepthToSpace, SpaceToDepth
from cardiosynth.autoencoder.layers import Convolve, Fork
from cardiosynth.autoencoder.networks import Autoencoder, AutoencoderSettings
from cardiosynth.autoencoder.task import train_autoencoder
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale, Window
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.store import read_json, write_json

from .blobs import blob, tiny_stage
from .random_networks import random_autoencoder

SETTINGS = AutoencoderSettings(channels=(8,), num_res_blocks=(1,), compression=2, latent_channels=8)


class Lossless(Autoencoder):
    """Eight latent channels at half size hold every voxel."""

    def __init__(self):
        super().__init__(SETTINGS)
        same = torch.nn.Conv3d(8, 8, 1, bias=False)
        same.weight.data = torch.eye(8).reshape(same.weight.shape)
        self.same = Convolve("same", same)
        self.somewhere = same.weight

    LOG_VARIANCE = (2 * math.log(0.25),) * 2

    def encoding(self):
        twice = (SpaceToDepth("fold"), Fork("moments", self.same, self.same))
        return Chain(twice)

    def decoding(self):
        return Chain((DepthToSpace("unfold"),))


def lossless(scale=IntensityScale(), statistics=raw_statistics(8)) -> Codec:  # noqa: B008
    return Codec(Lossless(), scale, CARDIAC_CT, statistics, "none", {})


@pytest.mark.parametrize("statistics", [raw_statistics(8), LatentStatistics(mean=(0.5,) * 8, std=(0.25,) * 8)])
def test_a_lossless_autoencoder_returns_the_image_whatever_the_latents_scale(statistics):
    case = blob(0)
    codec = lossless(statistics=statistics)
    mean, std = codec.encode_case(case)
    assert mean.shape == std.shape == (8, 8, 8, 8)
    np.testing.assert_allclose(codec.decode(mean, codec.window_of(case)), case.image, atol=1e-2)
    np.testing.assert_allclose(codec.reconstruct(case), case.image, atol=1e-2)


def test_within_a_budget_latents_and_image_are_the_same():
    settings = AutoencoderSettings(channels=(8,), num_res_blocks=(1,), compression=2)
    codec = Codec(random_autoencoder(settings), IntensityScale(), CARDIAC_CT, raw_statistics(4), "none", {})
    case = blob(0)
    mean, std = codec.encode_case(case)
    for found, expected in zip(codec.encode_case(case, budget_gb=6e-4), (mean, std), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    window = codec.window_of(case)
    np.testing.assert_allclose(codec.decode(mean, window, budget_gb=6e-4), codec.decode(mean, window), atol=0.05)
    with pytest.raises(InputError, match="smallest possible"):
        codec.decode(mean, window, budget_gb=1e-6)


def test_intensities_outside_the_window_are_clipped_to_it():
    codec = lossless(IntensityScale(window=Window(low=0.0, high=200.0)))
    restored = codec.reconstruct(blob(0))
    assert restored.min() == 0
    assert restored.max() == 200


def test_measured_statistics_normalize_the_draws_to_zero_mean_and_unit_variance():
    codec = lossless()
    latents = [codec.encode_case(blob(i)) for i in range(3)]
    statistics = measure_statistics(latents)
    normalized = [codec.with_statistics(statistics).encode_case(blob(i)) for i in range(3)]
    mean = torch.stack([m for m, _ in normalized])
    variance = mean.double().var(dim=(0, 2, 3, 4), correction=0) + normalized[0][1].double().flatten(1)[:, 0] ** 2
    torch.testing.assert_close(mean.double().mean(dim=(0, 2, 3, 4)), torch.zeros(8).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(variance, torch.ones(8).double(), atol=1e-5, rtol=0)


def test_another_unit_another_grid_and_a_missing_image_are_refused():
    case = blob(0)
    with pytest.raises(InputError, match="blob-0 is in mr"):
        lossless().encode_case(case.with_(intensity_unit="mr"))
    with pytest.raises(InputError, match="--shape 16 16 16"):
        lossless().encode_case(case.with_(image=case.image[:, :15], mask=None))
    with pytest.raises(InputError, match="no image"):
        lossless().encode_case(case.with_(image=None))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train_autoencoder([blob(0), blob(1)], folder, tiny_stage(), IntensityScale())
    return folder


def test_a_loaded_codec_repeats_itself_and_trains_nothing(run):
    one, two = load_codec(run), load_codec(run / "autoencoder")
    assert torch.equal(one.encode_case(blob(0))[0], two.encode_case(blob(0))[0])
    assert not any(parameter.requires_grad for parameter in one.autoencoder.parameters())
    assert one.latent_shape((16, 16, 16)) == (8, 8, 8)


def test_a_checkpoint_of_another_stage_or_a_run_without_one_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        load_codec(tmp_path)
    checkpoint = tmp_path / "step-0000003"
    checkpoint.mkdir()
    record = read_json(load_checkpoint(run) / "record.json")
    write_json(checkpoint / "record.json", {**record, "stage": "segmenter"})
    with pytest.raises(InputError, match="segmenter"):
        load_codec(tmp_path)


def test_weights_of_another_network_are_refused(run, tmp_path):
    source = load_checkpoint(run)
    checkpoint = tmp_path / source.name
    checkpoint.mkdir()
    record = read_json(source / "record.json")
    record["settings"]["network"]["channels"] = [16]
    write_json(checkpoint / "record.json", record)
    (checkpoint / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="shape"):
        load_codec(tmp_path)


def load_checkpoint(run):
    return next((run / "autoencoder").glob("step-*"))
