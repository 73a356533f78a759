import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.data.splits import hold_out, patient_of, split

CASES = [f"patient{p:03d}_frame{f:02d}" for p in range(20) for f in (1, 12)]
PARTS = {"train": 0.6, "validation": 0.2, "test": 0.2}


def test_no_patient_stands_on_two_sides_and_none_is_lost():
    parts = split(CASES, PARTS, seed=0)
    patients = {name: {patient_of(case) for case in cases} for name, cases in parts.items()}
    assert {name: len(found) for name, found in patients.items()} == {"train": 12, "validation": 4, "test": 4}
    assert len(set.union(*patients.values())) == 20
    assert sorted(case for cases in parts.values() for case in cases) == CASES


def test_the_order_of_the_cases_does_not_matter_and_the_seed_does():
    assert split(CASES, PARTS, seed=0) == split(CASES[::-1], PARTS, seed=0)
    assert split(CASES, PARTS, seed=0) != split(CASES, PARTS, seed=1)


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


@pytest.mark.parametrize("fractions", [{"train": 0.5, "test": 0.4}, {"train": 1.2, "test": -0.2}, {}])
def test_fractions_must_sum_to_one(fractions: dict[str, float]):
    with pytest.raises(InputError, match="sum to 1"):
        split(CASES, fractions, seed=0)


def test_too_few_patients_are_told():
    with pytest.raises(InputError, match="too few for a part 'test'"):
        split(["a", "b"], {"train": 0.9, "test": 0.1}, seed=0)


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
