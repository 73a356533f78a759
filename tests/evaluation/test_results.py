import json
import math
from pathlib import Path

import pydantic
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.evaluation.results import (
    Arm,
    ArmsFigure,
    BarGroup,
    BarsFigure,
    CaseFigure,
    CasePointer,
    Column,
    Curve,
    CurvesFigure,
    GalleryFigure,
    PointGroup,
    PointsFigure,
    ProjectionFigure,
    RadarFigure,
    Results,
    Spread,
    Stage,
    Table,
    Tile,
    environment,
    pointer,
    read_results,
    spread,
    with_stage,
    write_results,
)


def everything() -> Results:
    here = CasePointer(dataset="data/synthetic", case_id="synthetic-00000")
    return Results(
        title="A title",
        summary="Two sentences. Or one.",
        notes=("Small numbers.",),
        tables=(
            Table(
                title="HU",
                protocol="3 cases.",
                columns=(Column(title="structure"), Column(title="mean", unit="HU", better="lower", digits=0)),
                rows=(("aorta", Spread(mean=1.5, sd=None, n=1)), ("spine", None), ("liver", 3.0), ("lung", "absent")),
                bars=("mean",),
            ),
        ),
        figures=(
            CaseFigure(title="case", synthetic=here, real=here, paired=True),
            ProjectionFigure(title="mip", structure="coronary_artery", cases=(("real", here),)),
            ArmsFigure(
                title="arms", caption="5 cases", measure="Dice", arms=(Arm(name="a", values={"x": (0.5, None)}),)
            ),
            BarsFigure(title="b", measure="Dice", groups=(BarGroup(name="x", values={"a": None, "b": 1.0}),)),
            PointsFigure(title="p", groups=(PointGroup(name="real", points=((0.0, 1.0),)),)),
            CurvesFigure(title="s", x_title="x", y_title="y", curves=(Curve(name="c", x=(0, 1), y=(0, 1)),)),
            RadarFigure(title="r", criteria=("a", "b", "c"), ends=(0, 1), scores={"ours": (0, 0.5, 1)}),
            GalleryFigure(title="g", rows=((Tile(case=here, layer="mask"), None),)),
        ),
        stages=(Stage(name="evaluate", seconds=1.25, command="cardiosynth evaluate a b --out c"),),
        environment=environment(),
    )


def test_results_survive_the_file(tmp_path: Path):
    write_results(everything(), tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == everything()


def test_spread_is_mean_and_sample_deviation_of_what_is_finite():
    assert spread([1.0, 3.0, math.nan, math.inf]) == Spread(mean=2, sd=math.sqrt(2), n=2)
    assert spread([4.0]) == Spread(mean=4, sd=None, n=1)
    assert spread([]) is None
    assert spread([math.nan]) is None


def test_a_pointer_is_relative_to_the_results_file(tmp_path: Path):
    assert pointer(tmp_path / "data/a", "x", tmp_path / "out").dataset == "../data/a"
    assert pointer(tmp_path / "data/a", "x", tmp_path) == CasePointer(dataset="data/a", case_id="x")


def test_a_crooked_table_is_refused():
    columns = (Column(title="structure"), Column(title="mean"))
    with pytest.raises(pydantic.ValidationError, match="2 cells"):
        Table(title="t", protocol="p", columns=columns, rows=(("a",),))
    with pytest.raises(pydantic.ValidationError, match="no column 'sd'"):
        Table(title="t", protocol="p", columns=columns, rows=(("a", 1.0),), bars=("sd",))
    with pytest.raises(pydantic.ValidationError, match="marks a cell"):
        Table(title="t", protocol="p", columns=columns, rows=(("a", 1.0),), best=((1, 1),))


def test_crooked_figures_are_refused():
    with pytest.raises(pydantic.ValidationError, match="2 x and 1 y"):
        Curve(name="c", x=(0, 1), y=(0,))
    with pytest.raises(pydantic.ValidationError, match="not as many scores"):
        RadarFigure(title="t", criteria=("a", "b", "c"), ends=(0, 1), scores={"ours": (1, 1)})


def test_a_stage_is_added_at_the_end():
    more = with_stage(everything(), Stage(name="look"))
    assert [stage.name for stage in more.stages] == ["evaluate", "look"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a results file"),
        ('{"channel_names": {}}', "not a results file"),
        ('{"format_version": 99, "tables": []}', "format 99"),
        ('{"format_version": 1, "tables": [], "title": 3}', "title"),
        ('{"format_version": 1, "tables": [], "title": "a", "extra": 3}', "extra"),
    ],
)
def test_other_json_is_refused_in_one_sentence(tmp_path: Path, content: str, said: str):
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(InputError, match=said) as error:
        read_results(file)
    assert str(file) in str(error.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read"):
        read_results(tmp_path / "none.json")
    with pytest.raises(InputError, match="is a folder"):
        read_results(tmp_path)


def test_the_file_is_plain_json(tmp_path: Path):
    write_results(everything(), tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text())["tables"][0]["rows"][1] == ["spine", None]
