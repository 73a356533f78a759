import numpy as np
import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.evaluation.drawn import sparsification_figure
from cardiosynth.evaluation.measures import BY_CONFIDENCE, BY_ERROR, KEPT_SHARES, measure_sparsification


def pair(confidence: np.ndarray | None) -> tuple[Case, Case]:
    """Two images of one heart, which fills the grid; the error is 0, 1, 2, ... along it."""
    mask = np.full((1, 10, 2, 2), CARDIAC_CT.named("left_ventricle").code, np.uint8)
    image = np.zeros(mask.shape, np.int16)
    real = Case(case_id="r", image=image, mask=mask, affine=np.eye(4), labels=CARDIAC_CT, origin="real")
    made = image + np.arange(10, dtype=np.int16)[None, :, None, None]
    return real, real.with_(case_id="s", image=made, confidence=confidence, origin="synthetic")


RAMP = np.broadcast_to(np.linspace(1, 0, 10, dtype=np.float32)[None, :, None, None], (1, 10, 2, 2)).copy()


def test_a_map_in_the_order_of_the_error_is_as_good_as_the_error():
    curves = measure_sparsification(*pair(RAMP))
    assert curves[BY_CONFIDENCE] == pytest.approx(curves[BY_ERROR])
    # The best half of 0..9 has mean 2, all have 4.5.
    assert curves[BY_ERROR][KEPT_SHARES.index(0.5)] == pytest.approx(2 / 4.5)
    assert curves[BY_ERROR][-1] == pytest.approx(1)


def test_a_constant_map_is_chance_and_no_map_no_curve():
    assert measure_sparsification(*pair(np.full_like(RAMP, 0.5)))[BY_CONFIDENCE] == pytest.approx([1.0] * 20)
    assert measure_sparsification(*pair(None)) == {}
    real, made = pair(RAMP)
    assert measure_sparsification(real, made.with_(image=real.image)) == {}


def test_the_figure_is_the_mean_over_pairs_that_have_maps():
    figure = sparsification_figure([{"map": [0.0] * 20}, {}, {"map": [1.0] * 20}])
    assert figure is not None
    assert {curve.name: curve.y[0] for curve in figure.curves} == {"map": 0.5, "chance": 1.0}
    assert figure.caption.startswith("2 pairs")
    assert sparsification_figure([{}]) is None
