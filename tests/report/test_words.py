from cardiosynth.evaluation.results import Column, Estimate, Spread, Table
from cardiosynth.report.words import bar_percent, cell_text, duration_text, number_text, usual_n


def test_cells_in_words():
    column = Column(title="c", digits=1)
    assert cell_text(None, column) == "–"
    assert cell_text("absent", column) == "absent"
    assert cell_text(2.0, column) == "2.0"
    assert cell_text(Spread(mean=1.25, sd=0.5, n=3), column, 3) == "1.2 ± 0.5"
    assert cell_text(Spread(mean=1.5, sd=None, n=1), column, 3) == "1.5 (n 1)"
    assert cell_text(Estimate(value=1.0, low=-0.5, high=2.0), column, 3) == "1.0 (−0.5 to 2.0)"


def test_numbers_in_words():
    assert number_text(-3.21, 1) == "−3.2"
    assert number_text(-0.01, 1) == "0.0"
    assert number_text(-0.6, 0) == "−1"
    assert [number_text(x, 2, signed=True) for x in (0.5, -0.5, 0.001)] == ["+0.50", "−0.50", "0.00"]
    assert number_text(float("inf"), 1) == "∞"
    assert [duration_text(s) for s in (None, 9.04, 125.4)] == ["–", "9.0 s", "2 min 05 s"]


def test_the_usual_n_is_the_most_frequent(results):
    table = results.tables[0]
    assert usual_n(table, table.columns[0]) is None
    assert usual_n(table, table.columns[1]) in (2, 3)
    more = table.model_copy(update={"rows": (*table.rows, ("lung", Spread(mean=1, sd=1, n=2)))})
    assert usual_n(more, more.columns[1]) == 2


def test_bars_are_shares_of_the_whole():
    percent, plain = Column(title="p", unit="%"), Column(title="q")
    rows = ((Spread(mean=40, n=1), 5.0), (Spread(mean=80, n=1), 10.0), (None, None), (-3.0, 0.0))
    table = Table(title="t", protocol="p", columns=(percent, plain), rows=rows, bars=("p", "q"))
    assert [bar_percent(row[0], percent, table) for row in rows] == [40, 80, None, 0]
    assert [bar_percent(row[1], plain, table) for row in rows] == [50, 100, None, 0]
    assert bar_percent(rows[0][0], percent, table.model_copy(update={"bars": ()})) is None
