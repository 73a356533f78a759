"""SPADE in the decoder: what a label changes, where, and that nothing takes its mean away."""

import pytest
import torch

from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.random import generator
from cardiosynth.diffusion.control import ConditionSettings, mask_alone, num_channels
from cardiosynth.diffusion.spade import Modulation
from cardiosynth.diffusion.unet import DenoiserSettings, TemplateUNet

from .test_unet import shaken

SPADE = ConditionSettings(kind="mask", encoding="one_hot", inject="spade", stem="area", features=8)
PLAIN = DenoiserSettings(channels=(8, 8), attention_levels=(False, False), num_head_channels=8, norm_num_groups=4)
LEFT_VENTRICLE = 4


def network(settings=SPADE, dims=2):
    torch.manual_seed(0)
    return shaken(TemplateUNet(2, 4, dims, PLAIN, settings, CARDIAC_CT)).eval()


def filled(code, side=32):
    return torch.full((1, 1, side, side), code, dtype=torch.uint8)


@torch.no_grad()
def test_a_constant_label_modulates_as_much_as_its_convolutions_say():
    """MONAI's instance norm of gamma and beta would leave nothing of a label that is the same everywhere."""
    module = Modulation(2, 3, 4, 5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(0, "weights")))
    label = torch.zeros(1, 3, 9, 9)
    label[:, 1] = 1
    x = torch.randn(1, 5, 9, 9, generator=generator(0, "x"))
    hidden = torch.relu(module.shared.weight[:, 1].sum((1, 2)) + module.shared.bias)
    gamma, beta = (module.gamma_beta.weight.sum((2, 3)) @ hidden + module.gamma_beta.bias).chunk(2)
    inner = (..., slice(2, -2), slice(2, -2))  # beyond, convolutions see the padding
    expected = x * (1 + gamma[:, None, None]) + beta[:, None, None]
    torch.testing.assert_close(module(x, label)[inner], expected[inner])
    assert float(beta.abs().min()) > 0.01


@torch.no_grad()
def test_which_label_fills_a_slice_changes_what_the_network_predicts():
    module, x = network(), torch.randn(1, 2, 8, 8, generator=generator(0, "x"))
    told = [module(x, torch.tensor([0.5]), module.embed(mask_alone(filled(code)))) for code in (0, 1, LEFT_VENTRICLE)]
    assert min(float((one - other).abs().mean()) for one in told for other in told if one is not other) > 1e-3


@torch.no_grad()
def test_a_changed_label_changes_most_where_it_changed():
    """The group norms of later blocks carry a trace of every change to every place."""
    module, x = network(), torch.randn(1, 2, 16, 16, generator=generator(0, "x"))
    one, other = filled(0, 64), filled(0, 64)
    other[..., 4:12, 4:12] = LEFT_VENTRICLE
    found, changed = (module(x, torch.tensor([0.5]), module.embed(mask_alone(mask))) for mask in (one, other))
    difference = (found - changed).abs().mean(1)[0]
    assert float(difference[1:3, 1:3].mean()) > 3 * float(difference[9:, 9:].mean())


@pytest.mark.parametrize("dims", [2, 3])
def test_labels_are_resized_to_shares_or_to_the_middle_voxel(dims):
    mask = torch.zeros((1, 1) + (8,) * dims, dtype=torch.uint8)
    mask[:, :, 2] = LEFT_VENTRICLE  # a wall of one voxel, in the middle of its block
    mask[:, :, 5] = 1
    told = num_channels(SPADE, CARDIAC_CT)
    for stem, wall, off in (("area", 0.25, 0.25), ("nearest", 1.0, 0.0)):
        settings = SPADE.model_copy(update={"stem": stem})
        label = network(settings, dims).embed(mask_alone(mask))
        assert label.shape == (1, told) + (2,) * dims
        where = list(CARDIAC_CT.target_codes)
        assert (label[:, where.index(LEFT_VENTRICLE), 0] == wall).all()
        assert (label[:, where.index(1), 1] == off).all()
        assert float(label.sum()) == pytest.approx((wall + off) * 2 ** (dims - 1))


def test_slabs_change_no_number():
    module = network(dims=3)
    rng = generator(0, "mask")
    given = mask_alone(torch.randint(0, 9, (2, 1, 16, 8, 8), generator=rng, dtype=torch.uint8))
    whole = module.embed(given)
    module.stem.slab_voxels = 1
    assert torch.equal(module.embed(given), whole)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"stem": "compact"}, "need each other"),
        ({"inject": "control"}, "need each other"),
        ({"encoding": "bits"}, "one_hot"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        ConditionSettings(**{**SPADE.model_dump(), **changes})
