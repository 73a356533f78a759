"""TotalSegmentator is not installed here: a stand-in takes its arguments, reads its environment, writes its file."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension, Nifti1Image

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.data.annotate.plan import AnnotationPlan, TotalSegmentatorSettings
from cardiosynth.data.annotate.run import annotate, plan_annotation
from cardiosynth.data.annotate.structures import GROUPS, OTHERS, TASKS
from cardiosynth.data.dataset import Dataset, read_dataset, write_dataset
from cardiosynth.data.formats.nifti import write_nifti

SHAPE, AFFINE = (8, 7, 6), np.diag([1.0, 1.0, 2.0, 1.0])
LICENCE = "aca_0123456789ABCD"

STAND_IN = """#!{python} -IS
import json, os, pathlib, shutil, sys
place = pathlib.Path({place!r})
if "--version" in sys.argv:
    print("2.18.0")
    sys.exit()
words = sys.argv[1:]
home = pathlib.Path(os.environ["TOTALSEG_HOME_DIR"])
told = {{"words": words, "home": str(home), "weights": os.environ["TOTALSEG_WEIGHTS_PATH"]}}
told["config"] = json.loads((home / "config.json").read_text())
with (place / "calls.jsonl").open("a") as file:
    file.write(json.dumps(told) + "\\n")
options = {{word: words[words.index(word) + 1] for word in ("-i", "-o", "-ta")}}
name = pathlib.Path(options["-i"]).name
if (place / "broken").exists() and (place / "broken").read_text() in name:
    print("RuntimeError: out of memory")
    sys.exit(1)
shutil.copy(place / (options["-ta"] + ".nii.gz"), options["-o"])
"""


def write_answer(place: Path, name: str, **found: tuple[int, int]) -> None:
    """What TotalSegmentator writes for a task: codes by its own numbering, which the header explains."""
    structures = [*TASKS[name].names, *TASKS[name].others]
    codes = {structure: len(structures) - index for index, structure in enumerate(structures)}
    mask = np.zeros(SHAPE, np.uint8)
    for structure, (first, last) in found.items():
        mask[first:last] = codes[structure]
    lines = "".join(f'<Label Key="{code}"><![CDATA[{structure}]]></Label>\n' for structure, code in codes.items())
    table = f'<?xml version="1.0"?> <CaretExtension><LabelTable>{lines}</LabelTable></CaretExtension>\n    '
    image = Nifti1Image(mask, AFFINE)
    image.header.extensions.append(Nifti1Extension(0, table.encode()))
    image.to_filename(place / f"{name}.nii.gz")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with the stand-in, and a home with weights and a licence."""
    place = tmp_path / "stand-in"
    place.mkdir()
    environment = tmp_path / "environment" / "bin"
    environment.mkdir(parents=True)
    program = environment / "TotalSegmentator"
    program.write_text(STAND_IN.format(python=sys.executable, place=str(place)))
    program.chmod(0o755)
    write_answer(place, "total", heart=(1, 7), aorta=(6, 8), rib_left_7=(0, 1))
    write_answer(place, "heartchambers_highres", heart_ventricle_left=(2, 5))
    write_answer(place, "coronary_arteries", coronary_arteries=(4, 5))
    home = tmp_path / "home"
    for task in TASKS.values():
        for folder in (*task.weights, *task.fast):
            weights = home / "nnunet" / "results" / folder / "nnUNetTrainer__nnUNetPlans__3d_fullres" / "fold_0"
            weights.mkdir(parents=True, exist_ok=True)
            (weights / "checkpoint_final.pth").touch()
    user = {"totalseg_id": "me", "send_usage_stats": True, "license_number": LICENCE}
    (home / "config.json").write_text(json.dumps(user))
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(home))
    return place


@pytest.fixture
def scans(tmp_path: Path) -> Dataset:
    images = np.random.default_rng(0).integers(-900, 900, (3, 1, *SHAPE)).astype(np.int16)
    return write_dataset((Case(case_id=f"c{i}", image=x, affine=AFFINE) for i, x in enumerate(images)), tmp_path / "in")


def task(place: Path, name: str, **changes) -> TotalSegmentatorSettings:
    python = place.parent / "environment" / "bin" / "python"
    return TotalSegmentatorSettings(**{"task": name, "python": python, "device": "cuda:1", **changes})


def made(scans: Dataset, out: Path, *providers: TotalSegmentatorSettings, **changes) -> Dataset:
    return annotate(plan_annotation(scans, AnnotationPlan(providers=providers, **changes)), out, "made")


def calls(place: Path) -> list[dict]:
    return [json.loads(line) for line in (place / "calls.jsonl").read_text().splitlines()]


def test_three_tasks_make_one_mask_without_statistics_or_touching_the_users_home(
    place: Path, scans: Dataset, tmp_path: Path
):
    before = (tmp_path / "home" / "config.json").read_text()
    providers = [task(place, name) for name in ("coronary_arteries", "heartchambers_highres", "total")]
    case = made(scans, tmp_path / "out", *providers).case("c1")
    called = {0: "-", **{label.code: label.name for label in case.labels}}
    ventricle = "left_ventricle"
    wanted = ["ribs_and_sternum", "heart", ventricle, ventricle, "coronary_artery", "heart", "aorta", "aorta"]
    assert [called[code] for code in case.required_mask()[0, :, 0, 0].tolist()] == wanted
    roles = {label.name: label.role for label in case.labels}
    assert roles["heart"] == roles["lung"] == "surrounding"
    assert roles["aorta"] == roles["left_atrium"] == "target"
    assert "own licence" in case.provenance["licence"]
    assert LICENCE not in json.dumps(dict(case.provenance))

    assert (tmp_path / "home" / "config.json").read_text() == before
    told = calls(place)
    assert len(told) == 9
    for call in told:
        assert call["config"]["send_usage_stats"] is False
        assert call["config"]["license_number"] == LICENCE
        assert call["weights"] == str(tmp_path / "home" / "nnunet" / "results")
        assert call["words"][-2:] == ["-d", "gpu:1"]
        assert not Path(call["home"]).exists(), "the licence number does not stay in a temporary folder"
    assert "TOTALSEG_WEIGHTS_PATH" not in os.environ


def test_a_failed_case_is_told_and_what_was_given_is_not_made_again(place: Path, scans: Dataset, tmp_path: Path):
    (place / "broken").write_text("c1_")
    with pytest.raises(
        InputError, match=r"1 case got no mask: c1: TotalSegmentator ended with exit code 1.*out of memory"
    ):
        made(scans, tmp_path / "out", task(place, "total"))
    assert read_dataset(tmp_path / "out").case_ids == ("c0", "c2")
    (place / "broken").unlink()
    assert len(made(scans, tmp_path / "out", task(place, "total"))) == 3
    inputs = [Path(call["words"][1]).name[:2] for call in calls(place)]
    assert inputs == ["c0", "c1", "c2", "c1"]


def test_what_it_gave_is_kept_when_asked_for_and_taken_up_after_a_kill(place: Path, scans: Dataset, tmp_path: Path):
    made(scans, tmp_path / "first", task(place, "total"), keep=True)
    given = tmp_path / "first" / "given"
    assert {path.name for path in (given / "total").iterdir()} >= {"labels.json", "c0.nii.gz", "log.txt"}
    # As if the run had been killed after the program and before the merging.
    (tmp_path / "second").mkdir()
    given.rename(tmp_path / "second" / "given")
    again = made(scans, tmp_path / "second", task(place, "total"))
    assert len(calls(place)) == 3, "nothing was segmented again"
    np.testing.assert_array_equal(again.case("c0").mask, read_dataset(tmp_path / "first").case("c0").mask)
    # Of another task's settings nothing is taken up.
    made(scans, tmp_path / "third", task(place, "total"), keep=True)
    (tmp_path / "third" / "given").rename(tmp_path / "given")
    (tmp_path / "fourth").mkdir()
    (tmp_path / "given").rename(tmp_path / "fourth" / "given")
    before = len(calls(place))
    made(scans, tmp_path / "fourth", task(place, "total", fast=True))
    assert len(calls(place)) == before + 3
    assert calls(place)[-1]["words"][-1] == "--fast"


def test_missing_weights_say_where_they_belong(place: Path, scans: Dataset, tmp_path: Path):
    name = TASKS["heartchambers_highres"].weights[1]
    (tmp_path / "home" / "nnunet" / "results" / name).rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=rf"results/{name} holds no weights .* -t total` and copy {name} there"):
        made(scans, tmp_path / "out", task(place, "heartchambers_highres"))
    with pytest.raises(InputError, match=r"elsewhere/nnunet/results/Dataset300.* -t body_fast`"):
        made(scans, tmp_path / "out", task(place, "body", fast=True, home=tmp_path / "elsewhere"))


def test_a_missing_licence_is_told_before_anything_runs(place: Path, scans: Dataset, tmp_path: Path):
    (tmp_path / "home" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"config.json holds no licence number of 18 characters.*totalseg_set_license"):
        made(scans, tmp_path / "out", task(place, "coronary_arteries"))
    assert len(made(scans, tmp_path / "out", task(place, "total"))) == 3, "the open task needs none"


def test_what_else_it_lacks(place: Path, scans: Dataset, tmp_path: Path):
    with pytest.raises(InputError, match=r"nowhere/TotalSegmentator does not exist; install"):
        made(scans, tmp_path / "out", task(place, "total", python=tmp_path / "nowhere" / "python"))
    with pytest.raises(InputError, match="heartchambers_highres has no fast models"):
        made(scans, tmp_path / "out", task(place, "heartchambers_highres", fast=True))
    with pytest.raises(InputError, match="did you mean 'sternum'"):
        made(scans, tmp_path / "out", task(place, "total", drop=("sternums",)))
    # Another version, with other names.
    (place / "heartchambers_highres.nii.gz").rename(place / "body.nii.gz")
    with pytest.raises(InputError, match=r"TotalSegmentator 2.18.0 gave no body_trunc, body_extremities for body"):
        made(scans, tmp_path / "out", task(place, "body"))
    write_nifti(place / "body.nii.gz", np.ones((1, *SHAPE), np.uint8), AFFINE)
    with pytest.raises(InputError, match="does not say what its codes mean"):
        made(scans, tmp_path / "out", task(place, "body"))


def test_magnetic_resonance_is_refused(place: Path, tmp_path: Path):
    image = np.random.default_rng(0).integers(0, 900, (1, *SHAPE)).astype(np.int16)
    scans = write_dataset([Case(case_id="a", image=image, affine=AFFINE, intensity_unit="mr")], tmp_path / "in")
    with pytest.raises(InputError, match="made for CT, the images are in 'mr'"):
        made(scans, tmp_path / "out", task(place, "total"))


def test_a_structure_left_out_by_default_can_be_asked_for(place: Path, scans: Dataset, tmp_path: Path):
    write_answer(place, "total", heart=(1, 3), atrial_appendage_left=(3, 4))
    settings = task(place, "total", rename={"atrial_appendage_left": "left_atrium", "aorta": "descending_aorta"})
    case = made(scans, tmp_path / "out", settings).case("c0")
    assert (case.required_mask()[0, 3] == case.labels.named("left_atrium").code).all()
    assert case.labels.named("descending_aorta").role == "surrounding"


def test_no_structure_of_total_is_named_twice():
    listed = [*OTHERS, *(structure for structures in GROUPS.values() for structure in structures)]
    assert len(listed) == len(set(listed))
    assert {"vertebrae_C1", "vertebrae_T12", "vertebrae_L5", "rib_right_12", "clavicula_left"} <= set(listed)
