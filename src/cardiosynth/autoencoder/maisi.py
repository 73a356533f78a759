"""MONAI's AutoencoderKlMaisi as chains of local layers. Its modules keep the weights; its forwards are not used."""

from collections.abc import Iterator

from monai.apps.generation.maisi.networks.autoencoderkl_maisi import (
    AutoencoderKlMaisi,
    MaisiConvolution,
    MaisiDownsample,
    MaisiResBlock,
    MaisiUpsample,
)
from monai.networks.blocks import Convolution
from torch import nn

from cardiosynth.autoencoder.chain import Branch, Chain, Merge
from cardiosynth.autoencoder.layers import ChannelsLast, Convolve, Downsample, Fork, Layer, Normalize, Upsample
from cardiosynth.core.errors import InputError


def maisi_encoding(network: AutoencoderKlMaisi) -> Chain:
    """Return the chain from images to mean and log variance, their channels one after the other.

    Raises:
        InputError: a layer that cannot be computed slab by slab, by name.
    """
    first = _convolve(network.quant_conv_mu, "quant_conv_mu")
    second = _convolve(network.quant_conv_log_sigma, "quant_conv_log_sigma")
    return Chain((*_blocks(network.encoder, "encoder"), Fork("quant_conv", first, second)))


def maisi_decoding(network: AutoencoderKlMaisi) -> Chain:
    """Return the chain from latents to images.

    Raises:
        InputError: a layer that cannot be computed slab by slab, by name.
    """
    return Chain((_convolve(network.post_quant_conv, "post_quant_conv"), *_blocks(network.decoder, "decoder")))


def _blocks(half: nn.Module, prefix: str) -> Iterator[Layer]:
    for index, block in enumerate(half.get_submodule("blocks").children()):
        name = f"{prefix}.blocks.{index}"
        yield from _block(block, name)
        if index == 0:
            yield ChannelsLast(f"{name} (layout)")


def _block(block: nn.Module, name: str) -> Iterator[Layer]:
    if isinstance(block, MaisiResBlock):
        yield from _residual(block, name)
    elif isinstance(block, MaisiDownsample):
        yield Downsample(name, _strided(block.conv, f"{name}.conv"))
    elif isinstance(block, MaisiUpsample) and not block.use_convtranspose:
        yield Upsample(f"{name} (interpolation)")
        yield _convolve(block.conv, f"{name}.conv")
    elif isinstance(block, nn.GroupNorm):
        yield Normalize(name, block, activated=False)
    else:
        yield _convolve(block, name)


def _residual(block: MaisiResBlock, name: str) -> Iterator[Layer]:
    yield Branch(name)
    yield _normalize(block.norm1, f"{name}.norm1")
    yield _convolve(block.conv1, f"{name}.conv1")
    yield _normalize(block.norm2, f"{name}.norm2")
    yield _convolve(block.conv2, f"{name}.conv2")
    plain = isinstance(block.nin_shortcut, nn.Identity)
    yield Merge(name, None if plain else _convolve(block.nin_shortcut, f"{name}.nin_shortcut"))


def _normalize(module: nn.Module, name: str) -> Normalize:
    if not isinstance(module, nn.GroupNorm):
        raise _unknown(module, name)
    return Normalize(name, module, activated=True)


def _convolve(module: nn.Module, name: str) -> Convolve:
    return Convolve(name, _conv3d(module, name))


def _strided(module: nn.Module, name: str) -> nn.Conv3d:
    conv = _conv3d(module, name)
    if set(conv.kernel_size) != {3} or set(conv.stride) != {2} or any(map(int, conv.padding)):
        raise _unknown(conv, name)
    return conv


def _conv3d(module: nn.Module, name: str) -> nn.Conv3d:
    """Return the one convolution inside MONAI's wrappers."""
    inner = module.conv if isinstance(module, MaisiConvolution) else module
    layers = list(inner.children()) if isinstance(inner, Convolution) else [inner]
    if len(layers) != 1 or not isinstance(layers[0], nn.Conv3d):
        raise _unknown(module, name)
    return layers[0]


def _unknown(module: nn.Module, name: str) -> InputError:
    return InputError(
        f"layer {name} of the autoencoder is a {type(module).__name__}; attention, batch norms and others that "
        "convolutions and group norms cannot express are not computed."
    )
