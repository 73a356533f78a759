import math
from pathlib import Path

import numpy as np
import pydantic

from cardiosynth.evaluation.kept import Kept
from cardiosynth.evaluation.measures import CaseMeasures, StructureMeasures
from cardiosynth.evaluation.suite import OF_SYNTHETIC

NUMBER = pydantic.TypeAdapter(float)


def never():
    raise AssertionError("it is there already")


def test_what_is_there_is_not_measured_again(tmp_path: Path):
    first = Kept(tmp_path / "parts", {})
    assert first.value(NUMBER, "a", lambda: 0.25) == 0.25
    assert math.isnan(first.value(NUMBER, "b", lambda: math.nan))
    assert first.arrays("c", lambda: {"x": np.arange(3)})["x"].tolist() == [0, 1, 2]
    again = Kept(tmp_path / "parts", {})
    assert again.value(NUMBER, "a", never) == 0.25
    assert math.isnan(again.value(NUMBER, "b", never))
    assert again.arrays("c", never)["x"].tolist() == [0, 1, 2]


def test_measurements_of_a_case_come_back_as_they_were(tmp_path: Path):
    structures = {"left_ventricle": StructureMeasures(pieces=1, largest=1.0)}
    measured = (CaseMeasures("s0", structures, steps=(1.0, 2.0)), None)
    Kept(tmp_path, {}).value(OF_SYNTHETIC, "s0", lambda: measured)
    assert repr(Kept(tmp_path, {}).value(OF_SYNTHETIC, "s0", never)) == repr(measured)


def test_nothing_is_kept_without_a_folder():
    kept = Kept(None, {})
    assert [kept.value(NUMBER, "a", lambda n=n: float(n)) for n in (1, 2)] == [1, 2]


def test_the_name_changes_with_the_protocol_and_the_files(real):
    name = Kept(None, {"seed": 0}).key("case", real, "r0")
    assert name == Kept(None, {"seed": 0}).key("case", real, "r0")
    others = [
        Kept(None, {"seed": 1}).key("case", real, "r0"),
        Kept(None, {"seed": 0}).key("pair", real, "r0"),
        Kept(None, {"seed": 0}).key("case", real, "r1"),
        Kept(None, {"seed": 0}).key("case", real, "r0", beside="x"),
    ]
    real.rows["r0"]["files"]["imagesTr/r0_0000.nii.gz"] = "another hash"
    others.append(Kept(None, {"seed": 0}).key("case", real, "r0"))
    assert len({name, *others}) == 6
