from dataclasses import replace

import numpy as np
import pytest

from cardiosynth.data.sources.phantom.noise import slice_noise
from cardiosynth.data.sources.phantom.protocol import draw_protocol

PROTOCOL = replace(draw_protocol(0, 0), noise_hu=20.0, grain_mm=0.6)


def noise(slices, protocol=PROTOCOL, spacing=(1.0, 1.0, 1.0)):
    return slice_noise(protocol, 0, 0, (64, 64), slices, spacing)


def test_noise_has_the_protocol_level_and_no_mean():
    field = noise(range(40))
    assert field.std() == pytest.approx(20, rel=0.05)
    assert abs(field.mean()) < 0.5


def test_any_range_of_slices_has_the_bits_of_the_whole():
    assert np.array_equal(noise(range(12))[:, :, 5:8], noise(range(5, 8)))


def test_a_wider_grain_correlates_neighbors_more():
    def correlation(field):
        return np.corrcoef(field[1:].ravel(), field[:-1].ravel())[0, 1]

    assert correlation(noise(range(8), replace(PROTOCOL, grain_mm=1.2))) > correlation(noise(range(8))) + 0.2


def test_smaller_voxels_are_noisier():
    assert noise(range(8), spacing=(0.5, 0.5, 0.5)).std() > 1.2 * noise(range(8)).std()
