"""T2I-Adapter's maps: they start as nothing, and enter where the encoder goes on and where skips are kept."""

from pathlib import Path

import pytest
import torch

from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.random import generator
from cardiosynth.diffusion.adapter import Adapter
from cardiosynth.diffusion.control import ConditionSettings, mask_alone
from cardiosynth.diffusion.trunk import time_embedding
from cardiosynth.diffusion.unet import DenoiserSettings, TemplateUNet, inherit

from .test_unet import shaken

SIZE = DenoiserSettings(
    channels=(8, 16, 16), attention_levels=(False, False, True), num_head_channels=8, norm_num_groups=4,
    num_res_blocks=2,
)  # fmt: skip
ADAPTER = ConditionSettings(kind="mask", encoding="one_hot", inject="adapter", features=8, stem_channels=(8,))
T = torch.tensor([0.5])


def network(dims=2, settings=ADAPTER):
    torch.manual_seed(0)
    return TemplateUNet(2, 4, dims, SIZE, settings, CARDIAC_CT).eval()


def given(dims=2):
    rng = generator(0, "given")
    x = torch.randn((1, 2) + (8,) * dims, generator=rng)
    mask = torch.randint(0, 9, (1, 1) + (32,) * dims, generator=rng, dtype=torch.uint8)
    return x, mask_alone(mask)


@torch.no_grad()
@pytest.mark.parametrize("dims", [2, 3])
def test_before_training_it_changes_nothing(dims):
    module, plain = network(dims), network(dims, None)
    inherit(module, plain.state_dict(), Path("weights"))
    x, condition = given(dims)
    assert torch.equal(module(x, T, module.embed(condition)), plain(x, T, None))


@torch.no_grad()
def test_maps_enter_the_main_path_and_the_skip_of_every_levels_last_block():
    """Constant maps m_l: each level's last skip is the block's own output, for the path it was given, plus m_l."""
    module = shaken(network())
    assert module.adapter is not None
    unet, (x, _) = module.unet, given()
    maps = [torch.full((1, c, 8 >> level, 8 >> level), 0.5 + level) for level, c in enumerate(SIZE.channels)]
    adapter = Adapter(2, 8, SIZE.channels)
    adapter.forward = lambda _: maps
    time = time_embedding(unet, 1000 * T, x.dtype)
    h = expected = unet.conv_in(x)
    for level, encode in enumerate(adapter.encoder(unet, x)):
        h, outputs = encode(h, time)
        block, skips = unet.down_blocks[level], []
        for index, resnet in enumerate(block.resnets):
            expected = resnet(expected, time)
            expected = block.attentions[index](expected) if hasattr(block, "attentions") else expected
            expected = expected + maps[level] if index == SIZE.num_res_blocks - 1 else expected
            skips.append(expected)
        if block.downsampler is not None:
            expected = block.downsampler(expected, time)
            skips.append(expected)
        torch.testing.assert_close(h, expected)
        assert len(outputs) == len(skips)
        for output, skip in zip(outputs, skips, strict=True):
            torch.testing.assert_close(output, skip)


@torch.no_grad()
def test_a_mask_changes_what_a_trained_one_predicts():
    module = shaken(network())
    x, condition = given()
    other = condition._replace(reference=torch.zeros_like(condition.reference))
    one, two = (module(x, T, module.embed(c)) for c in (condition, other))
    assert float((one - two).abs().mean()) > 1e-3


def test_gradients_reach_the_adapter_through_a_frozen_unet():
    module = shaken(network())
    module.unet.requires_grad_(False)
    x, condition = given()
    module(x, T, module.embed(condition)).square().mean().backward()
    assert module.adapter is not None
    assert any(
        bool(parameter.grad.any()) for parameter in module.adapter.out.parameters() if parameter.grad is not None
    )
    assert all(parameter.grad is None for parameter in module.unet.parameters())


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="stem=compact"):
        ConditionSettings(**{**ADAPTER.model_dump(), "stem": "maisi"})
