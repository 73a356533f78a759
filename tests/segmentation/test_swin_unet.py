import pydantic
import pytest
import torch

from cardiosynth.core.random import generator
from cardiosynth.segmentation.networks import Classes, SegmenterSettings, build_segmenter
from cardiosynth.segmentation.swin_unet import PatchExpand, SwinUNet, SwinUNetSettings


def test_the_network_has_as_many_parameters_as_published():
    with torch.device("meta"):
        network = SwinUNet(9, SwinUNetSettings())
    assert sum(p.numel() for p in network.parameters()) == 27_168_900
    assert SwinUNetSettings().multiple == 32
    assert 224 % SwinUNetSettings().multiple == 0


def test_expanded_patches_lie_where_their_patch_lay():
    expand = PatchExpand(8, 2, 4)
    x = torch.rand(1, 8, 3, 5, generator=generator(0, "patches"))
    alone = torch.cat([expand(x[..., j : j + 1]) for j in range(5)], dim=3)
    torch.testing.assert_close(expand(x), alone)
    assert expand(x).shape == (1, 4, 6, 10)


def test_every_level_takes_part():
    settings = SegmenterSettings(
        kind="swin_unet",
        spatial_dims=2,
        swin_unet=SwinUNetSettings(features=6, depths=(1, 2, 1), heads=(1, 2, 3), window=2, drop_path=0),
    )
    network = build_segmenter(settings, Classes(codes=(0, 1)))
    network(torch.rand(1, 1, 32, 16, generator=generator(0, "image"))).square().mean().backward()
    # Where attention does not depend on the keys' bias, softmax is why: it adds the same to every logit.
    assert all(p.grad is not None for p in network.parameters())
    assert all(p.grad.abs().max() > 0 for name, p in network.named_parameters() if "qkv.bias" not in name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": (3, 6, 12)}, "4 depths need as many heads"),
        ({"features": 100}, "100 features cannot be shared by 3 heads"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        SwinUNetSettings(**change)
