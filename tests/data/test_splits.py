import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.data.splits import fold_of, hold_out, patient_of, read_split, split

PATIENTS = [f"patient{p:03d}" for p in range(20)]


def parts(text: str, patients: list[str], seed: int = 0) -> dict[str, list[str]]:
    given = split(patients, read_split(text), seed)
    return {name: sorted(p for p, part in given.items() if part == name) for name in dict.fromkeys(given.values())}


def test_every_patient_stands_on_one_side_whatever_order_and_cases_they_come_in():
    found = parts("train=0.6,validation=0.2,test=0.2", PATIENTS)
    assert {name: len(members) for name, members in found.items()} == {"train": 12, "validation": 4, "test": 4}
    assert sorted(p for members in found.values() for p in members) == PATIENTS
    assert parts("train=0.6,validation=0.2,test=0.2", [*PATIENTS[::-1], *PATIENTS]) == found
    assert parts("train=0.6,validation=0.2,test=0.2", PATIENTS, seed=1) != found


def test_the_protocol_of_the_paper_divides_a_thousand_cases_as_it_says():
    found = parts("fcas", [f"{i:04d}" for i in range(1, 1001)])
    assert {n: len(m) for n, m in found.items()} == {"train": 200, "test.template": 50, "test.reference": 750}
    assert {n: len(m) for n, m in parts("fcas-downstream", PATIENTS).items()} == {"train": 4, "test": 16}
    assert {n: len(m) for n, m in parts("fqcdm", PATIENTS).items()} == {"train": 14, "validation": 4, "test": 2}


def test_patients_may_be_counted_and_one_part_takes_the_rest():
    found = parts("train=3,test.template=2,test.reference=rest", PATIENTS)
    assert [len(members) for members in found.values()] == [3, 2, 15]
    assert [len(members) for members in parts("train=rest,test=0.25", PATIENTS).values()] == [15, 5]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("train=0.5,test=0.4", "sum to 1"),
        ("train=3,test=4", "sum to 20 patients"),
        ("train=30,test=rest", "positive"),
        ("train=1.2,test=rest", "positive"),
        ("train=3,test=0.5", "not understood"),
        ("train=rest,test=rest", "not understood"),
        ("train=0.99,test=0.01", "too few for a part 'test'"),
        ("fcass", "did you mean 'fcas'"),
        ("train=much", "'much' is no share"),
        ("a/b=0.5,c=0.5", "cannot name a part"),
        ("a=0.5,a=0.5", "cannot name a part"),
    ],
)
def test_what_is_no_split_of_these_patients_is_refused(text: str, part: str):
    with pytest.raises(InputError, match=part):
        split(PATIENTS, read_split(text))


@pytest.mark.parametrize(
    ("case_id", "patient"),
    [
        ("patient001_frame12", "patient001"),
        ("a_ED", "a"),
        ("phantom-00007", "phantom-00007"),
        ("b_phase3_slice02", "b"),
    ],
)
def test_the_patient_is_the_name_without_frame_phase_and_slice(case_id: str, patient: str):
    assert patient_of(case_id) == patient


def test_held_out_patients_are_whole_and_the_same_for_every_run():
    names = [f"patient{p:03d}_frame{f:02d}" for p in range(10) for f in (1, 12)]
    kept = hold_out(names, 3)
    assert len(kept) == 4
    assert len({patient_of(name) for name in kept}) == 2
    assert hold_out(reversed(names), 3) == kept
    assert set(kept) < set(hold_out(names, 5))
    assert hold_out(names, 0) == ()


def test_holding_out_leaves_two_for_training():
    assert len(hold_out(["a", "b", "c"], 1)) == 1
    with pytest.raises(InputError, match="hold out fewer"):
        hold_out(["a", "b", "c"], 2)


def test_folds_are_even_and_keep_patients_together():
    case_ids = [f"{patient}_frame{frame}" for patient in PATIENTS[:11] for frame in (1, 2)]
    folds = fold_of(case_ids, 3)
    sizes = [sum(folds[f"{patient}_frame1"] == fold for patient in PATIENTS[:11]) for fold in range(3)]
    assert sorted(sizes) == [3, 4, 4]
    assert all(folds[f"{patient}_frame1"] == folds[f"{patient}_frame2"] for patient in PATIENTS[:11])
    assert fold_of(case_ids[::-1], 3) == folds
    assert fold_of(case_ids, 3, seed=1) != folds
    assert set(fold_of(case_ids, 11).values()) == set(range(11))


@pytest.mark.parametrize("count", [1, 6])
def test_folds_without_patients_are_refused(count):
    with pytest.raises(InputError, match="5 patients cannot be shared out"):
        fold_of(PATIENTS[:5], count)
