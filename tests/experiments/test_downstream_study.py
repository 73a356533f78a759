"""The downstream study at toy size: shared work is done once, a changed plan is refused, tables hold what there is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.store import read_json, read_rows
from cardiosynth.experiments.downstream_cases import DownstreamPlan
from cardiosynth.experiments.downstream_study import run_study
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


@pytest.mark.slow
def test_the_study_goes_on_where_it_was_and_shares_pretrainings(tmp_path: Path, plan: DownstreamPlan):
    run_study(tmp_path, plan, ["data"])
    one = run_study(tmp_path, plan, ["real-only-0", "cal-160-0"]).read_text()
    assert "| cal-160 |" in one
    assert "| plain-40 |" not in one
    text = run_study(
        tmp_path, plan, ["real-only", "cal-160", "cal-160-rate0.1-0", "mixed-160-0", "coded-40-0"]
    ).read_text()
    steps = [row["step"] for row in read_rows(tmp_path / "steps.jsonl")]
    assert len(steps) == len(set(steps)) == 3 + 7 + 3
    for arm in ("real-only", "cal-160", "cal-160-rate0.1", "mixed-160", "coded-40"):
        assert f"| {arm} |" in text
    assert "| coded-2-plain-0.8 |" in text
    records = [read_json(p / "record.json") for p in sorted((tmp_path / "runs").glob("cal*-0/segmenter/step-*2"))]
    assert len(records) == 2
    assert records[0]["init"] == records[1]["init"] is not None
    assert run_study(tmp_path, plan, ["data"]).read_text() == text
    with pytest.raises(InputError, match="other settings"):
        run_study(tmp_path, plan.model_copy(update={"steps": 9}))


def test_an_arm_that_is_not_in_the_plan_is_refused(tmp_path: Path):
    plan = DownstreamPlan(generator="run", templates="phantoms")
    with pytest.raises(InputError, match="did you mean 'cal-40-0'"):
        run_study(tmp_path / "study", plan, ["call-40-0"])
    assert not (tmp_path / "study").exists()
