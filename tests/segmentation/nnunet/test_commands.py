"""nnU-Net's own commands: those that are printed, our trainer in them, and a checkpoint of ours where we are not."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.store import read_json, write_json
from cardiosynth.core.torchvision_operators import declare_torchvision_operators
from cardiosynth.data.export.nnunet import export_nnunet
from cardiosynth.data.formats.files import read_mask
from cardiosynth.segmentation.nnunet import stages
from cardiosynth.segmentation.nnunet.commands import TRAINERS, commands
from cardiosynth.segmentation.nnunet.settings import NnunetTraining, Request
from cardiosynth.segmentation.nnunet.splits import own_splits
from tests.segmentation.nnunet import tiny

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # timm, which nnU-Net's search for trainers imports
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

SHORT_TRAINERS = """
from cardiosynth.segmentation.losses import ConfidenceWeights
from cardiosynth.segmentation.nnunet.schedule import Schedule
from cardiosynth.segmentation.nnunet.trainer import configured_trainer

SHORT = Schedule(epochs=1, iterations=2, validation_iterations=1)
nnUNetTrainerCAL_1epochs = configured_trainer(SHORT, ConfidenceWeights())
nnUNetTrainer_1epochs = configured_trainer(SHORT)
"""
SHIM = "from cardiosynth.core.torchvision_operators import declare_torchvision_operators as declare; declare()"
AWAY = """
import importlib.abc, sys
class Away(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "cardiosynth":
            raise ModuleNotFoundError(f"no module {name}", name=name)
sys.meta_path.insert(0, Away())
try:
    import cardiosynth
except ModuleNotFoundError:
    pass
else:
    raise SystemError("cardiosynth is there")
"""


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """A folder of trainers of one short epoch."""
    pytest.importorskip("nnunetv2", reason="needs the extra nnunet: pip install 'cardiosynth[nnunet]'")
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "short_trainers.py").write_text(SHORT_TRAINERS)
    return tmp_path / "short"


def exported(folder: Path) -> Path:
    """Return a run with the raw datasets that both stages begin with, and own folds."""
    run = folder / "run"
    for name, count in ((stages.SYNTHETIC, 2), (stages.REAL, 3)):
        cases = tiny.dataset(folder / name / "given", count, mapped=2 if name == stages.SYNTHETIC else 0)
        export_nnunet(cases, run / "nnUNet_raw" / name)
    stages.write_splits(run / "nnUNet_raw" / stages.REAL, ["c0", "c1", "c2"], [1])
    return run


def pretrained(settings: NnunetTraining) -> Request:
    """Return the request of pre-training."""
    return Request(
        stage="pretrain", settings=settings, real=stages.REAL, dataset=stages.SYNTHETIC, folds=("all",),
        weights=settings.confidence, device="cpu",
    )  # fmt: skip


def test_the_printed_commands_plan_and_preprocess_as_we_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without plans of one's own: every line but those that train, beside what the child process makes."""
    pytest.importorskip("nnunetv2", reason="needs the extra nnunet: pip install 'cardiosynth[nnunet]'")
    import blosc2

    from cardiosynth.segmentation.nnunet import child

    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    settings = NnunetTraining(processes=1)
    run, pretraining = exported(tmp_path), pretrained(settings)
    asked = (pretraining, pretraining.model_copy(update={"stage": "finetune", "dataset": stages.REAL, "folds": (1,)}))
    lines = [line for request in asked for line in commands(run, request) if not line.startswith("nnUNetv2_train ")]
    for line in dict.fromkeys(lines):
        _do(line, tmp_path, monkeypatch)
    made = run / "nnUNet_preprocessed"

    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "ours"))
    ours = tmp_path / "ours"
    (ours / stages.REAL).mkdir(parents=True)
    for name in ("dataset_fingerprint.json", "dataset.json", "nnUNetPlans.json"):
        shutil.copy(made / stages.REAL / name, ours / stages.REAL)
    write_json(ours / stages.REAL / "planned.json", {})
    child.plan(stages.REAL, settings)
    child.move_plans(stages.REAL, stages.SYNTHETIC)
    for name in (stages.REAL, stages.SYNTHETIC):
        child.preprocess(name, settings)
    assert made_files(made) == made_files(ours), "maps are brought by our trainer, when it begins"
    for name in made_files(made):
        if name.suffix == ".b2nd":
            theirs, own = (blosc2.open(str(root / name))[:] for root in (made, ours))
            np.testing.assert_array_equal(theirs, own)
        elif name.suffix == ".json":
            assert read_json(made / name) == read_json(ours / name)
    assert read_json(made / stages.REAL / "splits_final.json") == own_splits(["c0", "c1", "c2"])


def made_files(root: Path) -> set[Path]:
    """Return what nnU-Net's commands leave in a folder of preprocessed datasets."""
    found = {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
    return {path for path in found if path.name != "planned.json" and not path.parent.name.endswith("_confidence")}


def test_the_printed_commands_train_both_stages(short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from nnunetv2.training.logging.nnunet_logger import MetaLogger
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    declare_torchvision_operators()
    monkeypatch.setattr(MetaLogger, "plot_progress_png", lambda self, folder: None)
    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", lambda *_, **__: None)  # a minute of pools
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    write_json(tmp_path / "plans.json", tiny.plans("elsewhere"))
    settings = NnunetTraining(plans=tmp_path / "plans.json", pretrain_epochs=1, finetune_epochs=1, processes=1)
    run, pretraining = exported(tmp_path), pretrained(settings)
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    for line in commands(run, pretraining):
        _do(line, short, monkeypatch)
    moved = read_json(run / "nnUNet_preprocessed" / stages.SYNTHETIC / "nnUNetPlans.json")
    assert (moved["dataset_name"], moved["plans_name"]) == (stages.SYNTHETIC, "nnUNetPlans")
    results = run / "nnUNet_results" / "pretrain" / stages.SYNTHETIC
    final = results / "nnUNetTrainerCAL_1epochs__nnUNetPlans__3d_fullres" / "fold_all" / "checkpoint_final.pth"
    assert final.exists()

    finetuning = pretraining.model_copy(
        update={"stage": "finetune", "dataset": stages.REAL, "folds": (1,), "weights": None, "initial": final}
    )
    exports, train = commands(run, finetuning)[:2], commands(run, finetuning)[-1]
    for line in (*exports, train):
        _do(line, short, monkeypatch)
    fold = run / "nnUNet_results/finetune" / stages.REAL / "nnUNetTrainer_1epochs__nnUNetPlans__3d_fullres/fold_1"
    assert (fold / "checkpoint_final.pth").exists()
    (log,) = fold.glob("training_log_*.txt")
    assert "3 splits" in log.read_text()


def _do(line: str, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what a shell would do with one of the lines; nnU-Net's commands in this process."""
    words = shlex.split(os.path.expandvars(line))
    if words[0] == "export":
        for word in words[1:]:
            name, _, value = word.partition("=")
            monkeypatch.setenv(name, f"{value}{os.pathsep}{short}" if name == "nnUNet_extTrainer" else value)
    elif words[0].startswith("nnUNetv2_"):
        (found,) = entry_points(group="console_scripts", name=words[0])
        command: Callable[[], None] = found.load()
        monkeypatch.setattr(sys, "argv", words)
        command()
    else:
        subprocess.run(["bash", "-c", line], check=True)


def test_nnunets_command_trains_with_confidence_and_predicts_where_we_are_not_installed(short: Path, tmp_path: Path):
    name, kind = "Dataset001_mapped", "nnUNetTrainerCAL_1epochs"
    raw = tmp_path / "raw" / name
    tiny.dataset(raw, 2, mapped=2)
    tiny.preprocess(raw, tmp_path / "preprocessed" / name, "3d_fullres")
    (tmp_path / "preprocessed" / name / "gt_segmentations").symlink_to(raw / "labelsTr")
    folders = {f"nnUNet_{place}": str(tmp_path / place) for place in ("raw", "preprocessed", "results")}
    few = {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1", "OMP_NUM_THREADS": "1"}
    trainers = {"nnUNet_extTrainer": f"{TRAINERS}{os.pathsep}{short}"}
    train = f"nnUNetv2_train 1 3d_fullres all -tr {kind} -device cpu"
    _command(train, SHIM, tmp_path / "with", {**folders, **few, **trainers})
    folder = tmp_path / "results" / name / f"{kind}__nnUNetPlans__3d_fullres" / "fold_all"
    (log,) = folder.glob("training_log_*.txt")
    assert "2 cases have a confidence map" in log.read_text()
    assert len(list((folder / "validation").glob("*.nii.gz"))) == 2

    out = tmp_path / "out"
    predict = (
        f"nnUNetv2_predict -i {raw}/imagesTr -o {out} -d 1 -c 3d_fullres -f all -tr {kind} -device cpu -npp 1 -nps 1"
    )
    _command(predict, AWAY, tmp_path / "without", {**folders, **few})
    for case_id in ("c0", "c1"):
        assert read_mask(out / f"{case_id}.nii.gz").array.shape == (1, tiny.SIDE, tiny.SIDE, tiny.SIDE)


def _command(line: str, first: str, folder: Path, environment: dict[str, str]) -> None:
    """Run one of nnU-Net's commands; ``first`` is done by it and all its processes before anything else."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(first)
    words = line.split()
    words[0] = str(Path(sys.executable).with_name(words[0]))
    everything = {**os.environ, **environment, "PYTHONPATH": str(folder)}
    ended = subprocess.run(words, capture_output=True, text=True, env=everything)
    assert ended.returncode == 0, ended.stderr
