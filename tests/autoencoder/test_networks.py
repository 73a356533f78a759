import pytest
import torch

from cardiosynth.autoencoder.codebook import CodebookSettings
from cardiosynth.autoencoder.folds import depth_to_space, space_to_depth
from cardiosynth.autoencoder.networks import AutoencoderSettings, MaisiAutoencoder, build_autoencoder
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError

from .random_networks import monai_network, randomized

MAISI = AutoencoderSettings(kind="maisi", channels=(8, 8, 16), num_res_blocks=(1, 1, 1), norm_groups=8)
VQGAN = AutoencoderSettings(kind="vqgan", spatial_dims=2, channels=(8, 8, 16), num_res_blocks=(1, 1, 1), norm_groups=4)
CODES = CodebookSettings(codes=16)
KINDS = [
    AutoencoderSettings(channels=(8, 8), num_res_blocks=(1, 1)),
    AutoencoderSettings(channels=(8,), num_res_blocks=(1,), compression=2, latent_channels=3),
    AutoencoderSettings(channels=(8, 8), num_res_blocks=(1, 1), spatial_dims=2),
    MAISI,
    VQGAN.model_copy(update={"codebook": CODES}),
    AutoencoderSettings(
        kind="vqgan", channels=(8, 16), num_res_blocks=(2, 1), compression=2, norm_groups=4, latent_channels=3
    ),
]


def random_image(settings, batch=1, size=16, seed=0):
    return torch.rand((batch, 1, *(size,) * settings.spatial_dims), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("settings", KINDS)
def test_latents_are_smaller_by_the_compression_and_decoding_returns_the_grid(settings):
    autoencoder = build_autoencoder(settings)
    x = random_image(settings, batch=2)
    mean, std = autoencoder.encode(x)
    latent = 16 // settings.compression
    assert mean.shape == std.shape == (2, settings.latent_channels, *(latent,) * settings.spatial_dims)
    assert bool((std > 0).all()) == (settings.codebook is None)
    assert autoencoder.decode(mean).shape == x.shape


@pytest.mark.parametrize("settings", KINDS)
def test_encoding_and_decoding_repeat_themselves(settings):
    autoencoder = randomized(build_autoencoder(settings)).eval()
    x = random_image(settings)
    first, second = autoencoder.encode(x)[0], autoencoder.encode(x)[0]
    assert torch.equal(first, second)
    assert torch.equal(autoencoder.decode(first), autoencoder.decode(second))


@pytest.mark.parametrize("settings", KINDS)
def test_under_bfloat16_latents_and_images_are_float32_and_close(settings):
    autoencoder = build_autoencoder(settings).eval()
    x = random_image(settings)
    exact = autoencoder.decode(autoencoder.encode(x)[0])
    with torch.autocast("cpu", torch.bfloat16):
        mean, std = autoencoder.encode(x)
        rough = autoencoder.decode(mean)
    assert mean.dtype == std.dtype == rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.05 * max(1.0, float(exact.detach().abs().max()))


@pytest.mark.parametrize("settings", KINDS)
def test_nothing_gets_past_the_last_weight(settings):
    autoencoder = randomized(build_autoencoder(settings))
    last = autoencoder.last_weight
    assert any(last is parameter for parameter in autoencoder.parameters())
    z = autoencoder.encode(random_image(settings))[0]
    with torch.no_grad():
        assert not torch.equal(autoencoder.decode(z), autoencoder.decode(2 * z))
        last.zero_()
        assert torch.equal(autoencoder.decode(z), autoencoder.decode(2 * z))


def test_initial_weights_are_a_function_of_the_seed():
    one, same, other = (build_autoencoder(KINDS[0], seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("dims", [2, 3])
def test_space_to_depth_keeps_every_voxel_and_can_be_undone(dims):
    x = torch.arange(2.0 * 3 * 4**dims).reshape(2, 3, *(4,) * dims)
    blocks = space_to_depth(x)
    assert blocks.shape == (2, 3 * 2**dims, *(2,) * dims)
    assert torch.equal(depth_to_space(blocks), x)


def test_a_crop_is_encoded_as_inside_its_volume():
    """Without normalization layers only the receptive field matters: 3 + 2 * 3 coarse voxels with these blocks."""
    autoencoder = randomized(build_autoencoder(AutoencoderSettings(channels=(4,), num_res_blocks=(1,), compression=2)))
    x = random_image(KINDS[0], size=32)
    whole = autoencoder.encode(x)[0]
    part = autoencoder.encode(x[:, :, 4:28, 4:28, 4:28])[0]
    torch.testing.assert_close(part[..., 3:-3, 3:-3, 3:-3], whole[..., 5:11, 5:11, 5:11])


def test_maisi_weights_go_in_and_out_and_compute_what_monai_computes(tmp_path):
    theirs, ours = randomized(monai_network(MAISI)).eval(), build_autoencoder(MAISI).eval()
    assert isinstance(ours, MaisiAutoencoder)
    ours.load_released(theirs.state_dict(), tmp_path)
    x = random_image(MAISI)
    mean, std = ours.encode(x)
    expected_mean, expected_std = theirs.encode(x)
    assert mean.abs().max() > 0
    torch.testing.assert_close((mean, std), (expected_mean, expected_std))
    image = ours.decode(mean)
    assert image.abs().max() > 0
    torch.testing.assert_close(image, theirs.decode(expected_mean))
    other = monai_network(MAISI)
    other.load_state_dict(ours.released(), strict=True)
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in other.state_dict().items())


def test_a_missing_maisi_weight_is_named(tmp_path):
    weights = dict(monai_network(MAISI).state_dict())
    name = next(iter(weights))
    del weights[name]
    ours = build_autoencoder(MAISI)
    assert isinstance(ours, MaisiAutoencoder)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        ours.load_released(weights, tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    "values",
    [
        {"channels": [8], "num_res_blocks": [1]},
        {"kind": "maisi", "channels": [8, 16], "num_res_blocks": [1, 1]},
        {"kind": "maisi", "channels": [8, 8, 16], "num_res_blocks": [1, 1, 1], "norm_groups": 5},
        {"kind": "maisi", "channels": [8, 8, 16], "num_res_blocks": [1, 1, 1], "norm_groups": 8, "spatial_dims": 2},
        {"kind": "maisi", "channels": [8, 8, 16], "num_res_blocks": [1, 1, 1], "norm_groups": 8, "codebook": {}},
        {"kind": "vqgan", "channels": [8, 16], "num_res_blocks": [1, 1]},
        {"kind": "vqgan", "channels": [8, 8, 16], "num_res_blocks": [1, 1, 1], "norm_groups": 5},
    ],
)
def test_settings_that_make_no_network_are_refused(values):
    with pytest.raises(InputError):
        parse_settings(AutoencoderSettings, values, "test")
