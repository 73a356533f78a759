"""The study of templates at toy size, and its measures where the truth is known."""

from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.store import read_json, read_rows
from cardiosynth.data.sources.phantom.source import phantom
from cardiosynth.evaluation.results import Estimate, GalleryFigure, Results
from cardiosynth.experiments.template_study import (
    Company,
    Model,
    TemplatePlan,
    TemplateStudy,
    control_settings,
    likeness,
    measure,
    partners_of,
)
from cardiosynth.experiments.template_tables import (
    ARMS,
    BLOOD,
    TARGETS,
    follow_slope,
    gain_over_mask,
    goals,
    hu_error,
    nearer_by_texture,
    nearer_in_heart,
    nearer_than_others,
    over,
    template_results,
)
from cardiosynth.recipes.fcas import TINY
from cardiosynth.report.figures import Library

PLAN = TemplatePlan(recipe="fcas/tiny", training=2, protocols=1, test=6, test_protocols=2, cases=4, steps=2, seeds=(0,))


@pytest.fixture(scope="module")
def company() -> Company:
    target, template, *others = (phantom(i, (32,) * 3, protocol=3) for i in range(4))
    return Company(target, template, tuple(others))


def told(results: Results) -> list:
    return [row[0] for row in results.tables[0].rows]


@pytest.mark.slow
def test_models_are_done_once_and_the_tables_hold_those_there_are(tmp_path: Path):
    one = TemplateStudy(tmp_path, PLAN).run(["painted-0"])
    assert told(one) == ["painted, same protocol", "painted, another protocol", "autoencoder alone"]
    everything = TemplateStudy(tmp_path, PLAN).run()
    assert told(everything) == [*ARMS.values(), "autoencoder alone"]
    steps = [row["step"] for row in read_rows(tmp_path / "steps.jsonl")]
    assert len(steps) == len(set(steps)) == 10
    assert TemplateStudy(tmp_path, PLAN).run() == everything
    assert [len(read_json(tmp_path / "measures" / f"{kind}-0.json")) for kind in ("mask", "painted")] == [4, 8]
    gallery = everything.figures[0]
    assert isinstance(gallery, GalleryFigure)
    shown = [Library(tmp_path).case(tile.case) for row in gallery.rows for tile in row if tile]
    assert [case.origin for case in shown] == ["phantom"] + 5 * ["synthetic"]
    masks = [case.labels.only_targets(case.required_mask()) for case in shown]
    assert all(np.array_equal(mask, masks[0]) for mask in masks)


def test_models_differ_in_kind_and_seed_alone():
    one, other = (control_settings(PLAN, Model(kind, 1)) for kind in ("mask", "painted"))
    assert one[1:] == other[1:] == ["control.training.seed=1", "control.training.steps=2"]


def test_a_model_that_is_not_in_the_plan_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="did you mean 'painted-0'"):
        TemplateStudy(tmp_path / "study", PLAN).run(["paint-0"])
    assert not (tmp_path / "study").exists()


def test_a_test_without_third_patients_is_refused():
    with pytest.raises(ValueError, match="three patients"):
        TemplatePlan(test=6, test_protocols=3)
    with pytest.raises(ValueError, match="at most test, which is 24"):
        TemplatePlan(cases=25)


def test_templates_are_of_the_protocol_they_should_be_and_never_the_mask_itself():
    protocol = {f"case-{i}": f"protocol-{i % 3}" for i in range(12)}
    found = partners_of(protocol)
    for name, partners in found.items():
        assert {name, *partners["same"]} == {x for x in protocol if protocol[x] == protocol[name]}
        other = protocol[partners["other"][0]]
        assert other != protocol[name]
        assert set(partners["other"]) == {x for x in protocol if protocol[x] == other}
    # Every patient is a template as often as any other.
    assert {partners["same"][0] for partners in found.values()} == set(protocol)
    # Over the masks of a protocol the other protocols take turns.
    assert {protocol[found[f"case-{i}"]["other"][0]] for i in (0, 3, 6, 9)} == {"protocol-1", "protocol-2"}


def test_the_target_itself_is_no_copy_and_the_template_itself_is(company: Company):
    row = measure(company.target.required_image(), company, TINY)
    assert hu_error(row) == 0
    assert row["rmse_heart_hu"] == 0
    assert row["ssim_heart"] == pytest.approx(1)
    assert (nearer_in_heart(row), nearer_by_texture(row)) == (0, 0)
    copied = {"copies": likeness(company.template.required_image(), company)}
    flags = [flag(copied) for flag in (nearer_in_heart, nearer_by_texture, nearer_than_others)]
    assert flags == [1, 1, 1]


def test_a_copy_shows_through_another_contrast_and_anatomy(company: Company):
    """The template's grain under the target's means: nearer to the target in HU, and found out by its texture."""
    target, template, _ = company
    made = np.array([200.0, -50.0] * 128)[target.required_mask()] + template.required_image()
    found = likeness(made, company)
    assert found["texture_template"] > 0.9
    assert nearer_than_others({"copies": found}) == 1


def rows_of(follows: float, off_hu: dict[str, float]) -> dict:
    """Two seeds, four cases: the template's means differ by 100 HU times the seed's number, plus one."""
    rows = {}
    for kind, choices in (("mask", ("none",)), ("painted", ("same", "other"))):
        for seed in (0, 1):
            rows[kind, seed] = [
                {
                    "case": f"case-{i}", "protocol": f"protocol-{i % 2}", "choice": choice,
                    "error_hu": dict.fromkeys(TARGETS, off_hu[kind] * (-1) ** i),
                    "means_hu": dict.fromkeys(TARGETS, 300 + i + follows * told),
                    "template_means_hu": dict.fromkeys(TARGETS, 200 + told),
                    "ssim_heart": 0.9, "rmse_heart_hu": 50.0, "contrast_kept": 0.5,
                    "copies": {
                        **{f"{a}_{b}": 0.1 for a in ("heart", "texture") for b in ("template", "target", "others")},
                        "nearer_than_others": 0.5,
                    },
                }
                for choice in choices
                for i in range(4)
                for told in [100.0 * (seed + 1) * (i + 1) if choice == "other" else 0.0]
            ]  # fmt: skip
    return rows


def test_slopes_gains_and_goals_are_those_that_were_put_in():
    rows = rows_of(follows=0.8, off_hu={"mask": 60.0, "painted": 10.0})
    assert follow_slope(rows, "painted", BLOOD) == pytest.approx((0.8, 0.8, 0.8))
    assert gain_over_mask(rows, ("painted", "same"), hu_error) == pytest.approx((50, 50, 50))
    assert gain_over_mask(rows, ("mask", "none"), hu_error) is None
    slope, error, copies = goals(rows)
    assert "HU error less than mask only by 50.0 (50.0 to 50.0) (met; by seed 50.0 (50.0 to 50.0); 50.0" in error
    assert "0.80 (0.80 to 0.80) (met)" in slope
    assert "others less than mask only by 0.00 (0.00 to 0.00) (met;" in copies
    missed = rows_of(follows=0.5, off_hu={"mask": 10.0, "painted": 10.0})
    for row in missed["painted", 0] + missed["painted", 1]:
        row["copies"]["nearer_than_others"] = 1.0
    assert ["(missed" in line for line in goals(missed)] == [True] * 3


def test_tables_pair_the_seeds_that_both_kinds_have():
    rows = rows_of(follows=1.0, off_hu={"mask": 60.0, "painted": 10.0})
    del rows["mask", 1]
    assert over(rows, "painted", "same", hu_error).shape == (2, 4)
    assert gain_over_mask(rows, ("painted", "same"), hu_error) == pytest.approx((50, 50, 50))
    originals = {"ceiling": rows["mask", 0], "independent": rows["painted", 0]}
    found = template_results(rows, originals)
    assert "4 test cases of 2 protocols" in found.summary
    assert "mask 1, template 0, painted 2." in found.summary
    slopes = next(table for table in found.tables if table.title == "Follow slope")
    assert [row[:2] for row in slopes.rows] == [("painted", Estimate(value=1, low=1, high=1))]
    none = template_results({key: value for key, value in rows.items() if key[0] == "mask"}, originals)
    assert "Follow slope" not in [table.title for table in none.tables]
