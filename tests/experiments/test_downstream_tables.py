"""Tables of the downstream study on numbers made up."""

import numpy as np
import pytest

from cardiosynth.evaluation.statistics import holm, mean_interval, paired_p_value
from cardiosynth.experiments.downstream_tables import (
    MEASURES,
    BySeed,
    arms_table,
    difference_table,
    differences,
    over,
    pretrained_table,
    published_table,
)
from cardiosynth.experiments.protocols import find_protocol


def rows(gain: float, seeds: int = 2, cases: int = 8, hausdorff95_mm: float | None = 2.0) -> BySeed:
    """Return cases of different difficulty, all better by ``gain``."""

    def row(case: int) -> dict:
        vessel = {
            "dice": case / 16 + gain,
            "cl_dice": case / 16,
            "rdice_symmetric": 0.5,
            "hausdorff95_mm": hausdorff95_mm,
        }
        chamber = {"dice": 0.75 + gain, "cl_dice": None, "rdice_symmetric": 0.75, "hausdorff95_mm": 1.0}
        return {"case": f"case-{case}", "structures": {"coronary_artery": vessel, "left_ventricle": chamber}}

    return {seed: [row(case) for case in range(cases)] for seed in range(seeds)}


FINAL = {"real-only": rows(0), "cal-40": rows(0.125)}


def test_a_gain_that_every_case_has_is_certain_and_tested_over_cases_alone():
    text = difference_table(FINAL, "real-only")
    smallest = 2 / 2**8  # of 8 cases that all gain; a seed is no case
    p_values = holm([paired_p_value(differences(FINAL, "cal-40", "real-only", MEASURES[m][0])) for m in ("Dice",)])
    assert p_values == [pytest.approx(smallest)]
    # Three tests: two with the smallest p, and one where nothing differs.
    assert f"| cal-40 | +0.125 [+0.125, +0.125] | {3 * smallest:.3g} |" in text
    assert "| +0.000 [+0.000, +0.000] | 1 |" in text
    assert difference_table({"cal-40": FINAL["cal-40"]}, "real-only") == ""


def test_differences_are_of_the_seeds_that_both_have():
    found = differences({"a": rows(0.25, seeds=3), "b": rows(0, seeds=2)}, "a", "b", MEASURES["Dice"][0])
    assert found.shape == (2, 8)
    np.testing.assert_allclose(found, 0.25)


def test_every_measure_is_that_of_its_structures_and_what_is_not_found_has_no_distance():
    head, _, row, _ = arms_table(FINAL).splitlines()
    cells = dict(zip(head.split(" | "), row.split(" | "), strict=True))
    assert cells["coronary clDice"].startswith("0.219 [")  # 0 .. 7 sixteenths
    assert cells["Dice"].startswith("0.484 [")
    assert cells["HD95, mm"] == "1.5 [1.5, 1.5]"
    lost = arms_table({"lost": rows(0, hausdorff95_mm=None)}).splitlines()[-1]
    assert lost.endswith("| - |")
    assert "| 1.0 [1.0, 1.0] |" in lost
    assert mean_interval(over(FINAL["cal-40"], MEASURES["coronary Dice"][0])).value == pytest.approx(0.34375)


def test_pretrained_segmenters_stand_with_every_kind_of_images():
    by_kind = {
        kind: rows(gain)[0] for kind, gain in (("test", 0), ("others", 0.01), ("coded", 0.02), ("reference", 0.2))
    }
    head, _, row = pretrained_table({"deformed-40-plain-0.8": {0: by_kind}}).splitlines()
    assert head.count("|") == row.count("|") == 10
    assert "0.484" in row
    assert "0.684" in row


def test_published_numbers_stand_where_there_are_some():
    assert "| IV | 89.68 | 92.68 | 80.29 | 84.38 |" in published_table(find_protocol("fcas-table-3"))
    assert "| with-SSV | 87.27 | - | - | - |" in published_table(find_protocol("fcas-table-4"))
    assert published_table(find_protocol("few-phantoms")) == ""
