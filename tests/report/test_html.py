import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.evaluation.results import Column, Results, Stage, Table, write_results
from cardiosynth.report.html import render_report, write_report

VOID = {"meta", "img", "rect", "line", "circle"}


class Balance(HTMLParser):
    """Fails where a tag is closed that was not open; collects text."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.said: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data.strip())


def text_of(page: str) -> str:
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    return " ".join(filter(None, parser.said))


def test_the_page_says_everything(folder, results):
    text = text_of(render_report(results, folder))
    for words in ("A study", "What it is.", "Look twice.", "Three cases.", "first case", "Same mask.", "Two arms."):
        assert words in text
    assert "level 200 HU, width 800 HU" in text
    assert "left ventricle" in text
    assert "cardiosynth train 'a b'" in text
    assert "2 min 05 s" in text
    assert "Python 3.11" in text


def test_notes_stand_above_pictures_and_tables(folder, results):
    text = text_of(render_report(results, folder))
    assert text.index("Look twice.") < text.index("first case") < text.index("Three cases.") < text.index("2 min 05 s")


def test_nothing_is_loaded_from_elsewhere(folder, results):
    page = render_report(results, folder)
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    assert "url(" not in page
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert sources
    assert all(source.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,", "#")) for source in sources)
    assert "default-src 'none'" in page


def test_everything_is_escaped(folder):
    evil = "<script>alert(1)</script>&"
    table = Table(title=evil, protocol=evil, columns=(Column(title=evil, unit=evil),), rows=((evil,),))
    stages = (Stage(name=evil, command=evil),)
    nasty = Results(title=evil, summary=evil, notes=(evil,), tables=(table,), stages=stages, environment={evil: evil})
    page = render_report(nasty, folder)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;&amp;") == 14  # the title twice, the command too


def test_the_same_results_give_the_same_page(folder, results):
    assert render_report(results, folder) == render_report(results, folder)


def test_missing_datasets_are_sentences(tmp_path: Path, results):
    page = render_report(results, tmp_path)
    assert page.count('class="missing"') == 5
    assert "s0 cannot be shown" in page
    text_of(page)


def test_only_the_best_is_marked_and_the_mark_is_explained(folder, results):
    page = render_report(results, folder)
    assert re.findall(r'<td class="value best">([^<]*)', page) == ["0.0 ± 2.5"]
    assert "Bold: better" in page
    plain = results.tables[0].model_copy(update={"best": ()})
    assert "Bold" not in render_report(results.model_copy(update={"tables": (plain,)}), folder)


def test_words_stand_to_the_left_and_wide_tables_are_set_smaller(folder, results):
    columns = tuple(Column(title=title) for title in ("images", "verdict", *"abcdef"))
    wide = Table(title="Wide", protocol="", columns=columns, rows=(("a", "as chance", *(1.0,) * 6),))
    page = render_report(results.model_copy(update={"tables": (wide, results.tables[0])}), folder)
    assert page.count('<table class="many">') == 1
    assert '<th scope="col" class="text">verdict' in page
    assert '<td class="text">as chance</td>' in page
    assert '<td class="value">1.00</td>' in page


def test_every_figure_and_table_shows_its_command(folder, results):
    own = results.tables[0].model_copy(update={"command": "cardiosynth other"})
    page = render_report(results.model_copy(update={"tables": (own,)}), folder)
    commands = re.findall(r"<summary>Command</summary><code>([^<]*)", page)
    assert commands == ["cardiosynth train &#39;a b&#39;"] * 5 + ["cardiosynth other"]


def test_an_empty_page_is_still_a_page(tmp_path: Path):
    assert "Nothing" in text_of(render_report(Results(title="Nothing"), tmp_path))


def test_the_page_finds_datasets_from_the_folder_of_the_results(folder: Path, results):
    write_results(results, folder / "results.json")
    write_report(results, folder / "elsewhere" / "report.html", relative_to=folder)
    assert 'class="missing"' not in (folder / "elsewhere" / "report.html").read_text(encoding="utf-8")
    write_report(results, folder / "report.html")
    assert 'class="missing"' not in (folder / "report.html").read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_is_an_input_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(Results(title="t"), tmp_path / "file" / "report.html")
