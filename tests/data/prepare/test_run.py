import json
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import Window
from cardiosynth.core.labels import label_table
from cardiosynth.data.dataset import Dataset, read_dataset, write_dataset
from cardiosynth.data.prepare.mapping import LabelMapping
from cardiosynth.data.prepare.run import prepare
from cardiosynth.data.prepare.settings import PrepareSettings, SliceSettings
from cardiosynth.data.sources.nnunet import nnunet
from cardiosynth.data.stream import CaseStream

from .scans import scan, stream

SMALL = PrepareSettings(shape=(16, 16, 16))
GOOD = scan(np.eye(4))
EMPTY = GOOD.with_(mask=np.zeros_like(GOOD.mask))


def test_a_broken_case_does_not_stop_the_rest_and_is_named_at_the_end(tmp_path: Path):
    source = {"c": "x.nii is truncated", "b": EMPTY, "a": GOOD}
    with pytest.raises(InputError, match=r"2 cases .*x\.nii is truncated.*case b: the mask is empty"):
        prepare(stream(**source), tmp_path, SMALL)
    assert read_dataset(tmp_path).case_ids == ("a",)
    assert (tmp_path / "dataset.json").exists()


def test_to_keep_going_is_to_say_what_is_broken_and_end_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert len(prepare(stream(a=GOOD, b=EMPTY), tmp_path, SMALL, keep_going=True)) == 1
    assert "case b: the mask is empty" in capsys.readouterr().err


def test_where_no_case_can_be_prepared_nothing_is_left(tmp_path: Path):
    for source, part in ((stream(x="x is gone"), "x is gone"), (stream(a=EMPTY), "empty"), (stream(), "no case")):
        with pytest.raises(InputError, match=part):
            prepare(source, tmp_path / "out", PrepareSettings(), keep_going=True)
        assert not (tmp_path / "out").exists()


def test_what_is_finished_is_not_read_again_and_other_settings_are_refused(tmp_path: Path):
    prepare(stream(a=GOOD), tmp_path, SMALL)
    content = contents(tmp_path)
    second = prepare(stream(a="a is read again", b=GOOD), tmp_path, SMALL)
    assert second.case_ids == ("a", "b")
    assert {name: content[name] for name in content if name in contents(tmp_path)} == content
    with pytest.raises(InputError, match="other settings"):
        prepare(stream(a=GOOD), tmp_path, PrepareSettings(shape=(8, 8, 8)))


def killed() -> Case:
    raise KeyboardInterrupt


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path):
    readers = {"a": stream(a=GOOD).reader("a"), "b": killed}
    with pytest.raises(KeyboardInterrupt):
        prepare(CaseStream(readers), tmp_path, SMALL)
    assert not (tmp_path / "dataset.json").exists()
    assert prepare(stream(a="a is read again", b=GOOD), tmp_path, SMALL).case_ids == ("a", "b")


def test_a_volume_of_which_a_slice_is_missing_is_cut_again(tmp_path: Path):
    settings = PrepareSettings(slices=SliceSettings(size=16))
    whole = prepare(stream(a=GOOD), tmp_path, settings)
    before = contents(tmp_path)
    whole.file("image", whole.case_ids[2]).unlink()
    with pytest.raises(InputError, match="a is read again"):
        prepare(stream(a="a is read again"), tmp_path, settings)
    prepare(stream(a=GOOD), tmp_path, settings)
    assert contents(tmp_path) == before
    prepare(stream(a="a is read again"), tmp_path, settings)


def test_a_case_of_another_table_or_unit_is_broken_and_the_rest_goes_on(tmp_path: Path):
    other = GOOD.with_(labels=label_table({"aorta": 1, "rib": 2}))
    with pytest.raises(InputError, match=r"case b has another label table.*case c has another intensity unit"):
        prepare(stream(a=GOOD, b=other, c=GOOD.with_(intensity_unit="mr"), d=GOOD), tmp_path, SMALL)
    assert read_dataset(tmp_path).case_ids == ("a", "d")


def test_the_window_is_recorded_and_not_applied(tmp_path: Path):
    seen = prepare(stream(a=GOOD), tmp_path / "a", SMALL.model_copy(update={"window": Window(low=0, high=100)}))
    plain = prepare(stream(a=GOOD), tmp_path / "b", SMALL)
    assert np.array_equal(seen[0].image, plain[0].image)
    assert seen[0].image.max() == 400
    assert seen.description.facts["preparation"]["window"] == {"low": 0.0, "high": 100.0}
    assert plain.description.facts["preparation"]["window"] is None


def test_structures_get_the_names_and_codes_asked_for(tmp_path: Path):
    mapping = LabelMapping(table=label_table({"left_ventricle": 7}), names={"heart": "left_ventricle", "rib": None})
    made = prepare(stream(a=GOOD), tmp_path, PrepareSettings(mapping=mapping))
    assert np.array_equal(made[0].mask == 7, GOOD.mask == 1)
    assert set(np.unique(made[0].mask)) == {0, 7}
    assert made.description.facts["preparation"]["labels"] == {"left_ventricle": 7}


def patients(count: int) -> CaseStream:
    return stream(**{f"p{i}_frame{j:02d}": GOOD for i in range(count) for j in (1, 2)})


def test_the_parts_are_whole_patients_and_are_chosen_by_name(tmp_path: Path):
    shares = {"train": 3, "test.template": 1, "test.reference": 2}
    dataset = prepare(patients(6), tmp_path, SMALL, shares=shares)
    sides = {part: {row["provenance"]["patient"] for row in dataset.part(part).rows.values()} for part in shares}
    assert [len(side) for side in sides.values()] == [3, 1, 2]
    assert not sides["train"] & (sides["test.template"] | sides["test.reference"])
    assert len(read_dataset(f"{tmp_path}:test")) == 6
    assert read_dataset(f"{tmp_path}:train").case_ids == dataset.part("train").case_ids
    with pytest.raises(InputError, match="no part 'trian'; did you mean 'train'"):
        read_dataset(f"{tmp_path}:trian")


def test_a_dataset_that_is_not_split_says_how(tmp_path: Path):
    prepare(stream(a=GOOD), tmp_path, SMALL)
    with pytest.raises(InputError, match="prepare --split"):
        read_dataset(f"{tmp_path}:train")
    assert set(read_dataset(prepare(stream(a="read"), tmp_path, SMALL, shares={"train": 1}).root).part("train").rows)


def test_mending_a_broken_case_moves_no_other_patient(tmp_path: Path):
    good = {f"p{i}": GOOD for i in range(8)}
    shares = {"train": 0.5, "test": 0.5}
    before = prepare(stream(**{**good, "p3": EMPTY}), tmp_path, SMALL, shares=shares, keep_going=True).rows
    after = prepare(stream(**good), tmp_path, SMALL, shares=shares).rows
    assert {name: row["split"] for name, row in before.items()} == {n: after[n]["split"] for n in before}


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.nii.gz"))}


@pytest.mark.slow
def test_two_workers_write_the_bits_of_one_and_name_what_is_broken(tmp_path: Path):
    cases = [Case(**{**vars(GOOD), "case_id": f"p{i}_frame0{i % 2}"}) for i in range(5)]
    source = write_dataset([*cases, EMPTY.with_(case_id="empty")], tmp_path / "source").root
    made: list[Dataset] = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        settings = PrepareSettings(shape=(16, 16, 16), spacing_mm=(1.3, 1.1, 1.2))
        with pytest.raises(InputError, match="case empty: the mask is empty"):
            prepare(nnunet(source), out, settings, "hearts", shares={"a": 3, "b": 3}, workers=workers)
        made.append(read_dataset(out))
    assert contents(made[0].root) == contents(made[1].root)
    assert made[0].rows == made[1].rows
    one, two = (json.loads((d.root / "dataset.json").read_text()) for d in made)
    assert one == two
