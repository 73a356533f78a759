import numpy as np

from cardiosynth.training.memory import PeakMemory


def test_the_peak_is_that_of_the_work_since_and_not_of_what_came_before():
    np.ones(300_000_000, np.uint8).sum()
    before = PeakMemory("cpu")
    idle = before.gb
    np.ones(150_000_000, np.uint8).sum()
    assert 0.14 < before.gb - idle < 0.25
