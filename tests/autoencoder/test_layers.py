import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cardiosynth.autoencoder.layers import Convolve, Downsample, Normalize, Rows, Slab, Upsample
from cardiosynth.autoencoder.maisi import maisi_decoding, maisi_encoding
from cardiosynth.autoencoder.moments import measure_moments
from cardiosynth.autoencoder.networks import AutoencoderSettings, MaisiAutoencoder, build_autoencoder
from cardiosynth.core.errors import InputError

from .random_networks import RELEASED, SMALL, monai_network, random_autoencoder, randomized, two_regions


def assert_same(found, expected):
    """Equal to 1e-5 of the spread, which is not zero."""
    spread = float(expected.detach().std())
    assert spread > 1e-3
    assert float((found - expected).detach().abs().max()) < 1e-5 * spread


def pair(settings):
    """Return MONAI's network and ours with the same random weights."""
    theirs, ours = randomized(monai_network(settings)).eval(), build_autoencoder(settings).eval()
    assert isinstance(ours, MaisiAutoencoder)
    ours.network.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def compare(settings, latent, image):
    theirs, ours = pair(settings)
    z, x = two_regions((1, 4, *latent)), two_regions((1, 1, *image), shift=0.5)
    with torch.no_grad():
        assert_same(ours.decode(z), theirs.decode(z))
        for found, expected in zip(ours.encode(x), theirs.encode(x), strict=True):
            assert found.shape == expected.shape
            assert_same(found, expected)


@pytest.mark.parametrize(("latent", "image"), [((4, 6, 5), (16, 12, 20)), ((3, 5, 7), (17, 14, 15))])
def test_layers_compute_what_monai_computes(latent, image):
    compare(SMALL, latent, image)


@pytest.mark.slow
@pytest.mark.parametrize(("latent", "image"), [((4, 5, 3), (16, 20, 12)), ((5, 3, 3), (19, 13, 14))])
def test_layers_compute_what_monai_computes_at_released_sizes(latent, image):
    compare(RELEASED, latent, image)


def test_gradients_are_monais():
    theirs, ours = pair(SMALL)
    x = two_regions((1, 1, 16, 12, 13), shift=0.5)
    for network in (theirs, ours):
        mean, std = network.encode(x)
        (network.decode(mean + std) ** 2).mean().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.network.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-3, atol=1e-5)
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("settings", [SMALL, AutoencoderSettings(channels=(8, 8), num_res_blocks=(1, 1))])
def test_checkpointing_changes_neither_the_result_nor_the_gradients(settings):
    one = randomized(build_autoencoder(settings))
    two = build_autoencoder(settings.model_copy(update={"checkpointing": True}))
    two.load_state_dict(one.state_dict())
    x = two_regions((1, 1, 12, 8, 8), shift=0.5)
    results = [network.decode(network.encode(x)[0]) for network in (one, two)]
    assert torch.equal(*results)
    for result in results:
        result.square().mean().backward()
    for ours, theirs in zip(one.parameters(), two.parameters(), strict=True):
        # The encoder's second half, of the standard deviation, has no part in the mean.
        assert (ours.grad is None) == (theirs.grad is None)
        assert ours.grad is None or torch.equal(ours.grad, theirs.grad)


LOCAL = [
    Convolve("three", nn.Conv3d(2, 3, 3, padding=1)),
    Convolve("one", nn.Conv3d(2, 3, 1)),
    Downsample("down", nn.Conv3d(2, 3, 3, stride=2)),
    Upsample("up"),
]


@pytest.mark.parametrize("layer", LOCAL, ids=lambda layer: layer.name)
@pytest.mark.parametrize("length", [1, 2, 7, 8])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_range_of_rows_is_what_the_whole_volume_has_there(layer, length, axis):
    grid = [4, 5, 6]
    grid[axis] = length
    x = torch.randn((2, 2, *grid), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        # One voxel has no half.
        whole = layer.forward(x) if layer.shape((2, *grid))[1 + axis] else x[..., :0]
        rows = layer.shape((2, *grid))[1 + axis]
        for start in range(rows):
            for stop in range(start + 1, rows + 1):
                want = Rows(start, stop)
                have = layer.needs(want, length)
                part = x.narrow(2 + axis, int(have.start), int(have.number))
                found = layer.slab(part, Slab(have, want, length, axis))
                expected = whole.narrow(2 + axis, start, stop - start)
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_moments_of_parts_are_those_of_the_whole_even_far_from_zero():
    x = torch.randn((2, 6, 7, 5, 4), generator=torch.Generator().manual_seed(0)) + 1000
    parts = measure_moments(x[:, :, :3]).joined(measure_moments(x[:, :, 3:]))
    wide = x.double()
    torch.testing.assert_close(parts.mean, wide.mean((2, 3, 4)), rtol=1e-6, atol=0)
    torch.testing.assert_close(parts.deviations / parts.count, wide.var((2, 3, 4), correction=0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("activated", [False, True])
def test_normalization_without_gradients_is_group_norm_in_any_layout(activated):
    layer = Normalize("norm", randomized(nn.GroupNorm(4, 16)), activated)
    x = torch.randn((2, 16, 9, 8, 7), generator=torch.Generator().manual_seed(0)) + 3
    expected = F.group_norm(x.double(), 4, layer.norm.weight.double(), layer.norm.bias.double(), layer.norm.eps)
    expected = F.silu(expected) if activated else expected
    with torch.no_grad():
        for layout in (torch.contiguous_format, torch.channels_last_3d):
            found = layer.forward(x.contiguous(memory_format=layout)).double()
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(layer.forward(x).double(), expected, rtol=0, atol=1e-5)


def test_attention_and_batch_norm_and_other_convolutions_are_refused_by_name():
    attention = monai_network(SMALL, attention_levels=(False, False, True))
    with pytest.raises(InputError, match=r"decoder\.blocks\.2 .*SpatialAttentionBlock"):
        maisi_decoding(attention)
    nonlocal_attention = monai_network(SMALL, with_encoder_nonlocal_attn=True)
    with pytest.raises(InputError, match=r"encoder\.blocks\.6 .*AEKLResBlock"):
        maisi_encoding(nonlocal_attention)
    transposed = monai_network(SMALL, use_convtranspose=True)
    with pytest.raises(InputError, match=r"decoder\.blocks\.2 .*MaisiUpsample"):
        maisi_decoding(transposed)
    batch = monai_network(SMALL)
    batch.decoder.blocks[1].norm2 = nn.BatchNorm3d(32)
    with pytest.raises(InputError, match=r"decoder\.blocks\.1\.norm2 .*BatchNorm3d"):
        maisi_decoding(batch)
    with pytest.raises(InputError, match="dilated"):
        Convolve("dilated", nn.Conv3d(1, 1, 3, padding=1, dilation=2))


def test_an_odd_grid_loses_its_end_as_in_monai():
    mean, std = random_autoencoder(SMALL).encode(two_regions((1, 1, 19, 13, 9)))
    assert mean.shape == std.shape == (1, 4, 4, 3, 2)
