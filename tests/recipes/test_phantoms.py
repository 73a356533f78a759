from pathlib import Path

import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.data.dataset import read_dataset
from cardiosynth.recipes.phantoms import Population, write_phantoms


def test_an_impossible_population_leaves_no_folder(tmp_path: Path):
    with pytest.raises(InputError):
        write_phantoms(Population(2, (32, 32, 32), spacing_mm=-1.0), tmp_path / "never")
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
def test_a_larger_request_adds_to_what_is_there(tmp_path: Path):
    one = Population(1, (24, 24, 24), protocols=2)
    write_phantoms(one, tmp_path / "set")
    first = read_dataset(tmp_path / "set")[0].image.copy()
    both = write_phantoms(Population(3, (24, 24, 24), protocols=2), tmp_path / "set")
    assert (both[0].image == first).all()
    assert [case.provenance["acquisition"] for case in both] == ["protocol-00", "protocol-01", "protocol-00"]
