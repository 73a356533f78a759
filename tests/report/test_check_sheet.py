"""The sheet of a dataset: everything in one file, a picture of every case, nothing from elsewhere."""

import base64
import hashlib
import io
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import label_table
from cardiosynth.data.check.examination import check_dataset
from cardiosynth.data.check.intensity import BINS
from cardiosynth.data.check.tissues import EXPECTED_HU
from cardiosynth.data.dataset import write_dataset
from cardiosynth.report.check_sheet import MOST_BYTES, CheckSheet, histogram_chart, thumbnail

from .test_html import text_of

TABLE = label_table({"left ventricle": 1, "left ventricular myocardium": 2})


def make_case(case_id: str, size: int = 24, **changes) -> Case:
    """A ball of blood in a shell of muscle."""
    radius = np.linalg.norm(np.indices((size,) * 3) - (size - 1) / 2, axis=0) / size
    mask = np.where(radius < 0.2, 1, np.where(radius < 0.3, 2, 0)).astype(np.uint8)[None]
    seed = int.from_bytes(case_id.encode(), "big") % 2**32
    image = np.array([-80, 400, 110], np.int16)[mask] + np.random.default_rng(seed).integers(-20, 20, mask.shape)
    facts = {"case_id": case_id, "image": image.astype(np.int16), "mask": mask, "labels": TABLE, "origin": "phantom",
             "affine": np.diag([3.0, 3, 3, 1]), "provenance": {"patient": case_id}}  # fmt: skip
    return Case(**{**facts, **changes})


def sheet_of(cases: list[Case], folder: Path) -> str:
    write_dataset(cases, folder / "data", name="A <study>")
    with CheckSheet(folder / "sheet.html") as sheet:
        sheet.write(check_dataset(folder / "data", each=sheet.add))
    return (folder / "sheet.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sheet")


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    """A sound case, one whose mask is empty, one without a mask, and one whose file is damaged."""
    blank = make_case("blank")
    cases = [make_case("sound"), blank.with_(mask=blank.required_mask() * 0), make_case("bare", mask=None)]
    write_dataset([*cases, make_case("torn")], folder / "data", name="A <study>")
    path = folder / "data" / "imagesTr" / "torn_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:-30])
    return sheet_of(cases, folder)


def test_every_case_has_a_picture_and_its_findings_beside_it(page: str):
    articles = dict(re.findall(r'<article class="case" data-name="(\w+)"(.*?)</article>', page, re.DOTALL))
    assert set(articles) == {"sound", "blank", "bare", "torn"}
    assert all(("data:image/jpeg" in article) is (name != "torn") for name, article in articles.items())
    assert "mask is empty" in articles["blank"]
    assert 'data-errors="1"' in articles["blank"]
    assert "could not be read" in articles["torn"]
    assert "has no mask" in articles["bare"]
    assert 'data-errors="0"' in articles["sound"]
    assert 'data-volume1="' in articles["sound"]


def test_the_page_says_what_it_is_of_and_closes_its_tags(page: str):
    text = text_of(re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL).replace("<input", "<meta"))
    for words in ("A <study>", "4 cases", "Hounsfield units", "left ventricle", "200 to 700", "level 200 HU"):
        assert words in text


def test_nothing_is_loaded_from_elsewhere_and_only_the_pages_own_script_runs(page: str):
    assert not re.search(r"https?://|@import|url\(", page)
    assert all(source.startswith("data:image/") for source in re.findall(r'src="([^"]{0,40})', page))
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page
    assert "A <study>" not in page


def test_pictures_are_small_whatever_the_volume(page: str):
    loud = make_case("loud", 40)
    noise = np.random.default_rng(0).integers(-200, 600, loud.required_image().shape).astype(np.int16)
    uri = thumbnail(loud.with_(image=noise))
    content = base64.b64decode(uri.partition(",")[2])
    assert len(content) <= MOST_BYTES
    assert len(uri) <= 60_000
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.width > 2 * picture.height  # three planes side by side
    assert max(map(len, re.findall(r'src="([^"]+)"', page))) <= 60_000


def test_a_mask_alone_is_drawn_too():
    content = base64.b64decode(thumbnail(make_case("mask", image=None)).partition(",")[2])
    with Image.open(io.BytesIO(content)) as picture:
        assert np.asarray(picture).std(axis=2).max() > 30, "structures have their colors"


def test_a_histogram_shows_counts_the_usual_range_and_what_lies_outside():
    counts = [0.0] * BINS
    counts[32] = 4.0
    usual = EXPECTED_HU["left_ventricle"]
    chart = histogram_chart(counts, 0.0, usual, is_ct=True)
    assert chart.path.count("L") == BINS
    assert chart.path.count(" 2.0H") == 1, "one bin reaches the top"
    assert chart.median == 85.0  # the middle of 170 pixels
    assert chart.usual == (101.6, 143.1)
    assert chart.odd
    assert not histogram_chart(counts, 300.0, usual, is_ct=True).odd
    assert histogram_chart(counts, 300.0, usual, is_ct=False).usual is None


def test_what_names_several_cases_stands_beside_each(tmp_path: Path):
    twin = make_case("one")
    page = sheet_of([twin, twin.with_(case_id="two"), make_case("three")], tmp_path)
    articles = dict(re.findall(r'data-name="(\w+)"(.*?)</article>', page, re.DOTALL))
    assert [("hold the same image" in articles[name]) for name in ("one", "two", "three")] == [True, True, False]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_cases(tmp_path: Path):
    def peak(count: int) -> int:
        write_dataset([make_case(f"case{i}", 16) for i in range(count)], tmp_path / str(count))
        tracemalloc.start()
        with CheckSheet(tmp_path / "sheet.html") as sheet:
            sheet.write(check_dataset(tmp_path / str(count), each=sheet.add))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)  # what is loaded once
    few, many = peak(2), peak(10)
    picture = (tmp_path / "sheet.html").stat().st_size / 10
    assert many - few < 3 * picture, "pictures and volumes are not kept"


def test_nothing_is_left_behind_where_the_examination_fails(tmp_path: Path):
    with pytest.raises(InputError), CheckSheet(tmp_path / "out" / "sheet.html") as sheet:
        check_dataset(tmp_path / "nowhere", each=sheet.add)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), CheckSheet(tmp_path / "file" / "sheet.html"):
        pass
