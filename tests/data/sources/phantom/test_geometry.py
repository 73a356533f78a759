import numpy as np
import pytest

from cardiosynth.data.sources.phantom.geometry import (
    FAR_MM,
    HalfSpace,
    Tube,
    arc_lengths,
    open_mesh,
    outside,
    rotation,
    smooth_intersection,
    smooth_tube,
    smooth_union,
    spline,
    unit,
    upright_ellipsoid,
)

AXIS = np.arange(-12.0, 12.5, 1.0)
AXES = (AXIS, AXIS, AXIS)


def radius_of(axes):
    x, y, z = open_mesh(axes)
    return np.sqrt(x**2 + y**2 + z**2)


def test_a_sphere_has_its_exact_distance():
    distance = upright_ellipsoid((0.5, 0, 0), (5, 5, 5)).distance(AXES)
    shifted = radius_of((AXIS - 0.5, AXIS, AXIS))
    assert np.allclose(distance, shifted - 5, atol=1e-3)


def test_an_ellipsoid_is_zero_on_its_surface_and_negative_inside():
    ellipsoid = upright_ellipsoid((1, 0, 0), (4, 2, 3))
    on_it = ellipsoid.distance((np.array([5.0]), np.array([0.0]), np.array([0.0])))
    assert abs(float(on_it[0, 0, 0])) < 1e-5
    assert ellipsoid.distance((np.array([1.5]), np.array([0.5]), np.array([0.5])))[0, 0, 0] < 0


def test_a_half_space_has_its_exact_distance():
    normal = unit((1, 2, -1))
    x, y, z = open_mesh(AXES)
    expected = -(normal[0] * (x - 1) + normal[1] * y + normal[2] * z)
    assert np.allclose(HalfSpace(np.array([1.0, 0, 0]), normal).distance(AXES), expected, atol=1e-5)


def test_a_tube_of_two_points_is_a_capsule_within_reach_and_far_beyond():
    tube = Tube(np.array([[-4.0, 0, 0], [4.0, 0, 0]]), np.array([2.0, 2.0]))
    x, y, z = open_mesh(AXES)
    capsule = np.sqrt(np.maximum(np.abs(x) - 4, 0) ** 2 + y**2 + z**2) - 2
    distance = tube.distance(AXES, reach_mm=3.0)
    assert np.allclose(distance[capsule < 2.9], capsule[capsule < 2.9], atol=1e-5)
    assert (distance[capsule > 9] == FAR_MM).all()


@pytest.mark.parametrize("radius", [0.3, 0.5, 2.0])
def test_coverage_adds_up_to_the_volume_of_the_tube(radius):
    tube = Tube(np.array([[-6.0, 0.13, 0.21], [6.0, 0.13, 0.21]]), np.array([radius, radius]))
    share = np.zeros((25, 25, 25), np.float32)
    tube.coverage(AXES, 1.0, share)
    area = share[8:17].sum() / 9
    assert share.max() <= 1
    assert area == pytest.approx(np.pi * radius**2, rel=0.12)


def test_fill_marks_exactly_the_points_inside():
    tube = Tube(np.array([[-4.0, 0, 0], [4.0, 3, 0]]), np.array([2.0, 1.0]))
    mask = np.zeros((25, 25, 25), np.uint8)
    tube.fill(AXES, mask, 7)
    assert ((mask == 7) == (tube.distance(AXES) < 0)).all()


def test_smooth_union_is_the_union_away_from_the_seam_and_never_smaller():
    a, b = radius_of(AXES) - 5, np.abs(open_mesh(AXES)[0]) - 3 + 0 * radius_of(AXES)
    blended, sharp = smooth_union(a, b, 2.0), np.minimum(a, b)
    assert (blended <= sharp + 1e-6).all()
    assert np.allclose(blended[np.abs(a - b) > 2], sharp[np.abs(a - b) > 2])
    assert np.allclose(blended[a == b], (a - 0.5)[a == b])
    assert (smooth_intersection(a, b, 2.0) >= np.maximum(a, b) - 1e-6).all()


def test_outside_keeps_the_gap():
    a, b = radius_of(AXES) - 8, radius_of(AXES) - 4
    shell = outside(a, (b, 2.0))
    assert (radius_of(AXES)[shell < 0] > 6).all()


def test_a_spline_goes_through_its_controls_in_even_steps():
    controls = [(0, 0, 0), (10, 2, 0), (20, 0, 4)]
    points = spline(controls, 0.5)
    for control in controls:
        assert np.linalg.norm(points - control, axis=1).min() < 0.3
    steps = np.diff(arc_lengths(points))
    assert np.allclose(steps, 0.5, atol=0.1)


def test_a_smooth_tube_takes_its_radii_at_its_ends():
    tube = smooth_tube([(0, 0, 0), (10, 0, 0)], [3.0, 1.0])
    assert tube.radii_mm[0] == 3
    assert tube.radii_mm[-1] == 1
    assert tube.length_mm == pytest.approx(10)


def test_rotations_turn_by_the_right_hand():
    assert np.allclose(rotation([0, 0, 1], np.pi / 2) @ [1, 0, 0], [0, 1, 0])
