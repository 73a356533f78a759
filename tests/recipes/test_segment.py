"""The whole way from datasets to a tested segmenter, with a network of a few weights."""

import csv
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from segmentation.cases import SCALE, case, stage

from cardiosynth.cli import main
from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import label_table
from cardiosynth.core.store import write_json
from cardiosynth.data.dataset import read_dataset, write_dataset
from cardiosynth.evaluation.results import read_results
from cardiosynth.recipes import segment as steps
from cardiosynth.recipes.backends import MedsamSegmenter, NnunetSegmenter, OwnSegmenter
from cardiosynth.recipes.segment import Segmentation, in_words, preview, segment
from cardiosynth.segmentation import predictions
from cardiosynth.segmentation.medsam.chain import MedsamTraining
from cardiosynth.segmentation.nnunet.settings import NnunetTraining
from cardiosynth.training import loop

from . import killed

SYNTHETIC = label_table({"hollow": 1, "shell": 2, "bone": 5})
"""The boxes under other names and codes, and a structure that real cases lack."""


def synthetic(index: int) -> Case:
    real = case(index)
    codes = np.zeros(256, np.uint8)
    codes[[3, 7, 40]] = 1, 2, 5
    confidence = np.full(real.required_mask().shape, 0.6, np.float32)
    return real.with_(
        case_id=f"made-{index}", mask=codes[real.required_mask()], labels=SYNTHETIC, confidence=confidence,
        origin="synthetic",
    )  # fmt: skip


def backend(**changes: Any) -> OwnSegmenter:
    training = stage().training.model_copy(update={"steps": 4, "warmup_steps": 0, "checkpoint_every": 1})
    return OwnSegmenter(
        **{
            "segmenter": stage(training=training), "intensity": SCALE, "pretrain_share": 0.5,
            "finetune_learning_rate": 1e-3,
        } | changes
    )  # fmt: skip


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> Segmentation:
    folder = tmp_path_factory.mktemp("data")
    write_dataset((synthetic(i) for i in range(2)), folder / "synthetic")
    write_dataset((case(i) for i in range(2, 6)), folder / "real")
    write_dataset((case(i) for i in range(6, 8)), folder / "test")
    return Segmentation(
        kind="own", backend=backend(), out=folder / "run", test=folder / "test", pretrain=folder / "synthetic",
        finetune=folder / "real", names={"hollow": "chamber", "shell": "wall"}, radius_mm=2.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(request_: Segmentation) -> Segmentation:
    segment(request_)
    return request_


def test_results_hold_every_measure_of_every_structure_and_case(done: Segmentation):
    results = read_results(done.out / "results.json")
    for table in results.tables:
        titles = {column.title for column in table.columns}
        assert titles >= {"Dice", "RDice, literal", "RDice, symmetric", "clDice", "HD95"}
        assert "radius of 2 mm" in table.protocol
    assert [row[0] for row in results.tables[0].rows] == ["chamber", "wall", "mean over structures"]
    assert [row[:2] for row in results.tables[1].rows] == [
        (f"box-{i}", name) for i in (6, 7) for name in ("chamber", "wall")
    ]
    assert results.summary == "Pre-train: 2 steps on 2 cases. Fine-tune: 2 steps on 4 cases."
    assert results.stages[0].command.startswith("cardiosynth segment own --pretrain")
    with (done.out / "cases.csv").open() as file:
        assert [row["structure"] for row in csv.DictReader(file)] == ["chamber", "wall"] * 2


def test_both_stages_learn_the_real_cases_structures(done: Segmentation):
    for part in ("pre-trained", "fine-tuned"):
        (checkpoint,) = list((done.out / part / "segmenter").glob("step-0000002"))
        assert '"chamber"' in (checkpoint / "record.json").read_text()
    found = read_dataset(done.out / "predictions")
    assert found.case_ids == ("box-6", "box-7")
    assert {label.name: label.code for label in found.labels} == {"chamber": 3, "wall": 7}
    assert found[0].image is None


def interrupted(patch: pytest.MonkeyPatch, place: Any, name: str, due: Callable[..., object]) -> None:
    """Let a function be interrupted once for every different thing that ``due`` returns of its arguments."""
    whole = getattr(place, name)
    seen: set[object] = {None}

    def maybe(*args: Any, **kwargs: Any) -> Any:
        moment = due(*args, **kwargs)
        if moment not in seen:
            seen.add(moment)
            raise KeyboardInterrupt
        return whole(*args, **kwargs)

    patch.setattr(place, name, maybe)


def test_interrupted_anywhere_it_comes_to_the_same_end(
    done: Segmentation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # The learning rate tells the two stages apart.
    interrupted(monkeypatch, loop, "take_step", lambda state, _, __, settings, *___: (
        settings.learning_rate if state.step == 1 else None
    ))  # fmt: skip
    interrupted(monkeypatch, predictions, "predict_ensemble", lambda _, one, __: one.case_id == "box-7" or None)
    interrupted(monkeypatch, steps, "judge", lambda *_: "judge")
    interrupted(monkeypatch, steps, "write_results", lambda *_: "write")
    again = replace(done, out=tmp_path / "run")
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            segment(again)
        assert not (again.out / "results.json").exists()
    segment(again)
    for file in (
        "cases.csv",
        *(f"{part}/segmenter/step-0000002/model.safetensors" for part in ("pre-trained", "fine-tuned")),
    ):
        assert (again.out / file).read_bytes() == (done.out / file).read_bytes(), file
    broken, whole = (read_results(one.out / "results.json") for one in (again, done))
    assert (broken.tables, broken.figures) == (whole.tables, whole.figures)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"radius_mm": 3.0}, "rdice_radius_mm = 2.0, not 3.0"),
        ({"pretrain": None, "names": {}}, "plan.0 = pre-train: 2 steps on 2 cases, not train: 4 steps"),
        ({"backend": backend(pretrain_share=0.75)}, "plan.0 = pre-train: 2 steps on 2 cases, not pre-train: 3"),
        ({"backend": backend(finetune_learning_rate=0.1)}, "settings.finetune_learning_rate = 0.001, not 0.1"),
        ({"names": {"hollow": "chamber", "shell": "wall", "bone": "wall"}}, "map.bone = background, not wall"),
    ],
)
def test_a_changed_command_is_refused_by_name(done: Segmentation, changes: dict[str, Any], words: str):
    before = (done.out / "results.json").read_bytes()
    with pytest.raises(InputError, match=f"was begun with .*{words}"):
        segment(replace(done, **changes))
    assert (done.out / "results.json").read_bytes() == before


def test_a_folder_that_holds_something_else_is_left_alone(done: Segmentation):
    with pytest.raises(InputError, match="is not empty and was not made by this command"):
        segment(replace(done, out=done.test))


def test_real_cases_alone_and_synthetic_ones_alone(request_: Segmentation, tmp_path: Path):
    only_real = replace(request_, pretrain=None, names={}, out=tmp_path / "real", backend=backend(folds=2))
    segment(only_real)
    assert sorted(path.name for path in (tmp_path / "real" / "fine-tuned").iterdir()) == ["fold-0", "fold-1"]
    assert read_results(tmp_path / "real" / "results.json").summary == (
        "Train: 4 steps on 4 cases, 2 times without a fold."
    )
    with pytest.raises(InputError, match="there is nothing to train on; give --pretrain"):
        segment(replace(only_real, finetune=None))


def test_test_cases_that_are_trained_on_are_refused(request_: Segmentation, tmp_path: Path):
    with pytest.raises(InputError, match=r"box-2 of .* is both trained on and tested"):
        segment(replace(request_, test=request_.finetune, out=tmp_path / "run"))
    write_dataset([case(8).with_(mask=None)], tmp_path / "bare")
    with pytest.raises(InputError, match="--test needs both"):
        segment(replace(request_, test=tmp_path / "bare", out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_preview_tells_what_becomes_of_structures_and_writes_nothing(request_: Segmentation, tmp_path: Path):
    request = replace(request_, out=tmp_path / "run")
    before = sorted(request.test.parent.rglob("*"))
    found = preview(request, sample=1)
    assert not (tmp_path / "run").exists()
    assert sorted(request.test.parent.rglob("*")) == before
    assert found["labels"] == {"chamber": 3, "wall": 7}
    rows = {row["source"]: row for row in found["datasets"]["pretrain"]["structures"]}
    assert {name: row["target"] for name, row in rows.items()} == {"hollow": "chamber", "shell": "wall", "bone": None}
    assert rows["hollow"]["voxels"] == int((synthetic(0).required_mask() == 1).sum())
    assert found["steps"] == [
        "pre-train: 2 steps on 2 cases", "fine-tune: 2 steps on 4 cases", "predict and judge: 2 cases"
    ]  # fmt: skip
    words = in_words(found)
    assert "bone -> background: 1 cases" in words
    assert "2 cases; counted in 1 of them" in words
    assert found["hints"] == found["problems"] == []
    with pytest.raises(InputError, match="has no chamber, wall"):
        preview(replace(request, names={}))


def test_a_preview_hints_at_structures_that_nobody_drew(request_: Segmentation, tmp_path: Path):
    chambers = np.where(np.arange(256) == 3, 3, 0).astype(np.uint8)
    drawn = (one.with_(mask=chambers[one.required_mask()]) for one in (case(2), case(3)))
    write_dataset(drawn, tmp_path / "chambers")
    found = preview(replace(request_, finetune=tmp_path / "chambers"))
    (hint,) = found["hints"]
    assert "no case that was looked at shows wall; where none has it drawn, leave it out with --map wall=" in hint
    assert hint in in_words(found)


def test_the_command_in_the_results_goes_on_with_the_same_run(request_: Segmentation, tmp_path: Path):
    words = [
        "segment", "own", "--recipe", "fcas/tiny", "--finetune", str(request_.finetune), "--test", str(request_.test),
        "--out", str(tmp_path / "run"), "--set", "segmenter.crop=[8, 8, 8]", "--set", "segmenter.training.steps=3",
        "--map", "wall=null", "--no-confidence", "--rdice-mm", "2.5",
    ]  # fmt: skip
    main([*words, "--dry-run"])
    assert not (tmp_path / "run").exists()
    main(words)
    results = read_results(tmp_path / "run" / "results.json")
    assert [row[0] for row in results.tables[0].rows] == ["chamber", "mean over structures"]
    main(shlex.split(results.stages[0].command)[1:])
    assert read_results(tmp_path / "run" / "results.json") == results
    main(["report", str(tmp_path / "run" / "results.json"), "--out", str(tmp_path / "report.html")])
    assert "radius of 2.5 mm" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_medsam_says_whose_boxes_it_was_given(done: Segmentation, tmp_path: Path):
    pytest.importorskip("transformers", reason="needs the extra medsam")
    from segmentation.medsam.models import stage as tiny

    training = MedsamTraining(stage=tiny(), counted_in="steps", pretraining=2, finetuning=1)
    for name, prompts, words in (("truth", None, "as published"), ("own", done.out, str(done.out))):
        backend = MedsamSegmenter(medsam=training, prompts_of=prompts)
        results = read_results(segment(replace(done, kind="medsam", backend=backend, out=tmp_path / name)))
        assert words in results.tables[0].protocol
        assert results.summary == "Pre-train: 2 steps on 2 cases. Fine-tune: 1 step on 4 cases."
        assert len(read_dataset(tmp_path / name / "predictions")) == 2


@pytest.mark.slow
def test_nnunet_trains_on_mapped_cases_and_its_masks_are_judged(tmp_path: Path):
    pytest.importorskip("nnunetv2", reason="needs the extra nnunet")
    from segmentation.nnunet import tiny

    other = label_table({"chamber": 5, "shell": 4})
    swapped = np.array([0, 4, 5], np.uint8)
    cases = [tiny.case(i, confidence=True, case_id=f"made-{i}") for i in range(2)]
    write_dataset((one.with_(mask=swapped[one.required_mask()], labels=other) for one in cases), tmp_path / "made")
    write_dataset((tiny.case(i, confidence=False) for i in range(2, 4)), tmp_path / "real")
    write_dataset([tiny.case(4, confidence=False)], tmp_path / "test")
    write_json(tmp_path / "plans.json", tiny.plans("elsewhere"))
    training = NnunetTraining(
        plans=tmp_path / "plans.json", pretrain_epochs=1, finetune_epochs=1, iterations=2, validation_iterations=1,
        processes=1, augmentation_workers=0,
    )  # fmt: skip
    asked = Segmentation(
        kind="nnunet", backend=NnunetSegmenter(nnunet=training), out=tmp_path / "run", test=tmp_path / "test",
        pretrain=tmp_path / "made", finetune=tmp_path / "real", names={"shell": "wall"},
    )  # fmt: skip
    results = read_results(segment(asked))
    assert [row[0] for row in results.tables[0].rows] == ["wall", "chamber", "mean over structures"]
    assert results.summary == "Pre-train: 1 epoch on 2 cases. Fine-tune: 1 epoch on 2 cases, fold all."
    learned = read_dataset(tmp_path / "run/nnUNet_raw/Dataset002_synthetic").case("made-0")
    assert np.array_equal(learned.required_mask(), cases[0].required_mask())


@pytest.mark.slow
def test_kills_in_every_part_leave_no_trace(tmp_path: Path):
    for name, first in (("synthetic", 0), ("real", 2), ("test", 4)):
        write_dataset((case(i) for i in range(first, first + 2)), tmp_path / "data" / name)
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    command = [sys.executable, "-m", "tests.recipes.killed", str(tmp_path / "data"), str(broken)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stdout
    assert said.strip() == str([-signal.SIGKILL.value] * 6)
    segment(killed.request(tmp_path / "data", whole))
    weights = (f"{part}/segmenter/step-0000003/model.safetensors" for part in ("pre-trained", "fine-tuned"))
    for part in ("cases.csv", *weights):
        assert (broken / part).read_bytes() == (whole / part).read_bytes(), part
    ends = [read_results(run / "results.json") for run in (broken, whole)]
    assert (ends[0].tables, ends[0].figures) == (ends[1].tables, ends[1].figures)
    masks = [
        {path.name: path.read_bytes() for path in (run / "predictions/labelsTr").iterdir()} for run in (broken, whole)
    ]
    assert masks[0] == masks[1]
