"""Crops lie on the latent grid, inside the volumes, and put hearts on each other."""

import numpy as np
import pytest
import torch

from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.random import generator
from cardiosynth.data.loader import CaseCache
from cardiosynth.diffusion.crops import Cropping, check_crop, heart_center
from cardiosynth.diffusion.objective import Objective, ObjectiveSettings
from cardiosynth.diffusion.process import RectifiedFlow
from cardiosynth.diffusion.task import ControlTask, DiffusionTask

from .small import case
from .test_task import FakeLatents, network

GRID = (48, 48, 48)


def moved(original, voxels):
    """The same anatomy elsewhere, with air where it came from."""
    arrays = {name: np.roll(getattr(original, name), voxels, (1, 2, 3)) for name in ("image", "mask")}
    return original.with_(case_id="moved", **arrays)


def lonely(index):
    """A heart in the middle of an empty volume, so that it can move."""
    small, full = case(index), {}
    for name, fill in (("image", -1000), ("mask", 0)):
        full[name] = np.full((1, *GRID), fill, getattr(small, name).dtype)
        full[name][:, 16:32, 16:32, 16:32] = getattr(small, name)
    return small.with_(**full)


def cropping(cases, shape=(6, 6, 6)):
    centers = tuple(tuple(v // 4 for v in heart_center(c)) for c in cases)
    return Cropping(shape, tuple(n // 4 for n in cases[0].grid.shape), centers, 4)


@pytest.mark.parametrize("voxels", [(4, 0, 0), (-8, 4, 8)])
def test_a_moved_template_is_cut_to_coincide(voxels):
    cases = [lonely(0), moved(lonely(0), voxels)]
    cut, cache = cropping(cases), CaseCache(cases, IntensityScale())
    starts = set()
    for index in range(50):
        one, other = (cut.voxels(where) for where in cut.draw([0, 1], generator(0, index)))
        assert torch.equal(cache.mask(0, one), cache.mask(1, other))
        assert torch.equal(cache.image(0, one), cache.image(1, other))
        assert [b.start - a.start for a, b in zip(one, other, strict=True)] == list(voxels)
        starts.add(tuple(part.start for part in one))
    assert len(starts) > 30


def test_crops_lie_inside_and_hold_the_heart():
    cut = Cropping((4, 6, 12), (12, 12, 12), ((0, 3, 5), (11, 8, 6)), 4)
    for index in range(200):
        for where, center in zip(cut.draw([0, 1], generator(0, index)), cut.centers, strict=True):
            for part, middle, n in zip(where, center, cut.shape, strict=True):
                assert part.start >= 0
                assert part.stop == part.start + n <= 12
                assert part.start <= middle < part.stop


def test_hearts_at_opposite_ends_are_each_moved_inside():
    cut = Cropping((10,), (12,), ((0,), (11,)), 4)
    assert [where[0].start for where in cut.draw([0, 1], generator(0))] == [0, 2]


def test_a_heart_center_moves_with_the_heart_and_is_the_middle_without():
    assert heart_center(moved(lonely(1), (3, -5, 7))) == tuple(
        v + d for v, d in zip(heart_center(lonely(1)), (3, -5, 7), strict=True)
    )
    assert heart_center(lonely(1).with_(mask=None)) == (24, 24, 24)
    surroundings = np.where(lonely(1).mask == 9, 9, 0).astype(np.uint8)
    assert heart_center(lonely(1).with_(mask=surroundings)) == (24, 24, 24)


class WideLatents(FakeLatents):
    def block(self, index, where=()):
        mean = torch.randn(2, 12, 12, 12, generator=generator(0, "latents", index))[(slice(None), *where)]
        return mean, torch.zeros_like(mean)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_latents_masks_images_and_weights_of_a_pair_are_cut_alike(bidirectional):
    cases = [lonely(index) for index in range(4)]
    weights = {index: torch.rand(1, 12, 12, 12, generator=generator(0, "weights", index)) for index in range(4)}
    objective = Objective(RectifiedFlow(), "flow", ObjectiveSettings(), weights, cropping=cropping(cases))
    cache = CaseCache(cases, IntensityScale(), needs_masks=True)
    task = ControlTask(network("concatenate"), cache, WideLatents(), objective, bidirectional=bidirectional)
    batch = task.batch([generator(0, index) for index in range(3)])
    assert batch["x0"].shape == (6, 2, 6, 6, 6)
    assert batch["reference"].shape == (6, 1, 24, 24, 24)
    for row, (target, template) in enumerate(batch["index"].tolist()):
        (where,) = places(weights[target], batch["weight"][row])
        assert torch.equal(WideLatents()[target][0][(slice(None), *where)], batch["x0"][row])
        assert torch.equal(cache.mask(target, objective.voxels(where)), batch["reference"][row])
        there = [tuple(slice(a - b + p.start, a - b + p.stop) for a, b, p in zip(
            objective.cropping.centers[template], objective.cropping.centers[target], where, strict=True
        ))]  # fmt: skip
        assert torch.equal(cache.image(template, objective.voxels(there[0])), batch["template_image"][row])
        assert torch.equal(cache.mask(template, objective.voxels(there[0])), batch["template_mask"][row])
    if bidirectional:
        assert torch.equal(batch["reference"][0], batch["template_mask"][1])
        assert torch.equal(batch["reference"][1], batch["template_mask"][0])
    assert torch.isfinite(task.loss(batch)["total"])


def places(whole, part):
    """Return where a part of random numbers was taken from."""
    size = part.shape[1]
    found = (whole[0].unfold(0, size, 1).unfold(1, size, 1).unfold(2, size, 1) == part[0]).all((3, 4, 5))
    return [tuple(slice(v, v + size) for v in start) for start in found.nonzero().tolist()]


def test_the_first_stage_is_cut_around_the_heart_too():
    objective = Objective(
        RectifiedFlow(), "flow", ObjectiveSettings(), cropping=cropping([lonely(i) for i in range(4)])
    )
    task = DiffusionTask(network(), WideLatents(), objective)
    assert task.batch([generator(0, 0)])["x0"].shape == (1, 2, 6, 6, 6)


def test_without_crops_examples_are_whole_volumes():
    cases = [lonely(index) for index in range(4)]
    cache = CaseCache(cases, IntensityScale(), needs_masks=True)
    objective = Objective(RectifiedFlow(), "flow", ObjectiveSettings())
    task = ControlTask(network("concatenate"), cache, WideLatents(), objective)
    batch = task.batch([generator(0, 0)])
    for row, (target, template) in enumerate(batch["index"].tolist()):
        assert torch.equal(batch["x0"][row], WideLatents()[target][0])
        assert torch.equal(batch["template_image"][row], cache.image(template))


@pytest.mark.parametrize(
    ("crop", "part"),
    [((16, 16), "3 multiples of 8"), ((16, 16, 20), "multiples of 8"), ((16, 16, 0), "multiples of 8"),
     ((16, 16, 64), "larger than the grid")],
)  # fmt: skip
def test_crops_that_do_not_suit_are_refused(crop, part):
    check_crop((16, 24, 48), GRID, 8)
    with pytest.raises(InputError, match=part):
        check_crop(crop, GRID, 8)
