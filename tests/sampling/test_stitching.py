"""Stitching: a structure's region is what its own denoiser makes it, and nothing of any other's."""

import pytest
import torch

from cardiosynth.core.random import generator
from cardiosynth.diffusion.control import Condition, mask_alone
from cardiosynth.diffusion.process import RectifiedFlow, times
from cardiosynth.sampling.solvers import ddim, ddpm_ancestral, dpm_solver_pp_2m, heun
from cardiosynth.sampling.stitching import StitchedDenoiser, Structures, embedded_structures

PROCESS = RectifiedFlow()


def quarters():
    """A mask of 8 x 8 pixels with structures 1, 4 and 9 in three corners, and nothing in the fourth."""
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    mask[..., :4, :4], mask[..., :4, 4:], mask[..., 4:, :4] = 1, 4, 9
    return mask


def largest(condition: Condition):
    """An embedding that is the code of the mask's structure, 0 where there is none."""
    return condition.reference.amax().float().view(1, 1, 1, 1)


def constant(x, t, embedding):
    """A denoiser that predicts of a structure its code."""
    return embedding.expand(len(x), *x.shape[1:]).to(x)


def told(compression=2, codes=(1, 4, 9)):
    return embedded_structures(largest, mask_alone(quarters()), codes, compression)


def test_every_structure_is_told_alone_and_has_its_own_region():
    found = told()
    assert [float(each) for each in found.each] == [1, 4, 9]
    assert float(found.nothing) == 0
    assert torch.equal(sum(region.int() for region in found.regions), (quarters()[..., ::2, ::2] > 0).int())


def test_a_structure_that_is_not_told_is_denoised_as_nothing():
    assert [float(each) for each in told(codes=(1, 4)).each] == [1, 4]


@pytest.mark.parametrize("weight", [0.0, 2.0])
@pytest.mark.parametrize("solver", [ddim, heun, dpm_solver_pp_2m, ddpm_ancestral])
def test_with_constant_denoisers_an_image_of_constants_is_drawn(solver, weight):
    """x0 = D(nothing) + (1 + w) (D(structure) - D(nothing)), in closed form the structure's code times 1 + w."""
    x = torch.randn(1, 1, 4, 4, generator=generator(0, "x"))
    rng = {"rng": generator(0, "steps")} if solver is ddpm_ancestral else {}
    found = solver(StitchedDenoiser(constant, weight), PROCESS, times(6, "time", PROCESS), x, told(), **rng)
    torch.testing.assert_close(found, (1 + weight) * quarters()[..., ::2, ::2].float(), atol=1e-5, rtol=0)


def test_one_structures_denoiser_changes_its_own_region_alone():
    x = torch.randn(1, 1, 4, 4, generator=generator(0, "x"))

    def other(x, t, embedding):
        """The same but for structure 4."""
        return constant(x, t, embedding) + 3.0 * (embedding == 4)

    grid = times(6, "time", PROCESS)
    one, two = (ddim(StitchedDenoiser(each, 0.0), PROCESS, grid, x, told()) for each in (constant, other))
    changed = quarters()[..., ::2, ::2] == 4
    assert torch.equal(one[~changed], two[~changed])
    torch.testing.assert_close(two[changed], one[changed] + 3, atol=1e-5, rtol=0)


def test_one_batch_or_one_call_each_give_the_same():
    x = torch.randn(1, 1, 4, 4, generator=generator(0, "x"))
    found = [
        StitchedDenoiser(constant, 1.0, stacked=stacked)(x, torch.tensor(0.5), told()) for stacked in (True, False)
    ]
    assert torch.equal(*found)


def test_what_is_stitched_is_limited():
    x = torch.zeros(1, 1, 4, 4)
    found = StitchedDenoiser(constant, 2.0, clamp=5.0)(x, torch.tensor(0.5), told())
    assert float(found.max()) == 5


def test_an_empty_mask_is_denoised_as_nothing():
    x = torch.zeros(1, 1, 4, 4)
    alone = Structures(torch.full((1, 1, 1, 1), 7.0), (), ())
    assert (StitchedDenoiser(constant, 2.0)(x, torch.tensor(0.5), alone) == 7).all()
