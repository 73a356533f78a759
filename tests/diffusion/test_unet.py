"""The networks: zero controls change nothing, embeddings are computed once, weights are inherited."""

from pathlib import Path

import pytest
import torch

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.random import generator
from cardiosynth.diffusion.control import ConditionSettings
from cardiosynth.diffusion.unet import DenoiserSettings, TemplateUNet, chest_ct, inherit

from .test_control import condition

SIZE = DenoiserSettings(channels=(8, 16), attention_levels=(False, True), num_head_channels=8, norm_num_groups=4)


def network(inject="both", stem="compact", size=SIZE, dims=3):
    torch.manual_seed(0)
    widths = (8,) if stem == "compact" else (4, 4, 4)
    told = {"inject": inject, "stem": stem, "encoding": "one_hot" if inject == "spade" else "bits"}
    settings = ConditionSettings(features=4, stem_channels=widths, **told) if inject else None
    return TemplateUNet(2, 4, dims, size, settings, CARDIAC_CT).eval()


def shaken(module):
    """The same network with no weight at zero."""
    rng = generator(0, "shake")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    return module


def inputs(dims=3):
    rng = generator(0, "latent")
    x = torch.randn((2, 2) + (4,) * dims, generator=rng)
    return x, torch.tensor([0.2, 0.9]), condition(grid=(16,) * dims)


@pytest.mark.parametrize(
    ("inject", "stem"),
    [("concatenate", "compact"), ("control", "compact"), ("both", "compact"), ("control", "maisi"), ("spade", "area")],
)
@pytest.mark.parametrize("dims", [2, 3])
def test_an_untrained_condition_leaves_the_unet_alone(inject, stem, dims):
    x, t, given = inputs(dims)
    conditional, alone = network(inject, stem, dims=dims), shaken(network(None, dims=dims))
    inherit(conditional, alone.state_dict(), Path("unconditional"))
    with torch.no_grad():
        found = conditional(x, t, conditional.embed(given))
        torch.testing.assert_close(found, alone(x, t, None), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("inject", ["concatenate", "control", "both", "spade"])
def test_a_trained_condition_matters_and_may_be_embedded_once(inject):
    x, t, given = inputs()
    module = shaken(network(inject, "area" if inject == "spade" else "compact"))
    with torch.no_grad():
        embedding = module.embed(given)
        found = [module(x, t, embedding) for _ in range(2)] + [module(x, t, module.embed(given))]
        other = module(x, t, module.embed(condition(seed=1, grid=(16, 16, 16))))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not torch.allclose(found[0], other)


def test_control_starts_as_a_copy_of_the_encoder():
    alone, module = shaken(network(None)), network("both")
    inherit(module, alone.state_dict(), Path("unconditional"))
    assert module.control is not None
    for name, value in module.control.down_blocks.state_dict().items():
        assert torch.equal(value, alone.unet.down_blocks.state_dict()[name])
    assert torch.equal(module.control.conv_in.conv.weight, alone.unet.conv_in.conv.weight)


def test_what_a_control_cannot_inherit_is_named_and_stays_as_it_was():
    """A U-Net told its spacing has wider layers for the time; the ControlNet is not told it."""
    size = SIZE.model_copy(update={"spacing_input": True})
    alone, module = shaken(network(None, size=size)), network("control", size=size)
    assert module.control is not None
    before = {name: value.clone() for name, value in module.control.state_dict().items()}
    kept = inherit(module, alone.state_dict(), Path("unconditional"))
    assert kept == [name for name in before if name.endswith("time_emb_proj.weight")]
    assert len(kept) == 4  # one residual block on each of two levels, two in the middle
    after, given = module.control.state_dict(), alone.unet.state_dict()
    for name, value in after.items():
        shared = name in given and name not in kept
        assert torch.equal(value, given[name] if shared else before[name]), name
    assert inherit(network("control"), network(None).state_dict(), Path("unconditional")) == []


def test_unet_and_control_learn_together_with_the_leak_and_without():
    """Added in place, as MONAI adds them, residuals would overwrite what the backward pass needs."""
    x, t, given = inputs()
    for leak in (False, True):
        module = shaken(network("control", size=SIZE.model_copy(update={"residual_leak": leak})))
        module(x, t, module.embed(given)).square().sum().backward()
        assert [name for name, p in module.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("inject", "stem", "frozen"), [
    ("control", "compact", False), ("control", "compact", True), ("spade", "area", False),
])  # fmt: skip
def test_checkpointing_changes_no_number(inject, stem, frozen):
    x, t, given = inputs()
    found = []
    for checkpointing in (False, True):
        module = shaken(network(inject, stem, SIZE.model_copy(update={"checkpointing": checkpointing})))
        module.unet.requires_grad_(not frozen)
        out = module(x, t, module.embed(given))
        out.square().sum().backward()
        found.append([out, *(p.grad for p in module.parameters() if p.requires_grad)])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_checkpointing_keeps_less_for_the_backward_pass():
    x, t, given = inputs()
    kept = []
    for checkpointing in (False, True):
        module, sizes = shaken(network("control", size=SIZE.model_copy(update={"checkpointing": checkpointing}))), []
        with torch.autograd.graph.saved_tensors_hooks(lambda y, n=sizes: n.append(y.numel()) or y, lambda y: y):
            module(x, t, module.embed(given))
        kept.append(sum(sizes))
    assert kept[1] < 0.5 * kept[0]


def test_attention_is_fused_on_every_device(monkeypatch):
    x, t, given = inputs()
    calls, fused = [], torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda **options: calls.append(1) or fused(**options)
    )
    module = network("control")
    module(x, t, module.embed(given))
    assert len(calls) == 4 + 2  # U-Net: one down, middle, two up; ControlNet: one down, middle


def test_a_network_that_must_be_told_the_acquisition_is():
    module = network(None, size=SIZE.model_copy(update={"num_modalities": 3, "region_input": True}))
    x, t, _ = inputs()
    assert module.needs_acquisition
    assert not network(None).needs_acquisition
    with pytest.raises(AssertionError, match="must be told the acquisition"):
        module(x, t, None)
    told = chest_ct(torch.ones(2, 3))
    assert told.top_region.tolist() == told.bottom_region.tolist() == [[0, 1, 0, 0]] * 2
    assert told.modality.tolist() == [1, 1]
    assert module(x, t, None, told).shape == x.shape


def test_weights_of_another_size_are_refused():
    larger = DenoiserSettings(channels=(8, 24), attention_levels=(False, True), num_head_channels=8, norm_num_groups=4)
    with pytest.raises(InputError, match="of another size"):
        inherit(network(), network(None, size=larger).state_dict(), Path("unconditional"))


def test_gradients_reach_stem_and_control():
    x, t, given = inputs()
    module = shaken(network("both"))
    module(x, t, module.embed(given)).square().sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_levels": (True,)}, "as many attention_levels"),
        ({"norm_num_groups": 3}, "multiples of norm_num_groups"),
        ({"num_head_channels": 5}, "num_head_channels"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        DenoiserSettings(**{**SIZE.model_dump(), **changes})


def test_maisi_stem_must_suit_compression_and_injection():
    with pytest.raises(InputError, match=r"inject=control"):
        network("both", "maisi")
    settings = ConditionSettings(inject="control", stem="maisi", stem_channels=(4, 4))
    with pytest.raises(InputError, match="halve the grid 1 times"):
        TemplateUNet(2, 4, 3, SIZE, settings, CARDIAC_CT)
