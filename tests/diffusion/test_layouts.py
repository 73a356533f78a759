"""MAISI's released networks: the same parameters, and the same numbers as MONAI's own classes.

Every parameter is drawn at random, those that training would begin at zero included, so that nothing is equal because
it is zero.
"""

import pytest
import torch
from monai.apps.generation.maisi.networks.controlnet_maisi import ControlNetMaisi
from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi
from monai.networks.nets.controlnet import ControlNet
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.random import generator
from cardiosynth.diffusion.control import raw_condition
from cardiosynth.diffusion.layouts import DDPM_CT, LAYOUTS, RFLOW_CT, find_layout
from cardiosynth.diffusion.process import VariancePreserving, build_process
from cardiosynth.diffusion.unet import TIMESTEPS, Acquisition, TemplateUNet, chest_ct

from .test_control import condition

RELEASED = {"num_channels": (64, 128, 256, 512), "num_head_channels": (0, 0, 32, 32), "norm_num_groups": 32}
SMALL = {"num_channels": (8, 8, 16, 16), "num_head_channels": (0, 0, 8, 8), "norm_num_groups": 4}
KINDS = {"ddpm-ct": {"include_fc": False, "resblock_updown": False},
         "rflow-ct": {"include_fc": True, "resblock_updown": True, "num_class_embeds": 128}}  # fmt: skip
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
"""Root mean square of the difference, in standard deviations of the output. Rounding alone makes 2e-6 in float32, where
single voxels of MONAI's own output are as far as 1e-5 from the exact one; float64 shows that nothing but rounding is
left."""


def monais(layout, sizes, channels=17):
    """MONAI's classes as the released configurations make them, but for the CUDA kernels; released: 8 channels."""
    trunk = {"spatial_dims": 3, "in_channels": 4, "num_res_blocks": 2, **sizes, **KINDS[layout.name],
             "attention_levels": (False, False, True, True)}  # fmt: skip
    region = layout.name == "ddpm-ct"
    unet = DiffusionModelUNetMaisi(
        **trunk, out_channels=4, include_spacing_input=True, include_top_region_index_input=region,
        include_bottom_region_index_input=region,
    )  # fmt: skip
    widths = {"conditioning_embedding_in_channels": channels, "conditioning_embedding_num_channels": (8, 32, 64)}
    return unet.eval(), ControlNetMaisi(**trunk, **widths).eval()


def randomized(module):
    """The same network with every parameter random, so scaled that values stay near 1 and rounding is rounding."""
    rng = generator(0, "randomized")
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=rng)
            if parameter.ndim > 1:
                hundredfold = any(told in name for told in ("spacing_layer.0", "region_index_layer.0"))
                parameter.copy_(noise * parameter[0].numel() ** -0.5 / (100 if hundredfold else 1))
            else:
                parameter.copy_(0.2 * noise + float(parameter.mean() == 1))  # slopes of normalizations begin at 1
    return module


def sized(layout, sizes):
    """The layout with other channels."""
    size = {"channels": sizes["num_channels"], "num_head_channels": sizes["num_head_channels"][-1],
            "norm_num_groups": sizes["norm_num_groups"]}  # fmt: skip
    return layout.model_copy(update={"denoiser": layout.denoiser.model_copy(update=size)})


def pair(layout, sizes):
    """Our network and MONAI's two, all with the same random weights, each tensor at its released name."""
    unet, control = monais(layout, sizes)
    denoiser = sized(layout, sizes).denoiser
    ours = randomized(TemplateUNet(4, 4, 3, denoiser, layout.condition, CARDIAC_CT)).eval()
    assert ours.control is not None
    assert ours.stem is not None
    unet.load_state_dict(ours.unet.state_dict(), strict=True)
    stem = {f"controlnet_cond_embedding.{k}": v for k, v in ours.stem.embedding.state_dict().items()}
    control.load_state_dict({**ours.control.state_dict(), **stem}, strict=True)
    return ours, unet, control


def inputs(grid, dtype=torch.float32, steps=(997, 12)):
    rng = generator(0, "released")
    x = torch.randn((2, 4, *grid), generator=rng)
    n = torch.tensor(steps).float()
    spacing_mm = torch.tensor([[0.68, 0.68, 2.42], [0.4, 0.4, 0.5]])
    given = condition(grid=tuple(4 * side for side in grid))
    given = given._replace(template_image=given.template_image.to(dtype))
    return x.to(dtype), n, given, chest_ct(spacing_mm.to(dtype))


def theirs(layout, unet, control, x, n, given, told):
    """MAISI's own way: the stem at every step, inputs times 100, whole numbers as timesteps."""
    kind = {} if layout.name == "ddpm-ct" else {"class_labels": told.modality}
    region = {"top_region_index_tensor": told.top_region * 100, "bottom_region_index_tensor": told.bottom_region * 100}
    extra = {**kind, "spacing_tensor": told.spacing_mm * 100, **(region if layout.name == "ddpm-ct" else {})}
    down, middle = None, None
    if given is not None:
        down, middle = control(x, n, raw_condition(given, layout.condition, CARDIAC_CT, x.dtype), **kind)
    return unet(x, n, down_block_additional_residuals=down, mid_block_additional_residual=middle, **extra)


def network_time(layout, n):
    """Our time of MAISI's timestep n: its DDPM counts from 0."""
    return (n - layout.denoiser.timestep_offset) / TIMESTEPS


def apart(found, expected):
    """The root mean square of a difference, in standard deviations of what is expected."""
    return float((found - expected).square().mean().sqrt() / expected.std())


def assert_as_monai(layout, sizes, grid, dtype):
    ours, unet, control = (module.to(dtype) for module in pair(layout, sizes))
    x, n, given, told = inputs(grid, dtype)
    t, tolerance = network_time(layout, n), TOLERANCE[dtype]
    with torch.no_grad():
        expected = theirs(layout, unet, control, x, n, given, told)
        embedding = ours.embed(given)
        assert expected.std() > 0.1
        assert apart(ours(x, t, embedding, told), expected) < tolerance
        # The template, the masks and every number that tells the acquisition matter, and alike.
        for name in ("reference", "template_mask", "template_image"):
            other = given._replace(**{name: getattr(given, name).flip(2)})
            found = ours(x, t, ours.embed(other), told)
            assert apart(found, expected) > 1e-4, name
            assert apart(found, theirs(layout, unet, control, x, n, other, told)) < tolerance
        for other in told_otherwise(layout, told):
            found = ours(x, t, embedding, other)
            assert apart(found, expected) > 1e-4
            assert apart(found, theirs(layout, unet, control, x, n, given, other)) < tolerance
        # So do the ControlNet's residuals: the U-Net alone gives something else, and that is MONAI's, too.
        alone = theirs(layout, unet, control, x, n, None, told)
        assert apart(alone, expected) > 0.01
        ours.stem, ours.control = None, None
        assert apart(ours(x, t, None, told), alone) < tolerance


def told_otherwise(layout, told: Acquisition):
    """The same acquisition with each number that this layout is told changed in turn."""
    yield told._replace(spacing_mm=told.spacing_mm.flip(0))
    if layout.name == "ddpm-ct":
        other = told.top_region.roll(1, dims=1)
        yield told._replace(top_region=other)
        yield told._replace(bottom_region=other)
    else:
        yield told._replace(modality=told.modality + 7)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_small_networks_of_both_layouts_compute_what_monai_computes(layout):
    assert_as_monai(layout, SMALL, (16, 8, 8), torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize(("grid", "dtype"), [((16, 16, 8), torch.float32), ((8, 8, 8), torch.float64)])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_released_networks_compute_what_monai_computes(layout, grid, dtype):
    assert_as_monai(layout, RELEASED, grid, dtype)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_without_the_leak_the_numbers_are_others(layout):
    """Released weights need the last residual to enter the middle block."""
    ours, unet, control = pair(layout, SMALL)
    x, n, given, told = inputs((8, 8, 8))
    ours.denoiser = ours.denoiser.model_copy(update={"residual_leak": False})
    with torch.no_grad():
        expected = theirs(layout, unet, control, x, n, given, told)
        found = ours(x, network_time(layout, n), ours.embed(given), told)
    assert apart(found, expected) > 0.01


def test_parameters_are_those_published():
    counted = {}
    with torch.device("meta"):
        for name, layout in LAYOUTS.items():
            for kind in ("mask", "template"):  # 8 and 17 channels
                told = layout.condition.model_copy(update={"kind": kind, "codes": "own"})
                module = TemplateUNet(4, 4, 3, layout.denoiser, told, CARDIAC_CT)
                unet = sum(p.numel() for p in module.unet.parameters())
                counted[name, kind] = unet, sum(p.numel() for p in module.parameters()) - unet
    millions = {key: tuple(round(count / 1e6, 3) for count in counts) for key, counts in counted.items()}
    assert millions["ddpm-ct", "mask"] == (169.371, 68.645)
    assert millions["ddpm-ct", "template"] == (169.371, 68.647)
    assert millions["rflow-ct", "mask"] == (180.501, 72.037)
    assert counted["rflow-ct", "template"][1] - counted["rflow-ct", "mask"][1] == 9 * 8 * 27


@pytest.mark.parametrize("include_fc", [False, True])
def test_plain_monai_networks_have_the_same_tensors(include_fc):
    """MAISI's classes without their extra inputs are the plain ones: weights of either load into the other."""
    common = {"spatial_dims": 2, "in_channels": 2, "num_res_blocks": 1, "attention_levels": (False, True),
              "num_head_channels": 8, "norm_num_groups": 4, "include_fc": include_fc}  # fmt: skip
    for plain, maisi, extra in ((DiffusionModelUNet, DiffusionModelUNetMaisi, {"out_channels": 2}),
                                (ControlNet, ControlNetMaisi, {})):  # fmt: skip
        one, two = plain(**common, channels=(8, 16), **extra), maisi(**common, num_channels=(8, 16), **extra)
        shapes = [{name: value.shape for name, value in each.state_dict().items()} for each in (one, two)]
        assert shapes[0] == shapes[1]


def test_network_times_are_maisis_whole_timesteps():
    """DDPM's step n noises to alpha_bar(n) of MONAI, counted from 0, which is ours at (n + 1) / 1000."""
    n = torch.arange(1000.0)
    t = network_time(DDPM_CT, n)
    torch.testing.assert_close(t * TIMESTEPS + DDPM_CT.denoiser.timestep_offset, n, atol=1e-4, rtol=0)
    process = build_process(DDPM_CT.process)
    assert isinstance(process, VariancePreserving)
    betas = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64) ** 2
    alpha_bar = torch.cumprod(1 - betas, 0)
    torch.testing.assert_close(process.log_alpha_bar(t.double()).exp(), alpha_bar, atol=1e-7, rtol=1e-5)


def test_layouts_are_found_by_name():
    assert find_layout("rflow-ct") is RFLOW_CT
    with pytest.raises(InputError, match="no layout 'ddpm-mr'"):
        find_layout("ddpm-mr")
