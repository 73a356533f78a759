import pytest

from cardiosynth.evaluation.results import Arm, ArmsFigure, Column, Spread, Table
from cardiosynth.report.charts import LEFT, PLOT, arms_chart, bar_percent


def figure(unit: str = "", **arms) -> ArmsFigure:
    shown = tuple(Arm(name=name, values=values) for name, values in arms.items())
    return ArmsFigure(title="t", caption="c", measure="Dice", unit=unit, arms=shown)


def test_dice_is_drawn_from_zero_to_one():
    chart = arms_chart(figure(a={"x": (0.25, 0.75)}))
    (mark,) = chart.marks
    assert mark.mean == LEFT + PLOT / 2
    assert mark.cases == [LEFT + PLOT / 4, LEFT + 3 * PLOT / 4]
    sd = 0.5**0.5 / 2
    assert (mark.low, mark.high) == pytest.approx((LEFT + PLOT * (0.5 - sd), LEFT + PLOT * (0.5 + sd)), abs=0.1)
    assert mark.words == "0.500 ± 0.354"
    assert [label for _, label in chart.ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]


def test_a_spread_does_not_leave_the_axis():
    (mark,) = arms_chart(figure(a={"x": (1.0, 1.0, 0.0)})).marks
    assert LEFT <= mark.low < mark.high <= LEFT + PLOT


def test_distances_get_an_axis_that_holds_them():
    chart = arms_chart(figure("mm", a={"x": (4.0, 20.0)}, b={"x": (2.0,)}))
    assert max(x for mark in chart.marks for x in mark.cases) < LEFT + PLOT
    assert len({mark.color for mark in chart.marks}) == 2


def test_structures_without_a_value_get_no_band():
    chart = arms_chart(figure(a={"x": (0.5,), "y": (None,)}, b={"x": (None,), "y": ()}))
    assert [title for title, _, _ in chart.bands] == ["x"]
    assert len(chart.marks) == 1
    assert arms_chart(figure(a={"x": (None,)})).marks == []


def test_bars_are_shares_of_the_whole():
    percent, plain = Column(title="p", unit="%"), Column(title="q")
    rows = ((Spread(mean=40, n=1), 5.0), (Spread(mean=80, n=1), 10.0), (None, None), (-3.0, 0.0))
    table = Table(title="t", protocol="p", columns=(percent, plain), rows=rows, bars=("p", "q"))
    assert [bar_percent(row[0], percent, table) for row in rows] == [40, 80, None, 0]
    assert [bar_percent(row[1], plain, table) for row in rows] == [50, 100, None, 0]
    assert bar_percent(rows[0][0], percent, table.model_copy(update={"bars": ()})) is None
