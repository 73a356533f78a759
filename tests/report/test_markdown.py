from cardiosynth.evaluation.results import Column, Estimate, Results, Table
from cardiosynth.report.markdown import as_markdown, table_markdown

TABLE = Table(
    title="Arms",
    protocol="Two cases.",
    columns=(Column(title="arm"), Column(title="less", unit="mm", better="lower", digits=1, signed=True)),
    rows=(("a | b", Estimate(value=-1.0, low=-2.0, high=0.5)), ("c", None)),
    best=((0, 1),),
)


def test_a_table_has_units_directions_signs_the_best_and_its_protocol():
    assert table_markdown(TABLE).splitlines() == [
        "| arm | less, mm ↓ |",
        "| --- | ---: |",
        r"| a \| b | **−1.0 (−2.0 to +0.5)** |",
        "| c | – |",
        "",
        "Two cases.",
    ]


def test_a_report_begins_with_its_sentences():
    text = as_markdown(Results(title="A study", summary="What it is.", notes=("Look twice.",), tables=(TABLE,)))
    assert text.startswith("# A study\n\nWhat it is.\n\n- Look twice.\n\n## Arms\n\n| arm |")
    assert "\n\n\n" not in as_markdown(Results(title="Nothing else", tables=(TABLE,)))
