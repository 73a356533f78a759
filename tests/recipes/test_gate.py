"""Nothing is trained on the latents of an autoencoder that keeps too little, unless the user says so."""

import shutil
from pathlib import Path

import pytest

from cardiosynth.autoencoder.task import train_autoencoder
from cardiosynth.autoencoder.verdict import ContrastThreshold, VerdictThresholds, read_verdict
from cardiosynth.cli import main
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.store import read_json, write_json
from cardiosynth.data.dataset import Dataset, write_dataset
from cardiosynth.data.sources.phantom.source import phantoms
from cardiosynth.recipes.registry import RECIPE, find_recipe
from cardiosynth.recipes.stages import Earlier, pass_gate, train_stage

TOO_MUCH = VerdictThresholds(psnr_heart_db=99.0, contrast=(ContrastThreshold(name="Left ventricle", kept=5.0),))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(phantoms(3, (32, 32, 32)), tmp_path_factory.mktemp("gate") / "data")


@pytest.fixture(scope="module")
def trained(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained")
    train_autoencoder(data, run, find_recipe("fcas/tiny").autoencoder, IntensityScale())
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_too_little_stops_with_numbers_thresholds_and_mends(data: Dataset, run: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(InputError) as stopped:
        pass_gate(run, data, TOO_MUCH, False, "cpu")
    found = read_json(run / "autoencoder" / "verdict.json")
    for part in (
        f"{found['psnr_heart_db']:.1f} dB in the heart (99 wanted)",
        f"keeps {found['contrast_kept']['left_ventricle']:.2f} of its contrast (5 wanted)",
        "finer voxels", "compression=2", "thin_weight", "--accept-verdict",
    ):  # fmt: skip
        assert part in str(stopped.value)
    said = capsys.readouterr().err
    assert f"3 cases of its training: PSNR {found['psnr_db']:.1f} dB" in said
    assert "left_ventricle" in said


def test_enough_or_accepted_passes(data: Dataset, run: Path):
    pass_gate(run, data, VerdictThresholds(psnr_db=0.0), False, "cpu")
    pass_gate(run, data, TOO_MUCH, True, "cpu")


def test_what_the_verdict_cannot_tell_is_passed_over(data: Dataset, run: Path):
    wanted = VerdictThresholds(psnr_heart_db=99.0, contrast=(ContrastThreshold(name="appendix", kept=0.9),))
    file = run / "autoencoder" / "verdict.json"
    write_json(file, read_json(file) | {"psnr_heart_db": None})
    pass_gate(run, data, wanted, False, "cpu")


def test_weights_without_a_verdict_are_judged_on_the_dataset_at_hand(data: Dataset, run: Path, capsys):
    file = run / "autoencoder" / "verdict.json"
    before = read_json(file)
    file.unlink()
    pass_gate(run, data, VerdictThresholds(), False, "cpu")
    assert read_json(file) == before | {"held_out": None}
    assert "3 cases of this dataset" in capsys.readouterr().err


def test_a_verdict_on_other_weights_does_not_count(data: Dataset, run: Path):
    file = run / "autoencoder" / "verdict.json"
    write_json(file, read_json(file) | {"fingerprint": "other", "psnr_db": 99.0})
    assert read_verdict(run, data)["psnr_db"] < 99


def test_a_stage_is_refused_before_anything_is_written(data: Dataset, run: Path):
    recipe = find_recipe("fcas/tiny").model_copy(update={"gate": TOO_MUCH})
    for stage in ("diffusion", "control"):
        with pytest.raises(InputError, match="wanted"):
            train_stage(stage, data.root, run, recipe, Earlier(), "cpu")
    assert sorted(path.name for path in run.iterdir()) == ["autoencoder"]
    assert not (run / RECIPE).exists()


@pytest.mark.slow
def test_the_command_line_can_accept_the_verdict(data: Dataset, run: Path, capsys: pytest.CaptureFixture):
    words = ["train", "diffusion", str(data.root), str(run), "--recipe", "fcas/tiny"]
    words += ["--set", "gate.contrast=[{name: left_ventricle, kept: 5}]"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "left_ventricle keeps" in capsys.readouterr().err
    main([*words, "--accept-verdict"])
    assert (run / "diffusion" / "step-0000004").is_dir()
