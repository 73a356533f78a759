"""Autoencoders without weights: Haar's transform against its closed forms, and a stage without training."""

from dataclasses import replace

import pytest
import torch

from cardiosynth.autoencoder import streaming
from cardiosynth.autoencoder.codec import load_codec
from cardiosynth.autoencoder.fixed import MEAN_GAIN, fixed_settings, haar_matrix
from cardiosynth.autoencoder.networks import AutoencoderSettings, build_autoencoder
from cardiosynth.autoencoder.task import AutoencoderStage, train_autoencoder
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale, Window
from cardiosynth.core.store import checkpoints, read_json

from .blobs import blob

DIMS = pytest.mark.parametrize("dims", [2, 3])
KINDS = pytest.mark.parametrize("kind", ["identity", "haar"])


def random_image(dims, side=8):
    return torch.rand((2, 1, *(side,) * dims), generator=torch.Generator().manual_seed(dims))


@DIMS
def test_haar_is_orthonormal(dims):
    matrix = haar_matrix(dims)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(2**dims, dtype=torch.float64))


@DIMS
def test_bands_are_means_and_differences_of_blocks(dims):
    """In three axes they are WDM's LLL / 3, LLH, LHL, ..., H along the last axis first."""
    x = random_image(dims)
    bands = build_autoencoder(fixed_settings("haar", dims)).encode(x)[0]
    pixels = 2 * x - 1
    for band in range(2**dims):
        expected = pixels
        for axis in range(dims):
            even, odd = (expected.index_select(2 + axis, torch.arange(start, 8, 2)[: 8 // 2]) for start in (0, 1))
            sign = -1 if band >> (dims - 1 - axis) & 1 else 1
            expected = (even + sign * odd) / 2**0.5
        gain = 1 if band else MEAN_GAIN[dims]
        torch.testing.assert_close(bands[:, band : band + 1], gain * expected)


@KINDS
@DIMS
def test_decoding_undoes_encoding_to_float_error(kind, dims):
    autoencoder = build_autoencoder(fixed_settings(kind, dims))
    x = random_image(dims)
    z, std = autoencoder.encode(x)
    assert not std.any()
    torch.testing.assert_close(autoencoder.decode(z), x, atol=5e-7, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(autoencoder.decode(autoencoder.encode(x)[0]), x, atol=5e-7, rtol=0)


@KINDS
def test_an_image_of_one_value_stays_within_one_in_every_band(kind):
    z = build_autoencoder(fixed_settings(kind, 3)).encode(torch.ones(1, 1, 4, 4, 4))[0]
    assert float(z.abs().max()) <= 1
    assert float(z[:, 0].min()) > 0.9
    assert not z[:, 1:].any()


@KINDS
def test_slabs_change_no_number(kind):
    autoencoder = build_autoencoder(fixed_settings(kind, 3))
    x = random_image(3, 16)
    whole = autoencoder.encode(x)[0]
    z, _ = streaming.encode(autoencoder, x, largest=4000)
    assert torch.equal(z, whole)
    assert torch.equal(streaming.decode(autoencoder, z, largest=4000), autoencoder.decode(whole))


@KINDS
def test_a_stage_without_training_leaves_a_checkpoint_and_goes_on(kind, tmp_path):
    cases = [blob(index) for index in range(2)]
    stage = AutoencoderStage(network=fixed_settings(kind, 3))
    first = train_autoencoder(cases, tmp_path, stage, IntensityScale())
    assert train_autoencoder(cases, tmp_path, stage, IntensityScale()) == first
    assert checkpoints(tmp_path / "autoencoder") == [first]
    assert read_json(first / "record.json")["step"] == 0
    codec = load_codec(tmp_path)
    image = cases[0].image.clip(codec.scale.window.low, codec.scale.window.high)
    assert abs(codec.reconstruct(cases[0]) - image).max() < 0.01
    with pytest.raises(InputError, match=r"was begun with intensity\.window\.low"):
        train_autoencoder(cases, tmp_path, stage, IntensityScale(window=Window(low=-500, high=500)))


def test_kinds_have_fingerprints_of_their_own(tmp_path):
    cases, found = [blob(index) for index in range(2)], set()
    for kind in ("identity", "haar"):
        train_autoencoder(cases, tmp_path / kind, AutoencoderStage(network=fixed_settings(kind, 3)), IntensityScale())
        found.add(load_codec(tmp_path / kind).fingerprint)
    assert len(found) == 2


def test_only_what_is_given_back_can_be_limited_as_an_image(tmp_path):
    """Where voxels stay within, a limit changes nothing; where one leaves, its own block's bands and no others."""
    train_autoencoder(
        [blob(index) for index in range(2)], tmp_path, AutoencoderStage(network=fixed_settings("haar", 3)),
        IntensityScale(),
    )  # fmt: skip
    codec = load_codec(tmp_path)
    x = random_image(3)
    inside = codec.encode(x)[0]
    torch.testing.assert_close(codec.within_images(inside), inside, atol=5e-7, rtol=0)
    x[0, 0, 5, 2, 7] = 1.5
    limited = codec.within_images(codec.encode(x)[0])
    torch.testing.assert_close(limited, codec.encode(x.clamp(0, 1))[0], atol=5e-7, rtol=0)
    trained = replace(codec, autoencoder=build_autoencoder(AutoencoderSettings()))
    with pytest.raises(InputError, match="identity and haar"):
        trained.within_images(inside)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"latent_channels": 4}, "latent_channels=8"),
        ({"channels": (8,)}, "nothing to learn"),
        ({"kind": "identity"}, "compression=1"),
        ({"kind": "vqgan", "compression": 1}, "kind=identity"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        AutoencoderSettings(**{**fixed_settings("haar", 3).model_dump(), **changes})
