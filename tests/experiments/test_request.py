"""A request becomes a plan, a command that repeats it, and files; what cannot be done is refused."""

from pathlib import Path

import pydantic
import pytest

from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.evaluation.results import Column, Estimate, Results, Table, read_results
from cardiosynth.experiments.registry import Experiment, Size
from cardiosynth.experiments.request import Request, run_experiment


class Plan(Settings):
    """Of an experiment that does nothing."""

    data: str | None = None
    steps: int = 10
    cases: int = 2
    seeds: tuple[int, ...] = (0, 1, 2)
    changes: tuple[str, ...] = ()


def experiment(request: Request) -> Results:
    """Return the plan as a table."""
    plan = request.plan(Plan, data=None if request.data is None else str(request.data))
    steps = Estimate(value=plan.steps, low=1, high=99)
    columns = (Column(title="of"), Column(title="steps", better="higher", digits=0))
    table = Table(title="Steps", protocol="None.", columns=columns, rows=(("us | them", steps),), best=((0, 1),))
    return Results(title="Nothing", notes=("Look twice.",), tables=(table,))


VALUE = Experiment(
    name="nothing",
    title="Nothing",
    run=f"{__name__}:experiment",
    takes=("data", "seeds", "set"),
    makes={"data": "cardiosynth prepare acdc ACDC data/acdc"},
    plan={"steps": 20},
    sizes={"tiny": Size(cost="nothing", plan={"cases": 1}), "paper": Size(cost="more", needs=("data",))},
)


def request(out: Path, **given) -> Request:
    return Request(experiment=VALUE, out=out, **{"scale": "tiny", **given})


def test_values_of_experiment_scale_user_and_changes_come_in_this_order():
    assert request(Path()).plan(Plan) == Plan(steps=20, cases=1)
    found = request(Path(), seeds=2, changes=("steps=5", "segmenter.b=1")).plan(Plan, data="d", cases=None)
    assert found == Plan(data="d", steps=5, cases=1, seeds=(0, 1), changes=("segmenter.b=1",))
    with pytest.raises(InputError, match="did you mean 'steps'"):
        request(Path(), changes=("step=5",)).plan(Plan)


def test_changes_are_there_before_values_must_suit_each_other():
    class Pair(Plan):
        other: int | None = None

        @pydantic.model_validator(mode="after")
        def _both(self) -> "Pair":
            if (self.data is None) != (self.other is None):
                raise ValueError("data comes with other")
            return self

    assert request(Path(), changes=("other=3",)).plan(Pair, data="d").other == 3
    with pytest.raises(InputError, match="nothing: data comes with other"):
        request(Path()).plan(Pair, data="d")


def test_the_command_repeats_the_request_or_a_part_of_it():
    asked = request(Path("my out"), seeds=2, data=Path("d"), changes=("steps=5",), device="cuda")
    words = "cardiosynth experiment nothing 'my out' --scale tiny --data d --seeds 2 --set steps=5 --device cuda"
    assert asked.command() == words
    assert asked.command("a", "b") == f"{words} --only a b"


def test_a_report_tables_and_markdown_are_written(tmp_path: Path):
    report = run_experiment(request(tmp_path))
    assert "Look twice." in report.read_text()
    assert read_results(tmp_path / "results.json").environment["Python"]
    text = (tmp_path / "table.md").read_text()
    assert "| of | steps ↑ |" in text
    assert r"| us \| them | **20 (1 to 99)** |" in text
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == ["table-01-steps.csv", "table-01-steps.tex"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"only": ("a",)}, "nothing does not take --only, leave it out; it takes --data, --seeds, --set"),
        ({"scale": "demo"}, "nothing has no scale 'demo'"),
        ({"scale": "paper"}, "needs --data; make it by cardiosynth prepare acdc"),
        ({"seeds": 0}, "--seeds 0: give a number of at least 1"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path: Path, given: dict, message: str):
    with pytest.raises(InputError, match=message):
        run_experiment(request(tmp_path / "out", **given))
    assert not (tmp_path / "out").exists()
