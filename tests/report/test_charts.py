from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from cardiosynth.evaluation.results import (
    Arm,
    ArmsFigure,
    BarGroup,
    BarsFigure,
    Curve,
    CurvesFigure,
    Estimate,
    PointGroup,
    PointsFigure,
    RadarFigure,
    Spread,
)
from cardiosynth.report.charts import ARM_COLORS, Charted, chart_bytes, draw_chart, reading_of


def axes_of(figure: Charted) -> Any:
    (axes,) = draw_chart(figure).axes
    assert isinstance(axes, Axes)
    return axes


def arms(unit: str = "", **arms) -> ArmsFigure:
    shown = tuple(Arm(name=name, values=values) for name, values in arms.items())
    return ArmsFigure(title="t", caption="c", measure="Dice", unit=unit, arms=shown)


def marks(axes: Any, marker: str) -> list[list[float]]:
    return [list(line.get_xdata()) for line in axes.lines if line.get_marker() == marker]


def test_every_case_and_the_mean_are_drawn_where_they_lie():
    axes = axes_of(arms(a={"x": (0.25, 0.75, None)}))
    assert marks(axes, "o") == [[0.25, 0.75]]
    assert marks(axes, "D") == [[0.5]]
    assert axes.get_xlim() == pytest.approx((-0.02, 1.02)), "a share is drawn from 0 to 1"
    assert "box" not in reading_of(arms(a={"x": (0.25, 0.75)}))


def test_a_box_needs_enough_cases_and_holds_their_quartiles():
    values = (0.0, 1.0, 2.0, 3.0, 4.0)
    axes = axes_of(arms("mm", a={"x": values}))
    drawn = [tuple(line.get_xdata()) for line in axes.lines if line.get_marker() in ("None", "", None)]
    assert (1.0, 1.0, 3.0, 3.0, 1.0) in drawn, "the box"
    assert (2.0, 2.0) in drawn, "its median"
    assert "box: quartiles" in reading_of(arms("mm", a={"x": values}))
    few = axes_of(arms("mm", a={"x": values[:4]}))
    assert not [line for line in few.lines if len(line.get_xdata()) == 5]


def test_distances_get_an_axis_that_holds_them():
    axes = axes_of(arms("mm", a={"x": (4.0, 20.0)}, b={"x": (2.0,)}))
    assert axes.get_xlim()[1] > 20
    assert axes.get_xlabel() == "Dice in mm"
    colors = {to_hex(line.get_color()) for line in axes.lines if line.get_marker() == "D"}
    assert colors == set(ARM_COLORS[:2])


def test_structures_without_a_value_get_no_band():
    axes = axes_of(arms(a={"left_x": (0.5,), "y": (None,)}, b={"left_x": (None,), "y": ()}))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["left x"]
    assert len(marks(axes, "D")) == 1
    assert marks(axes_of(arms(a={"x": (None,)})), "D") == []


def test_bars_begin_at_zero_and_carry_their_intervals():
    groups = (
        BarGroup(name="one", values={"a": Estimate(value=80, low=70, high=95), "b": 60.0}),
        BarGroup(name="two", values={"a": Spread(mean=50, sd=5, n=3), "b": None}),
    )
    figure = BarsFigure(title="t", measure="Dice", unit="%", groups=groups)
    axes = axes_of(figure)
    assert [(bar.get_y(), bar.get_height()) for bar in axes.patches] == [(0, 80), (0, 50), (0, 60)]
    ends = [tuple(line.get_ydata()) for line in axes.lines if len(line.get_ydata()) == 2]
    assert {(70, 95), (45, 55)} <= set(ends)
    assert axes.get_ylim() == pytest.approx((0, 100))
    assert reading_of(figure) == "Higher is better. Line: 95 % interval or standard deviation."


def test_the_axis_of_bars_below_zero_holds_them():
    groups = (BarGroup(name="one", values={"a": Estimate(value=-3, low=-8, high=2)}),)
    low, high = axes_of(BarsFigure(title="t", measure="m", groups=groups)).get_ylim()
    assert low <= -8
    assert high >= 2


def test_points_keep_their_groups_apart():
    groups = (PointGroup(name="real", points=((0, 1), (2, 3))), PointGroup(name="made", points=((5, 5),)))
    figure = PointsFigure(title="t", groups=groups)
    axes = axes_of(figure)
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[0, 1], [2, 3]], [[5, 5]]]
    assert len({line.get_marker() for line in axes.lines}) == 2
    assert "real 2, made 1" in reading_of(figure)


def test_curves_go_through_their_points():
    curve = Curve(name="c", x=(0.0, 1.0), y=(0.5, 1.0))
    axes = axes_of(CurvesFigure(title="t", x_title="kept", y_title="error", curves=(curve,)))
    assert axes.lines[0].get_xydata().tolist() == [[0, 0.5], [1, 1]]
    assert axes.get_ylim()[0] == 0
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("kept", "error")


def test_the_rim_of_a_radar_is_the_best_score_and_its_line_is_closed():
    figure = RadarFigure(title="t", criteria=("a", "b", "c"), ends=(11, 1), scores={"ours": (1, 6, 11)})
    axes = axes_of(figure)
    assert axes.lines[0].get_ydata().tolist() == [1, 0.5, 0, 1]
    assert "rim 1" in reading_of(figure)


@pytest.mark.parametrize(("form", "head"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_the_same_figure_gives_the_same_bytes(form, head):
    figure = CurvesFigure(title="t", x_title="x", y_title="y", curves=(Curve(name="c", x=(0, 1), y=(0, 1)),))
    one, other = (chart_bytes(draw_chart(figure), form) for _ in range(2))
    assert one == other
    assert one.startswith(head)
    assert np.frombuffer(one, np.uint8).size > 1000
