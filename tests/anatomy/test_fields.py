import numpy as np
import pytest
import torch
from scipy import linalg

from cardiosynth.anatomy.fields import SmoothField, exponential, random_field


def field(seed=0, n=3, amplitude_mm=5.0, half_mm=20.0):
    return random_field([-half_mm] * n, [half_mm] * n, amplitude_mm, 15.0, np.random.default_rng(seed))


@pytest.mark.parametrize("n", [2, 3])
def test_the_largest_displacement_is_the_amplitude(n):
    axes = [np.linspace(-20, 20, 60)] * n
    largest = float(field(n=n, amplitude_mm=5.0).displacement(axes).norm(dim=0).max())
    assert 4.7 < largest < 5.2


def test_the_same_displacement_belongs_to_the_same_point_at_every_resolution():
    coarse = field().displacement([np.arange(-20.0, 21, 4)] * 3)
    fine = field().displacement([np.arange(-20.0, 21, 2)] * 3)
    torch.testing.assert_close(coarse, fine[:, ::2, ::2, ::2])


def test_the_gradient_is_that_of_the_displacement():
    x, step = np.linspace(-15, 15, 7), 0.01
    gradient = field().gradient([x] * 3)
    for along in range(3):
        after, before = ([x + sign * step * (axis == along) for axis in range(3)] for sign in (1, -1))
        slope = (field().displacement(after) - field().displacement(before)) / (2 * step)
        torch.testing.assert_close(gradient[:, along], slope, atol=2e-3, rtol=0)


def test_scattered_points_are_moved_as_the_lattice_is():
    axes = [np.linspace(-18, 18, 5), np.linspace(-9, 12, 4), np.linspace(-15, 3, 3)]
    points = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    np.testing.assert_allclose(field().at(points), field().displacement(axes).reshape(3, -1), atol=1e-5)


@pytest.mark.parametrize("matrix", [[[0.0, -0.6], [0.6, 0.0]], [[0.3, 0.1], [0.0, -0.4]]])
def test_the_flow_of_a_linear_velocity_is_the_matrix_exponential(matrix):
    """Cubic splines reproduce straight lines from the knots' positions."""
    knots = (np.indices((17, 17)) - 8) * 10.0
    velocity = SmoothField(torch.from_numpy(np.einsum("ij,jxy->ixy", np.array(matrix), knots)), (-80.0, -80.0), 10.0)
    flow = exponential(velocity, (-20.0, -20.0), (20.0, 20.0))
    points = np.random.default_rng(0).uniform(-20, 20, (2, 100))
    np.testing.assert_allclose(points + flow.at(points), linalg.expm(np.array(matrix)) @ points, atol=0.05)


@pytest.mark.parametrize("n", [2, 3])
def test_the_flow_of_the_opposite_velocity_is_the_inverse(n):
    box = [-20.0] * n, [20.0] * n
    there, back = (exponential(field(n=n, amplitude_mm=8.0).scaled(sign), *box) for sign in (1, -1))
    points = np.random.default_rng(0).uniform(-12, 12, (n, 300))
    moved = points + there.at(points)
    assert np.linalg.norm(moved - points, axis=0).max() > 2
    np.testing.assert_allclose(moved + back.at(moved), points, atol=0.02)


def test_a_velocity_that_would_fold_as_a_displacement_does_not_as_a_flow():
    fierce, axes = field(amplitude_mm=15.0), [np.linspace(-20, 20, 41)] * 3

    def smallest_jacobian(displacement):
        slopes = displacement.gradient(axes) + torch.eye(3).reshape(3, 3, 1, 1, 1)
        return float(torch.linalg.det(torch.movedim(slopes, (0, 1), (-2, -1))).min())

    assert smallest_jacobian(fierce) < 0
    assert smallest_jacobian(exponential(fierce, [-20.0] * 3, [20.0] * 3)) > 0
