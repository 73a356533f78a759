import numpy as np
import pytest
from scipy import ndimage

from cardiosynth.anatomy.deform import pull_back
from cardiosynth.anatomy.structures import (
    closing,
    is_thin,
    joined,
    max_pool,
    thin_structure,
    volume_keeping_share,
    without_specks,
)
from cardiosynth.metrics.topology import components

from .test_deform import deformation, field


def random_mask(seed=0, shape=(12, 13, 14)):
    return np.random.default_rng(seed).random(shape) < 0.3


def helix(n=40, radius=10.0):
    """A one-voxel-wide, connected vessel."""
    t = np.linspace(0, 3 * np.pi, 2000)
    points = np.stack([n / 2 + radius * np.cos(t), n / 2 + radius * np.sin(t), 6 + t * 2.8], -1)
    inside = np.zeros((n,) * 3, bool)
    inside[tuple(np.rint(points).astype(int).T)] = True
    return inside


@pytest.mark.parametrize("shape", [(12, 13), (12, 13, 14)])
def test_closing_is_extensive_idempotent_and_what_scipy_says_inside(shape):
    inside = random_mask(shape=shape)
    closed = closing(inside)
    assert (closed >= inside).all()
    np.testing.assert_array_equal(closing(closed), closed)
    wide = np.pad(inside, 3)
    expected = ndimage.binary_closing(wide, np.ones((2,) * len(shape)))
    np.testing.assert_array_equal(closed, expected[(slice(3, -3),) * len(shape)])


def test_closing_fills_a_gap_of_one_voxel_and_moves_nothing():
    inside = np.zeros((9, 5, 5), bool)
    inside[:4, 2, 2] = inside[5:, 2, 2] = True
    closed = closing(inside)
    assert closed.sum() == 9
    assert closed[:, 2, 2].all()


def test_max_pooling_thickens_a_line_to_four_voxels():
    inside = np.zeros((6, 6, 9), bool)
    inside[3, 3] = True
    assert max_pool(inside).sum() == 4 * 9
    assert max_pool(inside)[2:4, 2:4].all()


def test_fragments_are_joined_along_the_ridge_and_nothing_else_grows():
    share = np.zeros((7, 7, 15), np.float32)
    share[3, 3] = 0.9
    share[3, 3, 6:9] = 0.3
    share[2, 3, 6:9] = 0.1
    inside = share > 0.5
    whole = joined(inside, share)
    np.testing.assert_array_equal(whole, share >= 0.3)
    np.testing.assert_array_equal(joined(whole, share), whole)


def test_fragments_that_no_share_connects_stay_apart():
    share = np.zeros((5, 5, 9), np.float32)
    share[2, 2, :3] = share[2, 2, 6:] = 1
    np.testing.assert_array_equal(joined(share > 0.5, share), share > 0.5)


def test_the_share_found_keeps_the_volume_after_closing():
    _, share = pull_back(helix(), deformation((40,) * 3, (1.0,) * 3, field=field()))
    kept = closing(share >= volume_keeping_share(share, float(share.sum()))).sum()
    assert kept == pytest.approx(share.sum(), rel=0.03)


@pytest.mark.parametrize("seed", range(5))
def test_a_thin_vessel_stays_in_one_piece_and_keeps_its_caliber(seed):
    inside = helix()
    assert components(inside).count == 1
    subject = deformation((40,) * 3, (1.0,) * 3, translation_mm=(0.5, -0.4, 0.3), field=field(seed, amplitude_mm=4.0))
    box, share = pull_back(inside, subject)
    assert components(share >= 0.5).count > 5
    vessel, volume = thin_structure(inside, subject)
    assert components(vessel).count == 1
    assert volume == pytest.approx(share.sum(), rel=1e-3)
    assert vessel.sum() == pytest.approx(volume, rel=0.15)
    assert (share[vessel[box]] > 0).all()


def test_thin_is_a_tube_of_two_voxels_and_neither_a_sheet_nor_a_block():
    assert is_thin(helix())
    tube, sheet, block = (np.zeros((20, 20, 20), bool) for _ in range(3))
    tube[:, 4:6, 4:6] = sheet[:, 4:6, 2:18] = block[4:12, 4:12, 4:12] = True
    assert is_thin(tube)
    assert not is_thin(sheet)
    assert not is_thin(block)
    assert not is_thin(np.zeros((4, 4, 4), bool))
    assert is_thin(tube[:, :, 4])
    assert not is_thin(block[:, :, 5])


def test_pieces_one_voxel_apart_stay_apart_and_keep_their_volume():
    upper, lower = np.zeros((24, 12, 12), bool), np.zeros((24, 12, 12), bool)
    upper[4:20, 4:6, 5] = lower[4:20, 7:9, 5] = True
    squeezed = deformation(upper.shape, (1.0,) * 3, np.diag([1.0, 0.5, 1.0]), translation_mm=(0.2, 0.0, 0.15))
    alone = [thin_structure(vessel, squeezed)[0] for vessel in (upper, lower)]
    assert components(alone[0] | alone[1]).count == 1
    vessels, volume = thin_structure(upper | lower, squeezed)
    assert components(vessels).count == 2
    assert vessels.sum() == pytest.approx(volume, rel=0.05)


def test_specks_go_to_their_neighbors_and_pieces_that_the_source_has_stay():
    source = np.zeros((20, 20, 20), np.uint8)
    source[2:12, 2:18, 2:18] = 5
    source[15:17, 15, 15] = 5
    source[2:12, 8:12, 8:12] = 9
    broken = source.copy()
    broken[7, 10, 10] = broken[14, 2, 2] = 5
    np.testing.assert_array_equal(without_specks(broken, source, (5, 9)), source)
    broken[18:, 2:18, 2:18] = 5
    assert components(without_specks(broken, source, (5,)) == 5).sizes.tolist() == [2400, 512]
