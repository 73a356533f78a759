import numpy as np
import pytest
import torch

from cardiosynth.anatomy.deform import affine_matrix, diffeomorphism, pull_back
from cardiosynth.anatomy.fields import SmoothField

from .test_fields import field


def still(n):
    return SmoothField(torch.zeros((n, *(4,) * n)), (-30.0,) * n, 20.0)


def deformation(shape, spacing_mm, matrix=None, translation_mm=None, field=None):
    n = len(shape)
    center = (np.array(shape) - 1) / 2 * np.array(spacing_mm)
    return diffeomorphism(
        shape, spacing_mm, center, np.eye(n) if matrix is None else matrix,
        np.zeros(n) if translation_mm is None else np.array(translation_mm), field or still(n),
    )  # fmt: skip


def ball(shape, radius, center=None):
    axes = np.meshgrid(*[np.arange(s) for s in shape], indexing="ij")
    middle = [(s - 1) / 2 for s in shape] if center is None else center
    return np.sqrt(sum((a - m) ** 2 for a, m in zip(axes, middle, strict=True))) < radius


@pytest.mark.parametrize("shape", [(12, 10), (9, 10, 11)])
def test_the_identity_moves_nothing(shape):
    inside = ball(shape, 3)
    box, share = pull_back(inside, deformation(shape, (2.0,) * len(shape)))
    out = np.zeros(shape, np.float32)
    out[box] = share
    np.testing.assert_allclose(out, inside, atol=1e-4)


def test_a_translation_by_whole_voxels_shifts_whatever_the_spacing():
    shape, inside = (14, 14, 14), ball((14, 14, 14), 3)
    box, share = pull_back(inside, deformation(shape, (1.0, 2.0, 4.0), translation_mm=(2.0, -2.0, 4.0)))
    out = np.zeros(shape, np.float32)
    out[box] = share
    np.testing.assert_allclose(out, np.roll(inside, (2, -1, 1), (0, 1, 2)), atol=1e-4)


def test_a_quarter_turn_about_the_third_axis_turns_x_to_y():
    inside = np.zeros((9, 9, 3), bool)
    inside[7, 4, 1] = True
    box, share = pull_back(
        inside, deformation((9, 9, 3), (1.0, 1.0, 1.0), affine_matrix((0, 0, 90), (1, 1, 1), (0, 0, 0)))
    )
    out = np.zeros((9, 9, 3), np.float32)
    out[box] = share
    assert out[4, 7, 1] == pytest.approx(1, abs=1e-4)
    assert out.sum() == pytest.approx(1, abs=1e-3)


def test_the_affine_matrix_has_the_determinant_of_its_scales():
    matrix = affine_matrix((10, -20, 30), (1.1, 0.9, 1.2), (0.1, -0.05, 0.02))
    assert np.linalg.det(matrix) == pytest.approx(1.1 * 0.9 * 1.2)


@pytest.mark.parametrize("n", [2, 3])
def test_the_jacobian_of_an_affine_map_is_one_over_its_determinant(n):
    scale = (1.2, 0.8, 1.1)[:n]
    subject = deformation((6,) * n, (1.0,) * n, np.diag(scale))
    jacobian = subject.jacobian_determinant()
    torch.testing.assert_close(jacobian, torch.full_like(jacobian, 1 / float(np.prod(scale))))


def test_the_jacobian_gives_the_volume_of_a_deformed_structure():
    shape = (41, 41, 41)
    subject = deformation(shape, (1.0,) * 3, affine_matrix((5, 0, 0), (1.1, 0.95, 1.0), (0, 0, 0)), field=field())
    box, share = pull_back(ball(shape, 10), subject)
    carried = float((torch.from_numpy(share) * subject.jacobian_determinant(box)).sum())
    assert carried == pytest.approx(ball(shape, 10).sum(), rel=0.01)


def test_a_structures_volume_is_the_integral_of_the_local_growth_over_the_source():
    shape = (41, 41, 41)
    subject = deformation(shape, (1.0,) * 3, affine_matrix((5, 0, 0), (1.1, 0.95, 1.0), (0, 0, 0)), field=field())
    _, share = pull_back(ball(shape, 10), subject)
    places = np.argwhere(ball(shape, 10)).T.astype(float)
    slopes = [
        (subject.to_target(places + h) - subject.to_target(places - h)) / 0.2 for h in 0.1 * np.eye(3)[:, :, None]
    ]
    growth = np.linalg.det(np.stack(slopes).transpose(2, 0, 1))
    assert float(share.sum()) == pytest.approx(growth.sum(), rel=0.002)


def test_to_the_target_and_back_is_where_one_was():
    subject = deformation((40, 30, 20), (0.8, 1.0, 2.0), affine_matrix((9, -4, 7), (1.1, 0.9, 1), (0, 0.05, 0)),
                          (3.0, -2.0, 1.0), field())  # fmt: skip
    places = np.random.default_rng(0).uniform(5, 15, (3, 200))
    np.testing.assert_allclose(subject.to_source(subject.to_target(places)), places, atol=0.02)
    there = subject.source_index((slice(3, 9), slice(4, 10), slice(5, 8)))
    here = np.indices(there.shape[1:]).reshape(3, -1) + np.array([[3.0], [4], [5]])
    np.testing.assert_allclose(subject.to_source(here), there.reshape(3, -1), atol=1e-3)


@pytest.mark.parametrize("amplitude_mm", [5.0, 15.0])
def test_no_velocity_folds(amplitude_mm):
    subject = deformation((41,) * 3, (1.0,) * 3, field=field(amplitude_mm=amplitude_mm))
    low, high = subject.jacobian_range()
    assert 0 < low < 1 < high
    jacobian = subject.jacobian_determinant()
    assert float(jacobian.min()) == pytest.approx(low, rel=0.05)
    assert float(jacobian.max()) == pytest.approx(high, rel=0.05)


def test_shares_outside_the_box_are_zero():
    shape = (30, 30, 30)
    subject = deformation(
        shape, (1.0,) * 3, affine_matrix((20, 10, -15), (1.1, 1.0, 0.9), (0, 0.1, 0)), field=field(amplitude_mm=1.0)
    )
    inside = ball(shape, 4, (10, 16, 18))
    box, share = pull_back(inside, subject)
    everything = tuple(slice(0, n) for n in shape)
    index = subject.source_index(everything)
    reached = (index - torch.tensor([10.0, 16, 18]).reshape(3, 1, 1, 1)).norm(dim=0) < 4
    assert share.size < 30**3
    assert int(reached[box].sum()) == int(reached.sum())


def test_a_structure_that_the_border_cuts_goes_on_beyond_it():
    inside = np.zeros((10, 10, 10), bool)
    inside[:4, 3:7, 3:7] = True
    box, share = pull_back(inside, deformation((10, 10, 10), (1.0,) * 3, translation_mm=(3.0, 0.0, 0.0)))
    out = np.zeros((10, 10, 10), np.float32)
    out[box] = share
    np.testing.assert_allclose(out[:7, 3:7, 3:7], 1, atol=1e-4)
    assert out[7:].max() < 1e-4


def test_a_structure_that_left_the_field_of_view_has_no_share():
    inside = np.zeros((10, 10, 10), bool)
    inside[7, 5, 5] = True
    box, share = pull_back(inside, deformation((10, 10, 10), (1.0,) * 3, translation_mm=(9.0, 0.0, 0.0)))
    assert share.size == 0
    assert np.zeros((10, 10, 10))[box].size == 0
