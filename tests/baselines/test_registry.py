from pathlib import Path

import pytest

from cardiosynth.baselines.registry import GROUP, PEERS, load_method
from cardiosynth.core.errors import InputError
from cardiosynth.recipes.methods import find_method, method_names

PACKAGE = Path(__file__).parent / "package"


@pytest.fixture
def package(monkeypatch):
    monkeypatch.syspath_prepend(PACKAGE)


def test_every_peer_is_where_it_is_said_to_be_with_all_sizes():
    for name, place in PEERS.items():
        method = load_method(name, place)
        assert set(method.sizes) >= {"tiny", "demo", "paper"}
        assert method.footnote
        assert method.citation


def test_a_users_method_joins_by_its_entry_point(package):
    assert method_names()[-1] == "painted"
    assert find_method("painted").title == "Painted"


def test_the_page_shows_the_package_as_it_is():
    page = (Path(__file__).parents[2] / "docs" / "adding_a_method.md").read_text(encoding="utf-8")
    assert (PACKAGE / "painted.py").read_text(encoding="utf-8") in page
    assert f'[project.entry-points."{GROUP}"]' in page


def test_near_misses_and_methods_without_a_package_are_told():
    with pytest.raises(InputError, match="did you mean 'fqcdm'"):
        find_method("fqdcm")
    with pytest.raises(InputError, match="no method 'painted'"):
        find_method("painted")


@pytest.mark.parametrize(
    ("name", "place", "words"),
    [
        ("painted", "painted:NOTHING", "cannot be loaded"),
        ("painted", "nowhere:METHOD", "cannot be loaded"),
        ("drawn", "painted:METHOD", "calls itself painted"),
        ("painted", "painted:Painted", "no cardiosynth.baselines.method.Method"),
    ],
)
def test_what_is_no_method_of_that_name_is_refused(package, name, place, words):
    with pytest.raises(InputError, match=words):
        load_method(name, place)


def test_a_package_cannot_take_the_name_of_one_of_ours(package, monkeypatch):
    monkeypatch.setitem(PEERS, "painted", "elsewhere:METHOD")
    with pytest.raises(InputError, match="one of ours"):
        find_method("painted")
