from pathlib import Path

import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.store import read_json
from cardiosynth.data.splits import patient_of
from cardiosynth.evaluation.judge import Seen, agreement
from cardiosynth.evaluation.results import Estimate
from cardiosynth.experiments.slice_judge import (
    SEED,
    agreement_table,
    judged,
    main,
    over_real,
    train_extractor,
    train_judge,
)
from cardiosynth.segmentation.predict import Segmenter

from .slices import real_slices, synthetic_slices


def row(case: str, dice: float, reference: str | None = None) -> dict:
    return {"case": case, "reference": reference or case, "patient": case[:2], "dice": {"a": dice, "b": None}}


def test_agreement_is_over_that_of_real_slices_of_the_same_masks():
    real = [row("p0", 0.8), row("p1", 0.6)]
    assert over_real([row("s0", 0.4, "p0"), row("s1", 0.4, "p0")], real) == pytest.approx(0.5)
    assert over_real([row("s0", 0.35, "p9")], real) == pytest.approx(0.5), "no test mask: beside all of them"
    table = agreement_table(real, {"made": [row("s0", 0.4, "p0")]})
    assert [cells[:2] for cells in table.rows] == [("real test slices", 2), ("made", 1)]
    assert table.rows[1][2] == Estimate(value=0.4, low=0.4, high=0.4)
    assert table.rows[1][3:] == (table.rows[1][2], None, pytest.approx(0.5))


def test_each_patient_is_judged_by_the_segmenter_that_has_not_seen_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = real_slices(tmp_path / "real")
    judges = train_judge(tmp_path / "judge", data.root, "fqcdm/tiny", 1)
    seen = {}
    for half, judge in enumerate(judges):
        record = read_json(next((tmp_path / "judge" / f"fold-{half}").glob("*/step-*/record.json")))
        seen[judge.fingerprint] = {patient_of(name) for name in record["cases"]}
    assert all(len(patients) == 2 and "p2" in patients for patients in seen.values())
    assert not set().union(*seen.values()) & {"p0", "p1"}, "the generator's patients"

    asked = []

    def noted(judge: Segmenter, case: Case) -> dict[str, Seen]:
        asked.append((judge.fingerprint, patient_of(case.provenance.get("parents", [case.case_id])[0])))
        return agreement(judge, case)

    monkeypatch.setattr("cardiosynth.experiments.slice_judge.agreement", noted)
    test, made = data.part("test"), synthetic_slices(tmp_path / "made", "p3", 2)
    rows = [*judged(judges, test, test), *judged(judges, test, made)]
    assert [row["patient"] for row in rows] == [patient for _, patient in asked] == ["p3"] * 3 + ["p4"] * 3 + ["p3"] * 2
    assert not any(patient in seen[judge] for judge, patient in asked)
    with pytest.raises(InputError, match="took part in making synthetic-0"):
        judged(judges, test, synthetic_slices(tmp_path / "own", "p3", 2, screen=judges[0].fingerprint))


def test_the_command_goes_on_and_takes_further_datasets(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    real_slices(tmp_path / "real")
    synthetic_slices(tmp_path / "made", "p3", 2)
    arguments = {"data": tmp_path / "real", "recipe": "fqcdm/tiny", "steps": 1}
    main(tmp_path / "out", **arguments)
    first = (tmp_path / "out" / "agreement" / "real-test-slices.json").stat().st_mtime_ns
    main(tmp_path / "out", synthetic=[tmp_path / "made"], **arguments)
    assert (tmp_path / "out" / "agreement" / "real-test-slices.json").stat().st_mtime_ns == first
    assert "| made | 2 |" in capsys.readouterr().out
    assert SEED not in (0, 1, 2)


def test_features_are_those_of_validation_patients_alone(tmp_path: Path):
    data = real_slices(tmp_path / "real")
    seer = train_extractor(tmp_path / "features", data.root, "fqcdm/tiny", 1)
    record = read_json(next((tmp_path / "features").glob("*/step-*/record.json")))
    assert {patient_of(name) for name in record["cases"]} == {"p2"}
    assert record["fingerprint"] == seer.fingerprint
