"""Tables of the downstream study on numbers made up."""

import numpy as np
import pytest

from cardiosynth.evaluation.results import Estimate, Table
from cardiosynth.evaluation.statistics import holm, mean_interval, paired_p_value
from cardiosynth.experiments.downstream_tables import (
    MEASURES,
    BySeed,
    Findings,
    arms_table,
    difference_table,
    differences,
    figures,
    over,
    pretrained_table,
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


def found(final: dict, protocol: str = "few-phantoms") -> Findings:
    return Findings(find_protocol(protocol), 400, final, {}, {"coded": []})


def row_of(table: Table, name: str) -> dict:
    """Return a row by its columns' titles."""
    cells = next(row for row in table.rows if row[0] == name)
    return {column.title: cell for column, cell in zip(table.columns, cells, strict=True)}


def value(cell: object) -> float:
    assert isinstance(cell, Estimate)
    return cell.value


def test_a_gain_that_every_case_has_is_certain_and_tested_over_cases_alone():
    table = difference_table(found(FINAL))
    assert table is not None
    smallest = 2 / 2**8  # of 8 cases that all gain; a seed is no case
    p_values = holm([paired_p_value(differences(FINAL, "cal-40", "real-only", MEASURES[m][0])) for m in ("Dice",)])
    assert p_values == [pytest.approx(smallest)]
    # Three tests: two with the smallest p, and one where nothing differs.
    row = row_of(table, "cal-40")
    assert row["Dice"] == Estimate(value=0.125, low=0.125, high=0.125)
    assert (row["p, Dice"], row["p, coronary clDice"]) == (f"{3 * smallest:.3g}", "1")
    assert difference_table(found({"cal-40": FINAL["cal-40"]})) is None


def test_differences_are_of_the_seeds_that_both_have():
    found = differences({"a": rows(0.25, seeds=3), "b": rows(0, seeds=2)}, "a", "b", MEASURES["Dice"][0])
    assert found.shape == (2, 8)
    np.testing.assert_allclose(found, 0.25)


def test_every_measure_is_that_of_its_structures_and_what_is_not_found_has_no_distance():
    row = row_of(arms_table(found(FINAL)), "real-only")
    assert value(row["coronary clDice"]) == pytest.approx(0.219, abs=1e-3)  # 0 .. 7 sixteenths
    assert value(row["Dice"]) == pytest.approx(0.484, abs=1e-3)
    assert (value(row["HD95"]), row["seeds"]) == (1.5, 2)
    lost = row_of(arms_table(found({"lost": rows(0, hausdorff95_mm=None)})), "lost")
    assert lost["coronary HD95"] is None
    assert value(lost["HD95"]) == 1
    assert mean_interval(over(FINAL["cal-40"], MEASURES["coronary Dice"][0])).value == pytest.approx(0.34375)


def test_the_best_is_marked_where_chance_is_ruled_out():
    table = arms_table(found({"real-only": rows(0, cases=12), "cal-40": rows(0.125, cases=12)}))
    marked = {table.columns[column].title for _, column in table.best}
    assert marked == {"Dice", "coronary Dice"}
    assert {row for row, _ in table.best} == {1}


def test_pretrained_segmenters_stand_with_every_kind_of_images():
    by_kind = {
        kind: rows(gain)[0] for kind, gain in (("test", 0), ("others", 0.01), ("coded", 0.02), ("reference", 0.2))
    }
    row = row_of(pretrained_table({"deformed-40-plain-0.8": {0: by_kind}}), "deformed-40-plain-0.8")
    assert len(row) == 1 + 2 * len(by_kind)
    assert value(row["test, real: Dice"]) == pytest.approx(0.484, abs=1e-3)
    assert value(row["the same, synthetic: Dice"]) == pytest.approx(0.684, abs=1e-3)


def test_published_numbers_stand_beside_ours_where_there_are_some():
    row = row_of(arms_table(found({"IV": rows(0)}, "fcas-table-3")), "IV")
    assert [row[f"published {name}"] for name in ("Dice", "RDice", "coronary Dice", "coronary RDice")] == [
        89.68, 92.68, 80.29, 84.38
    ]  # fmt: skip
    assert row_of(arms_table(found({"with-SSV": rows(0)}, "fcas-table-4")), "with-SSV")["published Dice"] == 87.27
    assert not [c for c in arms_table(found(FINAL)).columns if "published" in c.title]


def test_arms_that_were_not_run_are_named_and_bars_are_of_few():
    images = {"coded": [{"kept": {"left_ventricle": 0.5}, "psnr_db": 30.0, "ssim_heart": None}]}
    said = Findings(find_protocol("fcas-table-3"), 400, {"II": rows(0)}, {}, images).results()
    assert said.notes == ("Not run yet: I, III, IV.",)
    assert len(figures({"II": rows(0)})) == 1
    assert not figures({str(arm): rows(0) for arm in range(9)})
