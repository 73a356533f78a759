from pathlib import Path

import numpy as np
import pydantic
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.store import read_json, read_rows
from cardiosynth.data.dataset import read_dataset
from cardiosynth.experiments.fqcdm_strategies import StrategyPlan, main, run_study, slice_dice, some
from cardiosynth.experiments.strategies import STRATEGIES, TABLE_4, Arm, Strategy
from cardiosynth.experiments.strategy_tables import difference, tables

from .slices import real_slices, synthetic_slices

SMALL = Strategy(
    arms=(
        Arm(name="real", real=None), Arm(name="both-augmented", real=None, synthetic=None, augmented=True),
        Arm(name="painted", real=4, painted=8), Arm(name="alone", synthetic=3),
    ),
    pairs=(("both-augmented", "real"), ("painted", "real")),
    published={"unet": {"real": 83.46}},
)  # fmt: skip


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StrategyPlan:
    """Of a small strategy on small slices."""
    monkeypatch.setitem(STRATEGIES, "small", SMALL)
    real_slices(tmp_path / "real")
    synthetic_slices(tmp_path / "synthetic")
    data, synthetic = str(tmp_path / "real"), str(tmp_path / "synthetic")
    return StrategyPlan(
        data=data, synthetic=synthetic, strategies=("small",), recipe="fqcdm/tiny", steps=4, seeds=(0, 1)
    )


def test_every_arm_is_trained_with_as_many_steps_and_judged_on_the_test_patients(tmp_path: Path, plan: StrategyPlan):
    out = tmp_path / "out"
    run_study(out, plan, ["real-unet-0", "both-augmented-unet-0", "painted-unet-0", "alone-unet-0"])
    steps = {}
    for record in out.glob("runs/*/*/step-*/record.json"):
        steps[record.parents[2].name, record.parents[1].name] = read_json(record)["training"]["steps"]
    assert steps == {
        ("real-unet-0", "segmenter"): 4, ("both-augmented-unet-0", "segmenter"): 4, ("alone-unet-0", "segmenter"): 4,
        ("painted-unet-0", "segmenter"): 2, ("painter-8-unet-0", "inpainting"): 2,
    }  # fmt: skip
    mixed = read_json(next(out.glob("runs/both-augmented-unet-0/segmenter/step-*/record.json")))
    assert mixed["datasets"] == [6, 6]
    assert mixed["settings"]["augmentation"]["flip_axes"] == [0, 1]
    trained = {name for record in out.glob("runs/*/*/step-*/record.json") for name in read_json(record)["cases"]}
    assert {name[:2] for name in trained} == {"p0", "p1", "sy"}, "no validation or test patient"
    found = read_json(out / "measures" / "real-unet-0.json")
    assert [row["case"] for row in found["volumes"]] == ["p3_ED", "p4_ED"]
    assert len(found["slices"]) == 6
    assert {row["patient"] for row in found["slices"]} == {"p3", "p4"}
    text = (out / "table.md").read_text()
    assert "| both-augmented | real |" in text
    assert "83.46" in text


@pytest.mark.slow
def test_a_cell_that_is_done_is_not_done_again_and_cells_do_not_depend_on_each_other(
    tmp_path: Path, plan: StrategyPlan
):
    out = tmp_path / "out"
    run_study(out, plan, ["alone-unet-1"])
    done = read_rows(out / "steps.jsonl")
    run_study(out, plan, ["alone-unet-1"])
    assert read_rows(out / "steps.jsonl") == done
    run_study(tmp_path / "other", plan, ["real-unet-1", "alone-unet-1"])
    files = [x / "measures" / "alone-unet-1.json" for x in (out, tmp_path / "other")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("change", "only", "message"),
    [
        ({}, ["reel"], "--only reel.*did you mean 'real'"),
        ({"synthetic": None}, ["alone"], "give --synthetic a dataset"),
        ({"synthetic": "few"}, ["both-augmented"], "has 2 slices and 6 are wanted"),
        ({"synthetic": "leak"}, ["alone"], "synthetic-0 was made from p3_ED_slice000, a test patient"),
    ],
)
def test_what_cannot_be_done_is_refused(change: dict, only: list, message: str, tmp_path: Path, plan: StrategyPlan):
    synthetic_slices(tmp_path / "few", count=2)
    synthetic_slices(tmp_path / "leak", "p3")
    change = {key: value and str(tmp_path / value) for key, value in change.items()}
    with pytest.raises(InputError, match=message):
        run_study(tmp_path / "out", plan.model_copy(update=change), only)


def test_an_unknown_strategy_is_refused(tmp_path: Path):
    with pytest.raises(pydantic.ValidationError, match="did you mean 'table-4'"):
        StrategyPlan(data="real", strategies=("table-5",))
    with pytest.raises(InputError, match="table-5"):
        main(tmp_path, data=tmp_path, strategies=["table-5"])


def test_fewer_slices_are_among_more_whatever_their_order(tmp_path: Path):
    slices = real_slices(tmp_path)
    few, more = some(slices, 3).case_ids, some(slices, 7).case_ids
    assert more[:3] == few
    assert some(slices.subset(slices.case_ids[::-1]), 7).case_ids == more
    assert len({name[:2] for name in more}) > 2


def test_the_published_arms_have_a_published_number_and_every_pair_its_arms():
    names = {arm.name for arm in TABLE_4.arms}
    assert all(found.keys() == names for found in TABLE_4.published.values())
    for strategy in STRATEGIES.values():
        assert {name for pair in strategy.pairs for name in pair} <= {arm.name for arm in strategy.arms}
    every = [arm for strategy in STRATEGIES.values() for arm in strategy.arms]
    assert len({arm.name for arm in every}) == len(set(every)), "one name, one arm"


def rows(values: np.ndarray) -> dict:
    """Of seeds and volumes, two of each patient."""
    return {
        seed: {
            "volumes": [
                {"case": str(i), "patient": f"p{i // 2}", "structures": {"a": {"dice": v, "hausdorff95_mm": None}}}
                for i, v in enumerate(line)
            ],
            "slices": [{"case": "s", "patient": "p0", "structures": {"a": {"dice": 0.5}}}],
        }
        for seed, line in enumerate(values)
    }


def test_differences_are_paired_and_patients_counted_once():
    baseline = np.random.default_rng(0).uniform(0.3, 0.9, (2, 12))
    interval, p = difference(rows(baseline + 0.02), rows(baseline))
    assert tuple(interval) == pytest.approx((0.02, 0.02, 0.02))
    assert p == pytest.approx(2 / 2**6), "six patients, all of one sign: exact"
    text = tables({"small": SMALL}, {"unet": {"real": rows(baseline), "painted": rows(baseline + 0.02)}}, 4)
    assert "| painted | real | +0.0200 [+0.0200, +0.0200] | 0.0312 |" in text
    assert "| real | 2 |" in text


def test_dice_of_a_slice_by_structure(tmp_path: Path):
    case = read_dataset(real_slices(tmp_path).root)[0]
    mask = case.required_mask()
    assert slice_dice(mask, case) == {"chamber": {"dice": 1.0}, "wall": {"dice": 1.0}}
    assert slice_dice(0 * mask, case)["wall"]["dice"] == 0
