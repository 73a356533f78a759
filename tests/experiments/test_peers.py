"""The comparison of methods: who is compared with what budget, a user's method end to end, and what tables mark."""

import time
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.baselines.method import Method
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.store import read_json
from cardiosynth.data.dataset import read_dataset
from cardiosynth.experiments.peer_columns import Row
from cardiosynth.experiments.peer_plan import Budget, PeerCases, PeersPlan
from cardiosynth.experiments.peer_published import FCAS, FQCDM
from cardiosynth.experiments.peer_rows import arms
from cardiosynth.experiments.peer_tables import cost_table, quality_table, tables
from cardiosynth.experiments.registry import find_experiment
from cardiosynth.experiments.request import Request, run_experiment
from cardiosynth.recipes.methods import method_names

PACKAGE = Path(__file__).parents[1] / "baselines" / "package"


OTHERS = {"ssim_heart": 0.5, "rmse": 0.1, "psnr_db": 20.0, "ms_ssim": 0.6}


def row(name: str, ssim: float | None, seeds: int = 2, **changes) -> Row:
    method = Method(name, name.upper(), "nobody", 3, ssim is not None, "nothing", {}, **changes)
    sets = {"KID x 1000": [2.0, 1.0, 3.0], "KID, real halves": 0.5, "FID": 4.0, "FID, real halves": 1.0}
    one = {"sets": sets, "copies": {"pictures": {"share": 0.25}}, "likeness": [0.4], "steps": [[1.0, 1.0, 6.0]]}
    shown = {
        "pairs": [
            {"case": f"c{i}", "patient": f"p{i}", "ssim": (ssim or 0) + 0.01 * i} | OTHERS
            for i in range(12)
        ],
        "agreement": [
            {"reference": f"c{i}", "patient": f"p{i}", "dice": {"heart": 0.8, "none": None}} for i in range(12)
        ],
    }  # fmt: skip
    costs = {"seconds": 10.0, "steps": 6, "weights": 2_000_000, "peak_memory_gb": 1.5, "seconds_per_case": None}
    measures = {seed: one | (shown if ssim is not None else {}) for seed in range(seeds)}
    return Row(method, True, measures, {0: costs, 1: costs | {"seconds": 30.0}})


REAL = {
    "agreement": row("real", 1.0).measures[0]["agreement"], "likeness": [0.3], "steps": [[1.0, 1.0, 3.0]],
    "window": "the window", "features": "segmenter abcd",
}  # fmt: skip
PLAN = PeersPlan(methods=("fcas",), steps=6)


def cells(table, name: str) -> dict:
    found = next(row for row in table.rows if row[0] == name)
    return {column.title: cell for column, cell in zip(table.columns, found, strict=True)}


def test_the_budget_that_is_spent_first_ends_a_training():
    assert Budget(steps=100).affordable(9.0) == 100
    assert Budget(seconds=50).affordable(0.5) == 100
    assert Budget(steps=60, seconds=50).affordable(0.5) == 60
    assert Budget(steps=600, seconds=50).affordable(0.5) == 100
    assert Budget().affordable(0.5) is None


def test_seconds_become_steps_by_a_trial_whose_beginning_does_not_count(tmp_path, monkeypatch):
    class Burns:
        def __init__(self, terms):
            self.steps = terms.steps

        def fit(self, cases, run):
            end = time.process_time() + 0.1 + 0.005 * self.steps
            while time.process_time() < end:
                pass

        def generate(self, mask, template, seed):
            raise AssertionError("nothing is asked of it")

    plan = PLAN.model_copy(update={"steps": 500, "seconds": 1.0, "size": "tiny"})
    cases = PeerCases(tmp_path, plan)
    cases.__dict__.update(shape=(8, 8, 8), scale=IntensityScale())
    monkeypatch.setattr(PeerCases, "training", lambda self, surroundings: None)
    (arm,) = arms(tmp_path, plan, cases, "cpu", str)
    arm.__dict__["of"] = Method("burns", "Burns", "nobody", 3, True, "nothing", {"tiny": Burns})
    assert [task.name for task in arm.images.tasks] == ["try fcas", "train fcas-0", "make fcas-0"]
    arm.images.tasks[0].work()
    assert arm.steps is not None
    assert 180 <= arm.steps <= 200


def test_those_told_of_the_mask_alone_come_with_surroundings_and_without(tmp_path):
    plan = PLAN.model_copy(update={"methods": ("fcas", "fqcdm"), "seeds": (0, 1)})
    found = arms(tmp_path, plan, PeerCases(tmp_path, plan), "cpu", str)
    assert [arm.name for arm in found] == [
        "fcas-0", "fcas-1", "fqcdm-0", "fqcdm-1", "fqcdm-targets-0", "fqcdm-targets-1"
    ]  # fmt: skip
    flat = plan.model_copy(update={"kind": "slices"})
    assert len(arms(tmp_path, flat, PeerCases(tmp_path, flat), "cpu", str)) == 4


def test_what_shows_no_mask_has_numbers_of_the_set_only():
    table = quality_table([row("gan", None), row("told", 0.7)], REAL, PLAN, True, True)
    untold, told, real = cells(table, "GAN"), cells(table, "TOLD"), cells(table, "real")
    assert untold["SSIM"] is None
    assert untold["Dice of the judges"] is None
    assert untold["KID x 1000"].value == 2.0
    assert untold["axial steps over real"] == told["axial steps over real"] == 2.0
    assert told["SSIM"].value == pytest.approx(0.755)
    assert told["Dice of the judges"].value == pytest.approx(0.8)
    assert real["FID"] == 1.0


def test_the_best_is_marked_where_it_is_beyond_chance():
    table = quality_table([row("low", 0.5), row("high", 0.7)], REAL, PLAN, True, True)
    ssim = [column.title for column in table.columns].index("SSIM")
    assert table.best == ((2, ssim),)
    # Equal in all but SSIM: five columns at 1.5, and one at 1 or 2.
    assert cells(table, "HIGH")["mean rank"].value == pytest.approx((1 + 5 * 1.5) / 6)


def test_costs_are_means_over_seeds():
    found = cells(cost_table([row("told", 0.7)], PLAN), "TOLD")
    assert (found["training"], found["weights, millions"], found["making one case"]) == (20.0, 2.0, None)


def test_published_numbers_stand_beside_the_methods_they_are_of():
    published = tables([row("maisi", 0.7), row("own", 0.6)], REAL, PLAN, True)[2]
    assert published.rows == (("MAISI", "maisi", 0.911, 0.0836, 0.0553, 1.6881),)
    of_slices = {**REAL, "steps": [[1.0, 1.0]]}
    assert [r[1:] for r in tables([row("fqcdm", 0.7)], of_slices, PLAN, True)[2].rows if r[1] == "ACDC"] == [
        ("ACDC", 37.89, 87.58, 38.6)
    ]


def test_every_method_of_the_papers_tables_is_there():
    fcas, fqcdm = (find_experiment(name).plan["methods"] for name in ("fcas-table1", "fqcdm-table3"))
    assert set(fcas) == {name.removesuffix("-targets") for name in FCAS}
    assert all(set(fqcdm) == set(published) for published in FQCDM.values())
    assert set(fcas) | set(fqcdm) <= set(method_names())


@pytest.mark.slow
def test_a_users_method_is_compared_from_nothing_and_nothing_is_done_twice(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(PACKAGE)
    out, wanted = tmp_path / "out", find_experiment("fcas-table1")
    request = Request(experiment=wanted, out=out, scale="tiny", methods=("painted",))
    report = run_experiment(request)
    assert "PAINTED" in report.read_text().upper()
    measures = read_json(out / "measures" / "painted-0.json")
    assert len(measures["pairs"]) == 2
    assert np.isfinite([pair["ssim"] for pair in measures["pairs"]]).all()
    without = read_dataset(out / "data" / "masks-targets")
    surroundings = [label.code for label in without.labels if label.role == "surrounding"]
    assert not any(np.isin(case.required_mask(), surroundings).any() for case in without)
    assert not any(without.has("image", name) for name in without.case_ids)
    titles = [table["title"] for table in read_json(out / "results.json")["tables"]]
    assert titles == ["Methods side by side", "What it took", "The methods"]
    done = (out / "steps.jsonl").read_text()
    run_experiment(request)
    assert (out / "steps.jsonl").read_text() == done
    with pytest.raises(InputError, match="did you mean 'painted-0'"):
        run_experiment(Request(experiment=wanted, out=out, scale="tiny", methods=("painted",), only=("painted-00",)))
