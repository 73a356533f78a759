"""The downstream study at toy size: shared work is done once, a changed plan is refused, tables hold what there is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cardiosynth.cli import main
from cardiosynth.core.errors import InputError
from cardiosynth.core.store import read_json, read_rows
from cardiosynth.evaluation.results import Results, read_results
from cardiosynth.experiments.downstream_cases import DownstreamPlan
from cardiosynth.experiments.downstream_study import DownstreamStudy
from cardiosynth.recipes.fcas import TINY
from cardiosynth.recipes.phantoms import Population, write_phantoms
from cardiosynth.recipes.stages import Earlier, train_stage


@pytest.fixture(autouse=True, scope="module")
def _one_process() -> Iterator[None]:
    """Phantoms this small are drawn sooner than processes start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cardiosynth.recipes.phantoms.os.cpu_count", lambda: 1)
        yield


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> DownstreamPlan:
    """An untrained generator, as good as any to see what the study does with it."""
    folder = tmp_path_factory.mktemp("generator")
    grid = {"shape": TINY.grid.shape, "spacing_mm": TINY.grid.spacing_mm}
    write_phantoms(Population(2, protocols=2, **grid), folder / "phantoms")
    for stage in ("autoencoder", "diffusion", "control"):
        train_stage(stage, folder / "phantoms", folder / "run", TINY, Earlier(), "cpu", accept_verdict=True)
    return DownstreamPlan(
        generator=str(folder / "run"),
        templates=str(folder / "phantoms"),
        scale=0.05,
        steps=8,
        seeds=(0, 1),
        looked_at=2,
    )


def arms_of(results: Results) -> list:
    return [row[0] for row in results.tables[0].rows]


@pytest.mark.slow
def test_the_study_goes_on_where_it_was_and_shares_pretrainings(tmp_path: Path, plan: DownstreamPlan):
    DownstreamStudy(tmp_path, plan).run(["data"])
    assert arms_of(DownstreamStudy(tmp_path, plan).run(["real-only-0", "cal-160-0"])) == ["real-only", "cal-160"]
    only = ["real-only", "cal-160", "cal-160-rate0.1-0", "mixed-160-0", "coded-40-0"]
    found = DownstreamStudy(tmp_path, plan).run(only)
    steps = [row["step"] for row in read_rows(tmp_path / "steps.jsonl")]
    assert len(steps) == len(set(steps)) == 3 + 7 + 3
    assert arms_of(found) == ["real-only", "cal-160", "mixed-160", "coded-40", "cal-160-rate0.1"]
    assert "coded-2-plain-0.8" in [row[0] for table in found.tables for row in table.rows]
    records = [read_json(p / "record.json") for p in sorted((tmp_path / "runs").glob("cal*-0/segmenter/step-*2"))]
    assert len(records) == 2
    assert records[0]["init"] == records[1]["init"] is not None
    assert DownstreamStudy(tmp_path, plan).run(["data"]) == found
    more = plan.model_copy(update={"seeds": (0, 1, 2)})
    assert DownstreamStudy(tmp_path, more).run(["data"]).tables == found.tables, "seeds can be added"
    with pytest.raises(InputError, match="other settings"):
        DownstreamStudy(tmp_path, plan.model_copy(update={"steps": 9})).run()


@pytest.mark.slow
def test_without_a_generator_one_is_trained_and_the_verb_ends_in_a_report(tmp_path: Path):
    words = ["experiment", "fcas-table4", str(tmp_path / "out"), "--scale", "tiny"]
    main(words)
    assert "with-SSV" in (tmp_path / "out" / "report.html").read_text()
    stages = read_results(tmp_path / "out" / "results.json").stages
    assert [stage.name for stage in stages][:4] == [
        "draw templates", "train autoencoder", "train diffusion", "train control"
    ]  # fmt: skip
    assert stages[-1].command.endswith("--scale tiny --only with-SSV-0")
    main(words)
    assert len(read_rows(tmp_path / "out" / "steps.jsonl")) == len(stages), "nothing is done twice"


def test_an_arm_that_is_not_in_the_plan_is_refused(tmp_path: Path):
    plan = DownstreamPlan(generator="run", templates="phantoms")
    with pytest.raises(InputError, match="did you mean 'cal-40-0'"):
        DownstreamStudy(tmp_path / "study", plan).run(["call-40-0"])
    assert not (tmp_path / "study").exists()


def test_a_generator_comes_with_what_it_was_trained_on():
    with pytest.raises(ValueError, match="give --set templates=DATASET"):
        DownstreamPlan(generator="run")
    with pytest.raises(ValueError, match="give --generator"):
        DownstreamPlan(real="cases")
