"""The command line: what it loads, what it says, how it ends."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from cardiosynth.cli import main


class Ended(NamedTuple):
    code: int
    stdout: str
    stderr: str


def run(*words: str, cwd: Path = Path()) -> Ended:
    """Run one command in this process: importing everything anew takes seconds."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(cwd):
        try:
            main(list(words))
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())


def assert_one_sentence(result: Ended, *parts: str) -> None:
    assert result.code == 2, result.stderr
    for part in parts:
        assert part in result.stderr, result.stderr


@pytest.mark.parametrize(
    "words",
    [["--help"], ["train", "--help"], ["generate", "--help"], ["segment", "--help"], ["experiment"]],
)
def test_help_loads_neither_torch_nor_monai(words: list[str]):
    code = (
        "import sys\nfrom cardiosynth.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'monai', 'scipy', 'nibabel') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith("[]")


def test_as_a_process_it_ends_with_exit_code_2_and_no_traceback(tmp_path: Path):
    command = [sys.executable, "-m", "cardiosynth", "check", str(tmp_path / "nowhere")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert str(tmp_path / "nowhere") in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_misspelled_verb_is_answered_with_the_right_one():
    assert_one_sentence(run("genrate"), "generate")


def test_a_misspelled_option_is_answered_with_the_right_one(tmp_path: Path):
    assert_one_sentence(run("phantom", str(tmp_path / "x"), "--case", "2"), "--cases")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--cases", "0"], "at least 1"),
        (["--cases", "1", "--shape", "32", "32"], "three numbers"),
        (["--cases", "1", "--shape", "32", "32", "4"], "at least 8"),
    ],
)
def test_impossible_phantoms_are_refused(tmp_path: Path, words: list[str], part: str):
    assert_one_sentence(run("phantom", str(tmp_path / "x"), *words), part)
    assert not (tmp_path / "x").exists()


def test_a_missing_dataset_is_named(tmp_path: Path):
    missing = str(tmp_path / "nowhere")
    assert_one_sentence(run("check", missing), missing)
    assert_one_sentence(run("train", "autoencoder", missing, str(tmp_path / "run"), "--recipe", "fcas/tiny"), missing)
    assert not (tmp_path / "run").exists()


def test_check_ends_with_exit_code_2_where_something_must_be_mended(tmp_path: Path):
    from cardiosynth.core.case import Case
    from cardiosynth.data.dataset import write_dataset

    image = np.arange(8**3, dtype=np.int16).reshape(1, 8, 8, 8) - 100
    cases = [Case(case_id=name, image=image + i, affine=np.diag([8.0, 8, 8, 1])) for i, name in enumerate("ab")]
    write_dataset(cases, tmp_path / "data")
    ended = run("check", str(tmp_path / "data"), "--json", "--sheet", str(tmp_path / "sheet.html"))
    assert_one_sentence(ended, "1 of the findings must be mended")
    facts = json.loads(ended.stdout)
    assert [row["kind"] for row in facts["findings"] if row["level"] == "error"] == ["pairs"]
    assert len(facts["examined"]) == 2
    assert (tmp_path / "sheet.html").exists()
    assert_one_sentence(run("check", str(tmp_path / "data"), "--gpu-mem", "24"), "--recipe")


def test_a_wrong_setting_says_which_was_meant(tmp_path: Path):
    words = ["train", "autoencoder", str(tmp_path), str(tmp_path / "run"), "--recipe", "fcas/tiny", "--dry-run"]
    assert_one_sentence(run(*words, "--set", "autoencoder.trainning.steps=3"), "did you mean 'training'")
    assert_one_sentence(run(*words, "--set", "autoencoder.training.steps=three"), "autoencoder.training.steps", "three")
    config = tmp_path / "mine.yaml"
    config.write_text("autoencoder: {training: {stpes: 3}}\n")
    assert_one_sentence(run(*words, "--config", str(config)), str(config), "did you mean 'steps'")


def test_a_setting_written_as_1e_minus_5_is_a_number(tmp_path: Path):
    words = ["train", "autoencoder", str(tmp_path), str(tmp_path / "run"), "--recipe", "fcas/tiny", "--dry-run"]
    result = run(*words, "--set", "autoencoder.training.learning_rate=1e-5")
    assert json.loads(result.stdout)["autoencoder"]["training"]["learning_rate"] == 1e-5
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["train", "autoencodr", "d", "r"], "did you mean 'autoencoder'"),
        (["train", "autoencoder", "d", "r", "--recipe", "fcas/tyni"], "did you mean 'fcas/tiny'"),
        (["train", "autoencoder", "d", "r"], "--recipe"),
        (["prepare", "acdcc", "a", "b", "--recipe", "fcas/tiny"], "did you mean 'acdc'"),
        (["prepare", "acdc", "a", "b"], "--shape"),
        (["export", "nnunt", "d", "o"], "did you mean 'nnunet'"),
        (["export", "dicom", "none", "o"], "none does not exist"),
        (["generate", "r", "o", "--templates", "t", "--cases", "2", "--shard", "2/2"], "0/4"),
        (["report", "none.json", "--out", "x.html"], "none.json"),
        (["segment", "nnunt", "--test", "t", "--out", "o"], "did you mean 'nnunet'"),
        (["segment", "own", "--test", "t", "--out", "o"], "--recipe fcas/demo"),
        (["segment", "nnunet", "--recipe", "fcas/tiny", "--test", "t", "--out", "o"], "leave it out for nnunet"),
        (["segment", "nnunet", "--test", "t", "--out", "o"], "give --pretrain, --finetune, or both"),
        (["segment", "nnunet", "--test", "t", "--out", "o", "--rdice-mm", "0"], "--rdice-mm 0"),
        (["segment", "medsam", "--test", "t", "--out", "o", "--folds", "2"], "leave the folds out"),
        (["segment", "medsam", "--test", "t", "--out", "o", "--pretrain-share", "1"], "leaves a stage empty"),
        (["doctor", "--recipe", "fcas/tiny", "--gpu-mem", "0"], "--gpu-mem 0"),
        (["experiment", "mask", "o"], "did you mean 'masks'"),
        (["experiment", "masks"], "cardiosynth experiment masks OUT"),
        (["experiment", "masks", "o", "--scale", "tinny"], "did you mean 'tiny'"),
        (["experiment", "masks", "o", "--scale", "tiny", "--seeds", "2"], "does not take --seeds"),
        (["experiment", "fcas-table2", "o", "--scale", "paper"], "make it by cardiosynth prepare mmwhs_ct"),
        (["experiment", "fcas-table2", "o", "--data", "real"], "fcas-table2: real cases need a generator"),
        (["doctor", "--recipe", "fcas/tiny", "--gpu-tflops", "-1"], "--gpu-tflops -1"),
    ],
)
def test_wrong_words_end_with_one_sentence(tmp_path: Path, words: list[str], part: str):
    assert_one_sentence(run(*words, cwd=tmp_path), part)
    assert not list(tmp_path.iterdir())


def test_doctor_counts_the_parameters_of_a_recipe():
    facts = json.loads(run("doctor", "--recipe", "fcas/tiny", "--json").stdout)
    assert facts["recipe"]["name"] == "fcas/tiny"
    assert all(stage["parameters"] > 0 for stage in facts["recipe"]["training"].values())
