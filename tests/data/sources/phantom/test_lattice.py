import numpy as np

from cardiosynth.data.sources.phantom.geometry import open_mesh
from cardiosynth.data.sources.phantom.lattice import STEP_MM, Roughness, lattice_around

LATTICE = lattice_around(np.array([-9.0, -5.0, 0.0]), np.array([11.0, 7.0, 13.0]))
FINE = (np.arange(-9, 11, 0.37), np.arange(-5, 7, 0.5), np.arange(0, 13, 0.41))


def linear(axes):
    x, y, z = open_mesh(axes)
    return 2 * x - y + 0.5 * z + 1


def test_points_lie_at_multiples_of_the_step_and_cover_the_box():
    for axis, low, high in zip(LATTICE.axes, (-9, -5, 0), (11, 7, 13), strict=True):
        assert np.allclose(np.mod(axis, STEP_MM), 0)
        assert axis[0] <= low
        assert axis[-1] >= high


def test_sampling_reproduces_a_linear_field():
    field = linear(LATTICE.axes)
    assert np.allclose(LATTICE.sampled(field, FINE), linear(FINE), atol=1e-4)
    points = np.array([[1.3, 2.2, 4.4], [-8.1, 0.0, 12.0]])
    expected = 2 * points[:, 0] - points[:, 1] + 0.5 * points[:, 2] + 1
    assert np.allclose(LATTICE.at(field, points), expected, atol=1e-4)


def test_a_part_of_a_grid_has_the_bits_of_the_whole():
    field = Roughness(0, 3).field("walls", 5.0, LATTICE.axes)
    whole = LATTICE.sampled(field, FINE)
    part = LATTICE.sampled(field, (FINE[0][7:20], FINE[1], FINE[2][11:13]))
    assert np.array_equal(whole[7:20, :, 11:13], part)


def test_the_box_holds_every_grid_point_that_is_inside():
    x, y, z = open_mesh(LATTICE.axes)
    field = np.sqrt((x - 3) ** 2 + (y - 1) ** 2 + (z - 6) ** 2) - 3
    part = LATTICE.box(field < 0.5, FINE)
    assert part is not None
    outside = LATTICE.sampled(field, FINE)
    outside[part] = 1e3
    assert outside.min() >= 0.5
    assert LATTICE.box(field < -9, FINE) is None


def test_roughness_belongs_to_patient_space_and_to_its_name():
    rough = Roughness(0, 3)
    whole = rough.field("walls", 5.0, LATTICE.axes)
    x, y, z = LATTICE.axes
    assert np.array_equal(whole[2:5, 1:, :4], rough.field("walls", 5.0, (x[2:5], y[1:], z[:4])))
    assert not np.allclose(whole, rough.field("liver", 5.0, LATTICE.axes))
    assert not np.allclose(whole, Roughness(0, 4).field("walls", 5.0, LATTICE.axes))
