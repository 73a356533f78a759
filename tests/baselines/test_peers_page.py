"""The page of the peers says of every one what its Method says."""

import ast
from pathlib import Path

import pytest

from cardiosynth.baselines.method import Method
from cardiosynth.baselines.registry import PEERS, load_method
from cardiosynth.experiments.peer_published import FCAS, FQCDM

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "papers" / "peers.md"


def row(method: Method, place: str) -> str:
    """Return a method's row of the table."""
    file = place.partition(":")[0].rpartition(".")[2] + ".py"
    about = ast.get_docstring(ast.parse((ROOT / "src/cardiosynth/baselines" / file).read_text(encoding="utf-8")))
    assert about is not None
    cells = (
        f"{method.title} (`{method.name}`)",
        tables(method),
        about.partition("\n\n")[0].replace("\n", " ").rstrip("."),
        f"[{file}](../../src/cardiosynth/baselines/{file})",
        "yes" if method.conditional else "no",
        f"{method.spatial_dims}D",
        method.citation,
        method.footnote,
    )
    return f"| {' | '.join(cells)} |"


def tables(method: Method) -> str:
    """Return the papers' tables that name a method; FCaS's Table 2 trains segmenters, which takes masks."""
    if method.name in FCAS:
        return "FCaS 1, 2" if method.conditional else "FCaS 1"
    assert method.name in FQCDM["ACDC"], f"{method.name} is in no table of the papers"
    return "FQCDM 1 to 3"


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_has_the_row_that_its_method_tells(name: str):
    expected = row(load_method(name, PEERS[name]), PEERS[name])
    assert expected in PAGE.read_text(encoding="utf-8").splitlines(), f"{PAGE.name} lacks this row:\n{expected}"


def test_no_row_is_of_another_method():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + len(PEERS)
