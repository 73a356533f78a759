import csv
import io

import numpy as np
from PIL import Image

from cardiosynth.cli import main
from cardiosynth.evaluation.results import Column, Estimate, Results, Spread, Table, write_results
from cardiosynth.report.files import as_csv, as_latex, write_files

TABLE = Table(
    title="A & B",
    protocol="50 % of the cases.",
    columns=(Column(title="arm"), Column(title="Dice", unit="%", better="higher", digits=1), Column(title="HD95")),
    rows=(
        ("real_only", Spread(mean=1 / 3, sd=0.5, n=2), None),
        ("made", Estimate(value=-2.0, low=-3.0, high=1.0), 4.0),
    ),
    best=((1, 2),),
)


def test_csv_holds_every_number_in_full_and_says_what_is_best():
    rows = list(csv.DictReader(io.StringIO(as_csv(TABLE))))
    assert float(rows[0]["Dice [%] mean"]) == 1 / 3
    assert (rows[0]["Dice [%] n"], rows[0]["Dice [%] low"], rows[0]["HD95"], rows[0]["best"]) == ("2", "", "", "")
    assert (rows[1]["Dice [%] low"], rows[1]["Dice [%] mean"], rows[1]["HD95"]) == ("-3.0", "", "4.0")
    assert [row["arm"] for row in rows] == ["real_only", "made"]
    assert rows[1]["best"] == "HD95"


def test_latex_is_escaped_aligned_and_bold_where_it_is_best():
    text = as_latex(TABLE)
    assert r"\caption{A \& B}" in text
    assert r"arm & Dice [\%] $\uparrow$ & HD95 \\" in text
    assert r"real\_only & 0.3 $\pm$ 0.5 & -- \\" in text
    assert r"made & $-$2.0 ($-$3.0 to 1.0) & \textbf{4.00} \\" in text
    assert r"50 \% of the cases." in text
    assert text.count(r"\begin{") == text.count(r"\end{")


def test_every_figure_and_table_becomes_files(folder, results):
    write_results(results, folder / "results.json")
    page = folder / "page.html"
    main(["report", str(folder / "results.json"), "--out", str(page), "--files", str(folder / "files")])
    assert page.stat().st_size > 10_000
    assert sorted(path.name for path in (folder / "files").iterdir()) == [
        "figure-01-first-case.png", "figure-02-vessels.png", "figure-03-arms.png", "figure-03-arms.svg",
        "figure-04-masks.png", "figure-05-features.png", "figure-05-features.svg",
        "table-01-contrast.csv", "table-01-contrast.tex",
    ]  # fmt: skip
    with Image.open(folder / "files" / "figure-01-first-case.png") as picture:
        assert np.asarray(picture).std() > 10
        assert picture.width > picture.height, "five columns, three planes"


def test_figures_whose_cases_are_gone_are_left_out(tmp_path, results):
    shown = Results(title="t", figures=results.figures[:1])
    assert write_files(shown, tmp_path / "files", tmp_path) == []
