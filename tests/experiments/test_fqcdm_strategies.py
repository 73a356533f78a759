from pathlib import Path

import numpy as np
import pydantic
import pytest

from cardiosynth.cli import main
from cardiosynth.core.errors import InputError
from cardiosynth.core.store import read_json, read_rows
from cardiosynth.data.dataset import read_dataset
from cardiosynth.evaluation.results import BarsFigure, CurvesFigure, Estimate, read_results
from cardiosynth.experiments.fqcdm_strategies import StrategyPlan, StrategyStudy, slice_dice, some
from cardiosynth.experiments.strategies import STRATEGIES, TABLE_4, Arm, Strategy
from cardiosynth.experiments.strategy_tables import difference, strategy_results

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
    only = ["real-unet-0", "both-augmented-unet-0", "painted-unet-0", "alone-unet-0"]
    shown = StrategyStudy(out, plan).run(only)
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
    arms, differences = shown.tables
    assert [row[0] for row in arms.rows] == ["real", "both-augmented", "painted", "alone"]
    assert [row[-1] for row in arms.rows] == [83.46, None, None, None]
    assert [row[:2] for row in differences.rows] == [("both-augmented", "real"), ("painted", "real")]


@pytest.mark.slow
def test_a_cell_that_is_done_is_not_done_again_and_cells_do_not_depend_on_each_other(
    tmp_path: Path, plan: StrategyPlan
):
    out = tmp_path / "out"
    StrategyStudy(out, plan).run(["alone-unet-1"])
    done = read_rows(out / "steps.jsonl")
    StrategyStudy(out, plan).run(["alone-unet-1"])
    assert read_rows(out / "steps.jsonl") == done
    StrategyStudy(tmp_path / "other", plan).run(["real-unet-1", "alone-unet-1"])
    files = [x / "measures" / "alone-unet-1.json" for x in (out, tmp_path / "other")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("change", "only", "message"),
    [
        ({}, ["reel"], "--only reel.*did you mean 'real'"),
        ({"synthetic": "few"}, ["both-augmented"], "has 2 slices and 6 are wanted"),
        ({"synthetic": "leak"}, ["alone"], "synthetic-0 was made from p3_ED_slice000, a test patient"),
    ],
)
def test_what_cannot_be_done_is_refused(change: dict, only: list, message: str, tmp_path: Path, plan: StrategyPlan):
    synthetic_slices(tmp_path / "few", count=2)
    synthetic_slices(tmp_path / "leak", "p3")
    change = {key: str(tmp_path / value) for key, value in change.items()}
    with pytest.raises(InputError, match=message):
        StrategyStudy(tmp_path / "out", plan.model_copy(update=change)).run(only)


@pytest.mark.slow
def test_from_nothing_slices_are_drawn_a_generator_trained_and_a_curve_shown(tmp_path: Path):
    words = ["experiment", "fqcdm-figure4", str(tmp_path), "--scale", "tiny"]
    words += ["--set", "patients=10", "--only", "real-100-synthetic-10", "real-100"]
    main(words)
    found = read_results(tmp_path / "results.json")
    names = ["draw slices", "train autoencoder", "train diffusion", "make slices"]
    assert [stage.name for stage in found.stages if not stage.name.endswith("-0")] == names
    assert [row[0] for row in found.tables[0].rows] == ["real-100", "real-100-synthetic-10"]
    assert isinstance(found.figures[0], CurvesFigure)
    before = read_rows(tmp_path / "steps.jsonl")
    main(words)
    assert read_rows(tmp_path / "steps.jsonl") == before


def test_an_unknown_strategy_is_refused():
    with pytest.raises(pydantic.ValidationError, match="did you mean 'table-4'"):
        StrategyPlan(data="real", strategies=("table-5",))


def test_fewer_slices_are_among_more_whatever_their_order(tmp_path: Path):
    slices = real_slices(tmp_path)
    few, more = some(slices, 3).case_ids, some(slices, 7).case_ids
    assert more[:3] == few
    assert some(slices.subset(slices.case_ids[::-1]), 7).case_ids == more
    assert len({name[:2] for name in more}) > 2


def test_fewer_slices_of_every_arm_are_two_at_least():
    arm = Arm(name="a", real=None, synthetic=100, painted=0)
    assert (arm.scaled(0.5).synthetic, arm.scaled(0.001).synthetic, arm.scaled(0.5).painted) == (50, 2, 0)
    assert arm.scaled(0.5).real is None


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
    arms = {"real": rows(baseline), "painted": rows(baseline + 0.02)}
    arms_table, differences = strategy_results({"small": SMALL}, {"unet": arms}, 4, "six patients").tables
    assert arms_table.rows[0][:2] == ("real", 2)
    assert arms_table.best == ((1, 2),), "painted is better in all six patients"
    cell = differences.rows[0][2]
    assert isinstance(cell, Estimate)
    assert differences.rows[0][:2] == ("painted", "real")
    assert (cell.value, cell.low, cell.high) == pytest.approx((0.02, 0.02, 0.02))
    assert differences.rows[0][3] == "0.0312"


def test_arms_that_differ_in_a_number_are_a_curve_and_others_are_bars():
    arms = {arm.name: rows(np.full((2, 4), 0.5)) for name in ("figure-6", "table-4") for arm in STRATEGIES[name].arms}
    found = strategy_results({n: STRATEGIES[n] for n in ("figure-6", "table-4")}, {"unet": arms}, 4, "two patients")
    curves, bars = found.figures
    assert isinstance(curves, CurvesFigure)
    assert isinstance(bars, BarsFigure)
    assert [curve.name for curve in curves.curves] == ["unet: real", "unet: real-short", "unet: painted"]
    assert all(curve.x == (50, 100, 250, 500) for curve in curves.curves)
    few = dict.fromkeys(("real-100", "real-100-synthetic-10", "real-100-synthetic-80"), rows(np.full((2, 4), 0.5)))
    lone = strategy_results({"figure-4": STRATEGIES["figure-4"]}, {"unet": few}, 4, "two patients")
    assert isinstance(lone.figures[0], CurvesFigure)
    assert lone.figures[0].curves[0].x == (10, 100), "the baseline runs along"


def test_dice_of_a_slice_by_structure(tmp_path: Path):
    case = read_dataset(real_slices(tmp_path).root)[0]
    mask = case.required_mask()
    assert slice_dice(mask, case) == {"chamber": {"dice": 1.0}, "wall": {"dice": 1.0}}
    assert slice_dice(0 * mask, case)["wall"]["dice"] == 0
