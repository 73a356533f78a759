"""Stems: slab by slab as the whole volume at once, and as MONAI's at every step; no volume of channels ever exists."""

from math import prod

import pytest
import torch
from monai.networks.nets.controlnet import ControlNetConditioningEmbedding
from torch.utils._python_dispatch import TorchDispatchMode

from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.random import generator
from cardiosynth.diffusion.control import ConditionSettings, raw_condition
from cardiosynth.diffusion.stem import CompactStem, MaisiStem

from .test_control import condition

SETTINGS = {
    "compact": ConditionSettings(kind="painted", inject="both", features=4, stem="compact", stem_channels=(8,)),
    "maisi": ConditionSettings(kind="template", inject="control", stem="maisi", stem_channels=(2, 3, 4)),
}


def stem(kind, dims=3):
    """A stem with no weight at zero."""
    if kind == "compact":
        module = CompactStem(SETTINGS[kind], CARDIAC_CT, 4, dims, (4, 6))
    else:
        module = MaisiStem(SETTINGS[kind], CARDIAC_CT, dims, 6)
    rng = generator(0, "stem")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=rng))
    return module


class LargestFloat(TorchDispatchMode):
    """Remembers the largest floating-point tensor that any operation returned."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.numel = max(self.numel, tensor.numel())
        return out


def assert_equal_to_rounding(found, expected):
    """Equal to 1e-5 of a standard deviation, which is not zero."""
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.std()), rtol=0)


@pytest.mark.parametrize("kind", ["compact", "maisi"])
@pytest.mark.parametrize("grid", [(44, 8, 12), (20, 8)])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_slabs_of_any_thickness_give_the_whole(kind, grid, layers):
    """Eleven (or five) layers of latents divide by neither 2 nor 3."""
    module, given = stem(kind, len(grid)), condition(grid=grid)
    with torch.no_grad():
        whole = module(given)
        module.slab_voxels = layers * 4 * 2 * prod(grid[1:])
        assert_equal_to_rounding(module(given), whole)


@pytest.mark.parametrize("dims", [2, 3])
def test_maisis_stem_is_monais(dims):
    """The same as MONAI's convolutions on all 17 channels of the whole volume."""
    module, given = stem("maisi", dims), condition(grid=(24, 16, 8)[:dims])
    theirs = ControlNetConditioningEmbedding(dims, 17, 6, (2, 3, 4))
    theirs.load_state_dict(module.embedding.state_dict())
    module.slab_voxels = 1
    with torch.no_grad():
        expected = theirs(raw_condition(given, SETTINGS["maisi"], CARDIAC_CT))
        assert_equal_to_rounding(module(given), expected)


def test_what_lies_next_to_a_slab_matters():
    """Without the neighbors' voxels a slab would be another: the reach is not for nothing."""
    module, given = stem("maisi"), condition(grid=(24, 8, 8))
    moved = given._replace(template_image=given.template_image.clone())
    moved.template_image[:, :, 11] += 1
    with torch.no_grad():
        before, after = (module._slab(each, 3, 6) for each in (given, moved))  # the slab begins at voxel 12
    assert not torch.allclose(before, after)


@pytest.mark.parametrize("kind", ["compact", "maisi"])
@pytest.mark.parametrize("training", [False, True])
def test_the_channels_of_the_whole_volume_never_exist(kind, training):
    grid, module = (96, 8, 8), stem(kind)
    channels, plane, halo = {"compact": 18, "maisi": 17}[kind], prod(grid[1:]), 20
    given = condition(batch=1, grid=grid)
    module.slab_voxels = 12 * plane
    with torch.set_grad_enabled(training), LargestFloat() as largest:
        out = module(given)
        if training:
            out.square().sum().backward()
    assert largest.numel <= channels * (12 + halo) * plane < 0.4 * channels * prod(grid)
    module.slab_voxels = prod(grid)
    with torch.no_grad(), LargestFloat() as unslabbed:
        module(given)
    assert unslabbed.numel == channels * prod(grid)


@pytest.mark.parametrize("kind", ["compact", "maisi"])
def test_slabs_learn_like_the_whole(kind):
    given, gradients = condition(grid=(20, 8, 8)), []
    for voxels in (1, 10**6):
        module = stem(kind)
        module.slab_voxels = voxels
        module(given).square().sum().backward()
        gradients.append([parameter.grad for parameter in module.parameters()])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5 * float(two.abs().max()), rtol=1e-4)
    assert all(bool(gradient.abs().max() > 0) for gradient in gradients[0])
