import numpy as np
import pytest
from scipy import ndimage

from cardiosynth.core import volume
from cardiosynth.core.volume import (
    Grid,
    centered_grid,
    covering_grid,
    resample,
    resample_mask,
    right_angled_axes,
    spacing_along,
    to_ras,
)


def rotation(degrees: float, axis: int = 2) -> np.ndarray:
    angle = np.radians(degrees)
    a, b = [i for i in range(3) if i != axis]
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix


def affine_of(linear: np.ndarray, origin=(0.0, 0.0, 0.0)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = origin
    return affine


def world(grid: Grid) -> np.ndarray:
    """(3, *shape) patient coordinates of every voxel."""
    index = np.zeros((3, *grid.shape))
    index[: len(grid.shape)] = np.indices(grid.shape)
    return np.tensordot(grid.affine[:3, :3], index, 1) + grid.affine[:3, 3].reshape(3, *[1] * len(grid.shape))


def test_the_center_of_a_centered_grid_is_where_it_was_asked_for():
    for shape, spacing in (((7, 8, 9), (1.0, 2.0, 3.0)), ((7, 8), (1.0, 2.0)), ((7, 8), (1.0, 2.0, 10.0))):
        grid = centered_grid(np.array([1.0, 2.0, 3.0]), shape, spacing, rotation(20))
        np.testing.assert_allclose(grid.center_mm, (1, 2, 3))
        np.testing.assert_allclose(grid.spacing_mm, spacing[: len(shape)])
        assert not grid.is_sheared


def test_axis_codes_and_shear_are_recognized():
    assert Grid((4, 4, 4), np.diag([-1.0, -1.0, 1.0, 1.0])).axis_codes == "LPS"
    linear = np.eye(3)
    linear[1, 2] = 0.1
    assert Grid((4, 4, 4), affine_of(linear)).is_sheared
    assert not Grid((4, 4), affine_of(linear)).is_sheared, "a slice has no third axis to be sheared"
    assert not Grid((4, 4, 4), affine_of(rotation(33))).is_sheared


def test_same_as_allows_a_hundredth_of_a_millimeter_at_the_corners():
    grid = Grid((100, 100, 100), np.eye(4))
    assert grid.same_as(Grid((100, 100, 100), np.diag([1.00005, 1, 1, 1])))
    assert not grid.same_as(Grid((100, 100, 100), np.diag([1.001, 1, 1, 1])))
    assert not grid.same_as(Grid((100, 100, 99), np.eye(4)))


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)])
def test_to_ras_moves_no_voxel_in_space(shape, order, signs):
    linear = np.zeros((3, 3))
    linear[list(order), [0, 1, 2]] = np.array(signs) * (1.0, 2.0, 3.0)
    affine = affine_of(rotation(10) @ linear, (5, 6, 7))
    array = np.arange(np.prod(shape)).reshape(1, *shape)
    moved, new_affine = to_ras(array, affine)
    before, after = world(Grid(shape, affine)), world(Grid(moved.shape[1:], new_affine))
    where = np.argsort(moved.ravel())
    np.testing.assert_allclose(after.reshape(3, -1)[:, where], before.reshape(3, -1), atol=1e-9)
    directions = new_affine[:3, : len(shape)]
    assert (directions[np.abs(directions).argmax(0), range(len(shape))] > 0).all()
    assert (np.diff(np.abs(directions).argmax(0)) > 0).all(), "axes come in the order R, A, S"


def test_right_angled_axes_are_orthonormal_and_those_of_a_straight_grid_are_its_own():
    sheared = affine_of(rotation(15) @ np.array([[1.0, 0.2, 0], [0, 1, 0.1], [0, 0, 1]]))
    axes = right_angled_axes(Grid((4, 4, 4), sheared))
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(right_angled_axes(Grid((4, 4, 4), affine_of(2 * rotation(15)))), rotation(15))


def test_the_axes_of_a_sheared_slice_stay_in_its_plane():
    linear = rotation(30, axis=0) @ np.array([[1.0, 0.3, 0.2], [0, 1, 0.1], [0, 0, 5]])
    axes = right_angled_axes(Grid((4, 4), affine_of(linear)))
    normal = np.cross(linear[:, 0], linear[:, 1])
    np.testing.assert_allclose(normal @ axes[:, :2], 0, atol=1e-12)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("shape", [(10, 12, 6), (10, 12)])
def test_a_straight_grid_covers_the_sheared_one_and_keeps_its_spacing(shape):
    linear = np.array([[0.0, -1.0, 0.2], [1.5, 0.3, 0], [0, 0, 4.0]])
    sheared = Grid(shape, affine_of(linear, (1, 2, 3)))
    axes = np.eye(3) if len(shape) == 3 else right_angled_axes(sheared)
    straight = covering_grid(sheared, axes, spacing_along(sheared, axes))
    assert not straight.is_sheared
    index = np.linalg.inv(straight.affine[:3, :3]) @ (world(sheared).reshape(3, -1) - straight.affine[:3, 3, None])
    size = np.array([*straight.shape, 1][:3])
    assert (index > -1e-3).all()
    assert (index < size[:, None] - 1 + 1e-3).all()
    assert sorted(straight.spacing_mm) == pytest.approx(sorted(sheared.spacing_mm))


def test_a_covering_grid_of_the_same_axes_and_spacing_is_the_grid_itself():
    grid = Grid((5, 6, 7), affine_of(rotation(12) * (1.0, 2.0, 3.0), (4, 5, 6)))
    assert covering_grid(grid, rotation(12), (1.0, 2.0, 3.0)).same_as(grid)


@pytest.mark.parametrize("order", [1, 3])
def test_resampling_a_linear_function_is_exact_between_any_two_grids(order):
    source = Grid((20, 22, 24), affine_of(rotation(25) * (1.0, 1.5, 0.8), (3, -2, 7)))
    target = centered_grid(source.center_mm, (9, 8, 7), (0.9, 0.7, 1.0))
    plane = np.array([1.0, -2.0, 0.5])
    found = resample(np.tensordot(plane, world(source), 1)[None], source, target, fill=0.0, order=order)
    np.testing.assert_allclose(found[0], np.tensordot(plane, world(target), 1), atol=2e-3)


def test_a_coarser_grid_sees_the_mean_and_not_an_alias():
    source = Grid((64, 8, 8), np.eye(4))
    stripes = np.zeros((1, 64, 8, 8), np.float32)
    stripes[:, ::4] = 100.0
    target = centered_grid(source.center_mm, (16, 8, 8), (4.0, 1.0, 1.0))
    inner = resample(stripes, source, target, 0.0)[0, 2:-2]
    assert abs(inner - 25).max() < 12, "sampling every fourth plane would give 0 or 100"


def test_beyond_the_scan_lies_the_fill_value_and_at_its_edge_the_edge():
    source = Grid((4, 4, 4), np.eye(4))
    image = np.full((1, 4, 4, 4), 7, np.int16)
    target = Grid((10, 4, 4), affine_of(np.eye(3), (-3, 1e-7, 0)))
    line = resample(image, source, target, fill=-1024.0)[0, :, 0, 0]
    assert line.tolist() == [-1024] * 3 + [7] * 4 + [-1024] * 3


def test_a_shift_by_whole_voxels_copies_every_bit():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 6, 7, 8)).astype(np.float32)
    source = Grid((6, 7, 8), affine_of(rotation(17) * 0.7, (1, 2, 3)))
    shift = affine_of(np.eye(3), (2, 0, -1))
    target = Grid((4, 7, 8), source.affine @ shift)
    found = resample(image, source, target, 0.0, order=3)
    assert np.array_equal(found[..., 1:], image[:, 2:, :, :-1])
    mask = rng.integers(0, 5, (1, 6, 7, 8)).astype(np.uint8)
    assert np.array_equal(resample_mask(mask, source, target)[..., 1:], mask[:, 2:, :, :-1])


def ball(grid: Grid, radius_mm: float) -> np.ndarray:
    return np.linalg.norm(world(grid) - grid.center_mm.reshape(3, 1, 1, 1), axis=0) <= radius_mm


def test_a_ball_resampled_is_the_ball_drawn_on_the_other_grid():
    source = Grid((48, 48, 48), affine_of(rotation(20), (0, 0, 0)))
    target = centered_grid(source.center_mm, (32, 32, 32), (1.5, 1.5, 1.5))
    drawn = ball(target, 15)
    found = resample_mask(ball(source, 15)[None].astype(np.uint8) * 4, source, target)[0]
    assert set(np.unique(found)) == {0, 4}
    assert 2 * (drawn & (found == 4)).sum() / (drawn.sum() + (found == 4).sum()) > 0.97


def test_a_thin_vessel_keeps_its_volume_and_its_connection_on_a_coarser_grid():
    source = Grid((48, 48, 48), np.eye(4))
    x, y, z = np.indices(source.shape)
    vessel = (x - (12 + 0.4 * z)) ** 2 + (y - (20 + 6 * np.sin(z / 9))) ** 2 < 1.5**2
    target = centered_grid(source.center_mm, (20, 20, 20), (2.4, 2.4, 2.4))
    found = resample_mask(vessel[None].astype(np.uint8), source, target)[0]
    assert found.sum() * 2.4**3 == pytest.approx(vessel.sum(), rel=0.1)
    assert ndimage.label(found, np.ones((3, 3, 3)))[1] == 1


def test_three_structures_that_meet_leave_no_hole():
    source = Grid((30, 30, 30), np.eye(4))
    x, y, _ = np.indices(source.shape)
    mask = np.where(x < 15, 1, np.where(y < 15, 2, 3)).astype(np.uint8)[None]
    target = centered_grid(source.center_mm, (16, 16, 16), (1.7, 1.7, 1.7))
    assert (resample_mask(mask, source, target) > 0).all()


@pytest.mark.parametrize("axes", [np.eye(3), rotation(25)])
def test_small_blocks_give_what_one_block_gives(monkeypatch: pytest.MonkeyPatch, axes: np.ndarray):
    source = Grid((40, 36, 30), affine_of(np.diag([1.0, 1.2, 1.5])))
    target = centered_grid(source.center_mm + 0.3, (30, 20, 26), (1.9, 1.1, 1.3), axes)
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, *source.shape)).astype(np.float32)
    mask = np.zeros((1, *source.shape), np.uint8)
    mask[:, 5:30, 6:20], mask[:, 18:20, 18:20] = 3, 5
    whole = [resample(image, source, target, None, order) for order in (1, 3)], resample_mask(mask, source, target)
    monkeypatch.setattr(volume, "BLOCK", 7)
    monkeypatch.setattr(volume, "MASK_BLOCK", 7)
    for order, one in zip((1, 3), whole[0], strict=True):
        np.testing.assert_allclose(resample(image, source, target, None, order), one, atol=1e-5)
    assert set(np.unique(whole[1])) == {0, 3, 5}
    assert np.array_equal(resample_mask(mask, source, target), whole[1])


@pytest.mark.parametrize("spacing_mm", [(1.6, 1.4, 2.0), (0.7, 0.6, 0.9), (-1.3, 0.8, 3.1)])
def test_straight_grids_axis_by_axis_give_what_scipy_gives_in_one_step(spacing_mm):
    values = np.random.default_rng(0).normal(0, 300, (1, 17, 14, 11)).astype(np.float32)
    source = Grid(values.shape[1:], affine_of(np.diag([1.0, 1.1, 1.4])))
    target = centered_grid(source.center_mm + 1.3, (21, 18, 9), tuple(np.abs(spacing_mm)), np.diag(np.sign(spacing_mm)))
    step = np.array(spacing_mm) / source.spacing_mm
    offset = (np.linalg.inv(source.affine) @ target.affine)[:3, 3]
    sigma = np.maximum(np.abs(step) - 1, 0) / 2
    smooth = ndimage.gaussian_filter(values[0], sigma, mode="nearest", truncate=4.0)
    wanted = ndimage.affine_transform(smooth, np.diag(step), offset, target.shape, order=1, mode="nearest")
    np.testing.assert_allclose(resample(values, source, target, fill=None)[0], wanted, atol=1e-3)
