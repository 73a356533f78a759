import numpy as np
import pytest
import torch

from cardiosynth.core.case import Case
from cardiosynth.core.picture import display_slice
from cardiosynth.core.random import generator
from cardiosynth.segmentation.medsam.slices import (
    as_square,
    box_of,
    cut_axis,
    slice_areas,
    square_weights,
    upright,
    widened,
)


def test_an_upright_slice_is_what_pictures_show_and_turns_back():
    volume = np.arange(24).reshape(2, 3, 4)
    shown = upright(torch.from_numpy(volume[:, :, 1]))
    assert np.array_equal(shown.numpy(), display_slice(volume, "axial", 1))
    assert np.array_equal(upright(shown).numpy(), volume[:, :, 1])


@pytest.mark.parametrize(("spacing_mm", "plane", "axis"), [((8, 1, 1), "short-axis", 0), ((8, 1, 1), "axial", 2)])
def test_volumes_are_cut_across_their_own_slices_or_the_patient(spacing_mm, plane, axis):
    case = Case(case_id="a", image=np.zeros((1, 4, 8, 9), np.int16), affine=np.diag((*map(float, spacing_mm), 1.0)))
    assert cut_axis(case, plane) == axis
    assert cut_axis(Case(case_id="b", image=np.zeros((1, 4, 8), np.int16), affine=np.eye(4)), plane) is None


def test_areas_are_counted_slice_by_slice():
    mask = np.zeros((1, 3, 4, 2), np.uint8)
    mask[0, 1, :3, 0] = 5
    assert slice_areas(mask, 0, 5) == [0, 3, 0]
    assert slice_areas(mask, 2, 5) == [3, 0]
    assert slice_areas(mask[..., 0], None, 5) == [3]


def test_a_box_on_the_square_is_that_of_the_enlarged_mask():
    inside = torch.zeros(10, 20, dtype=torch.bool)
    inside[3:5, 7] = True
    inside[4, 9:12] = True
    square = square_weights(inside[None].float(), 40)[0] > 0
    rows, columns = torch.nonzero(square, as_tuple=True)
    wanted = [columns.min(), rows.min(), columns.max(), rows.max()]
    assert box_of(inside, 40).tolist() == [float(v) for v in wanted]
    assert box_of(inside, 40).tolist() == [14, 12, 23, 19]


def test_boxes_widen_outward_within_the_square():
    box = torch.tensor([1.0, 20, 62, 40])
    drawn = torch.stack([widened(box, 0.1, 64, generator(0, i)) for i in range(50)])
    outward = (drawn - box) * torch.tensor([-1.0, -1, 1, 1])
    assert outward.min() >= 0
    assert 5 < outward[:, 1].max() <= 6.4
    assert drawn.min() == 0
    assert drawn.max() == 63
    assert torch.equal(widened(box, 0.0, 64, generator(0, 0)), box)


def test_labels_and_confidence_reach_the_square_alike():
    """No label of a pixel without confidence may show beside its own weight, whatever the sizes."""
    inside = torch.rand(1, 23, 31, generator=generator(0, "inside")) > 0.5
    assert ((square_weights(inside.float(), 64) * square_weights(1 - inside.float(), 64)) == 0).all()
    assert as_square(torch.rand(1, 23, 31), 64).aminmax().max <= 1
