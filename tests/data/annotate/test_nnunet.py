"""nnU-Net as a provider: the real one with random weights (slow), and stand-ins of the child for what can go wrong."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.data.annotate import nnunet, nnunet_child
from cardiosynth.data.annotate.plan import AnnotationPlan, NnunetSettings
from cardiosynth.data.annotate.run import annotate, plan_annotation
from cardiosynth.data.dataset import Dataset, read_dataset, write_dataset
from cardiosynth.data.formats.files import read_mask

SHAPE = (30, 28, 26)
AFFINE = np.array([[-1.5, 0, 0, 20], [0, 1.5, 0, -21], [0, 0, 2.0, -26], [0, 0, 0, 1]])
LABELS = {"background": 0, "LV": 1, "left atrium": 2, "vessel": 3}

CHILD = """
import json, pathlib, sys
asked = json.loads(pathlib.Path(sys.argv[1]).read_text())
print("loading")
if asked["folds"] == ["3"]:
    sys.exit("no such architecture")
for name, (image, mask) in asked["cases"].items():
    print('@cardiosynth {{"begun": "' + name + '"}}', flush=True)
    if name == "c0":
        sys.exit("Killed")
    if name == "c1":
        print('@cardiosynth {{"failed": "c1", "why": "ValueError: odd"}}', flush=True)
        continue
    pathlib.Path(mask).write_bytes(pathlib.Path({answer!r}).read_bytes())
    print('@cardiosynth {{"done": "' + name + '"}}', flush=True)
"""


@pytest.fixture
def scans(tmp_path: Path) -> Dataset:
    """A bright ball in noise, five times."""
    distance = np.linalg.norm(np.indices(SHAPE) - np.reshape([15, 14, 13], (3, 1, 1, 1)), axis=0)
    noise = np.random.default_rng(0).normal(0, 60, (5, *SHAPE))
    images = (np.where(distance < 8, 300, -50) + noise).astype(np.int16)[:, None]
    cases = (Case(case_id=f"c{i}", image=image, affine=AFFINE) for i, image in enumerate(images))
    return write_dataset(cases, tmp_path / "scans")


def settings(model: Path, **changes) -> AnnotationPlan:
    provider = NnunetSettings(model=model, device="cpu", rename={"LV": "left_ventricle"}, drop=("vessel",), **changes)
    return AnnotationPlan(providers=(provider,))


@pytest.mark.slow
def test_a_random_nnunet_gives_what_nnunet_itself_gives(scans: Dataset, tmp_path: Path):
    pytest.importorskip("nnunetv2", reason="needs the extra nnunet: pip install 'cardiosynth[nnunet]'")
    script, theirs = Path(__file__).with_name("random_nnunet.py"), tmp_path / "theirs.nii.gz"
    scan = scans.subset(["c3"])
    words = [sys.executable, str(script), str(tmp_path / "results"), str(scan.file("image", "c3")), str(theirs)]
    subprocess.run(words, check=True, capture_output=True)
    model = tmp_path / "results" / "Dataset901_Toy" / "nnUNetTrainer__plans__3d_fullres"

    ours = annotate(plan_annotation(scan, settings(model)), tmp_path / "out", "made").case("c3")
    wanted = read_mask(theirs).array
    assert {0, 1, 3} <= set(np.unique(wanted)), "what is renamed and what is dropped is there"
    mask = ours.required_mask()
    np.testing.assert_array_equal(mask == ours.labels.named("left_ventricle").code, wanted == 1)
    np.testing.assert_array_equal(mask == ours.labels.named("left_atrium").code, wanted == 2)
    np.testing.assert_array_equal(mask == 0, np.isin(wanted, [0, 3]))
    provider = read_dataset(tmp_path / "out").description.facts["annotation"]["providers"]["dataset901_toy"]
    assert provider["model"] == "Dataset901_Toy/nnUNetTrainer__plans__3d_fullres"
    assert provider["version"].startswith("2.")


@pytest.fixture
def model(scans: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder, and a child that only copies: it dies at c0 and fails at c1."""
    folder = tmp_path / "Dataset001_Heart" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    for fold in (0, 3, "all"):
        (folder / f"fold_{fold}").mkdir(parents=True)
        (folder / f"fold_{fold}" / "checkpoint_final.pth").write_text(f"weights {fold}")
    (folder / "plans.json").write_text("{}")
    about = {"channel_names": {"0": "CT"}, "labels": LABELS, "file_ending": ".nii.gz", "licence": "CC BY 4.0"}
    (folder / "dataset.json").write_text(json.dumps(about))
    answer = Case(case_id="x", image=None, affine=AFFINE, mask=np.ones((1, *SHAPE), np.uint8))
    write_dataset([answer], tmp_path / "answer")
    child = tmp_path / "child.py"
    child.write_text(CHILD.format(answer=str(tmp_path / "answer" / "labelsTr" / "x.nii.gz")))
    monkeypatch.setattr(nnunet_child, "__file__", str(child))
    monkeypatch.setattr(nnunet, "VERSIONS", "print('2.8.1')")
    return folder


def test_a_case_that_kills_the_child_does_not_take_the_others_along(scans: Dataset, model: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"2 cases got no mask: c0: .*: loading / Killed;.* c1: ValueError"):
        annotate(plan_annotation(scans, settings(model, folds=(0,))), tmp_path / "out", "made")
    made = read_dataset(tmp_path / "out")
    assert made.case_ids == ("c2", "c3", "c4")
    assert made.case("c4").provenance["licence"] == "CC BY 4.0"
    assert [label.name for label in made.labels] == ["left_atrium", "left_ventricle"]


def test_a_model_that_cannot_be_loaded_ends_the_run(scans: Dataset, model: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"ended with exit code 1; its last words .*: loading / no such architecture"):
        annotate(plan_annotation(scans, settings(model, folds=(3,))), tmp_path / "out", "made")


def test_numbered_folds_vote_and_other_weights_are_another_plan(scans: Dataset, model: Path):
    annotation = plan_annotation(scans, settings(model))
    assert annotation.facts["providers"]["dataset001_heart"]["folds"] == ["0", "3"]
    (model / "fold_3" / "checkpoint_final.pth").write_text("trained longer")
    assert plan_annotation(scans, settings(model)).facts != annotation.facts
    assert plan_annotation(scans, settings(model, folds=("all",))).facts["providers"]["dataset001_heart"]["folds"] == [
        "all"
    ]


@pytest.mark.parametrize(
    ("break_it", "part"),
    [
        (lambda model: (model / "plans.json").unlink(), "is no trained nnU-Net; give the folder TRAINER__PLANS"),
        (
            lambda model: (model / "fold_0" / "checkpoint_final.pth").unlink(),
            "fold_0/checkpoint_final.pth does not exist",
        ),
        (lambda model: (model / "dataset.json").write_text('{"labels": {"a": [1, 2]}}'), "region of several codes"),
        (
            lambda model: (model / "dataset.json").write_text('{"channel_names": {"0": "MRI"}, "labels": {"LV": 1}}'),
            "was trained on 'mr', the images are in 'hu'",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_refused(scans: Dataset, model: Path, break_it, part: str):
    break_it(model)
    with pytest.raises(InputError, match=part):
        plan_annotation(scans, settings(model, folds=(0,)))


def test_a_cascade_and_a_python_without_nnunet_are_refused(
    scans: Dataset, model: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(nnunet, "VERSIONS", "import nnunetv2_that_nobody_has")
    with pytest.raises(InputError, match=r"cannot run nnU-Net .*; install it there"):
        plan_annotation(scans, settings(model))
    with pytest.raises(InputError, match="second stage of a cascade"):
        plan_annotation(
            scans, settings(model.rename(model.with_name("nnUNetTrainer__nnUNetPlans__3d_cascade_fullres")))
        )


def test_the_child_stands_alone():
    """It runs in a Python that may lack cardiosynth, so it imports nothing of it."""
    assert "import cardiosynth" not in Path(nnunet_child.__file__).read_text(encoding="utf-8")
    assert "from cardiosynth" not in Path(nnunet_child.__file__).read_text(encoding="utf-8")
