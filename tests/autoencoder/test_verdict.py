import numpy as np
import pytest

from cardiosynth.autoencoder.verdict import (
    ContrastThreshold,
    VerdictThresholds,
    in_words,
    shortfalls,
    verdict,
)
from cardiosynth.core.intensity import Window

from .blobs import blob

WINDOW = Window(low=-1000.0, high=2000.0)


def judged(reconstruct, cases):
    return verdict(reconstruct, lambda case: WINDOW, cases)


def test_a_shift_is_bias_and_costs_no_contrast():
    found = judged(lambda case: case.image + 30.0, [blob(0), blob(1)])
    assert found["cases"] == ["blob-0", "blob-1"]
    assert found["psnr_db"] == pytest.approx(20 * np.log10(3000 / 30))
    assert found["psnr_heart_db"] == pytest.approx(20 * np.log10(3000 / 30))
    assert found["hu_bias"]["left_ventricle"] == pytest.approx(30)
    assert found["psnr_structure_db"]["coronary_artery"] == pytest.approx(40)
    assert found["contrast_kept"]["coronary_artery"] == pytest.approx(1)


def test_a_faded_image_keeps_the_faded_part_of_every_contrast():
    found = judged(lambda case: 0.25 * case.image.astype(np.float32), [blob(0)])
    assert found["contrast_kept"]["left_ventricle"] == pytest.approx(0.25)
    assert found["contrast_kept"]["left_atrium"] is None


def test_cases_without_masks_have_an_error_and_nothing_per_structure():
    found = judged(lambda case: case.image + 3.0, [blob(0, with_mask=False)])
    assert found["psnr_db"] == pytest.approx(60)
    assert found["psnr_heart_db"] is None
    assert found["contrast_kept"] == found["psnr_structure_db"] == {}


def found(**changes):
    row = {
        "held_out": True, "fingerprint": "abcd", "cases": ["a", "b"], "psnr_db": 30.04, "psnr_heart_db": 34.0,
        "psnr_structure_db": {"coronary_artery": 21.04, "left_atrium": None},
        "hu_bias": {"coronary_artery": -35.2, "left_atrium": None},
        "contrast_kept": {"coronary_artery": 0.5, "left_atrium": None},
    }  # fmt: skip
    return row | changes


def test_a_threshold_is_the_smallest_value_that_passes():
    contrast = ContrastThreshold(name="Coronary artery", kept=0.5)
    enough = VerdictThresholds(psnr_db=30.0, psnr_heart_db=34.0, contrast=(contrast,))
    assert shortfalls(found(), enough) == []
    assert shortfalls(found(), VerdictThresholds()) == []
    assert shortfalls(found(psnr_db=29.94), enough) == ["it reaches 29.9 dB (30 wanted)"]
    assert shortfalls(found(psnr_heart_db=33.0), enough) == ["it reaches 33.0 dB in the heart (34 wanted)"]
    weaker = found(contrast_kept={"coronary_artery": 0.24})
    assert shortfalls(weaker, enough) == ["Coronary artery keeps 0.24 of its contrast (0.5 wanted)"]


def test_a_verdict_in_words_is_aligned_and_says_what_is_not_known():
    first, *lines = in_words(found()).splitlines()
    assert first == "autoencoder abcd on 2 held-out cases: PSNR 30.0 dB, in the heart 34.0 dB"
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split() == ["coronary_artery", "21.0", "-35", "0.50"]
    assert lines[2].split() == ["left_atrium", "-", "-", "-"]
    alone = in_words(found(held_out=None, psnr_heart_db=None, psnr_structure_db={}, hu_bias={}, contrast_kept={}))
    assert alone == "autoencoder abcd on 2 cases of this dataset: PSNR 30.0 dB, in the heart - dB"
