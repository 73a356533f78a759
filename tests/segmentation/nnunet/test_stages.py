"""The chain of trainings: what is made ready, what goes from one to the next, and going on after a stop."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import label_table
from cardiosynth.core.store import read_json, write_json
from cardiosynth.data.dataset import Dataset, read_dataset, write_dataset
from cardiosynth.segmentation.nnunet import stages
from cardiosynth.segmentation.nnunet.commands import TRAINERS
from cardiosynth.segmentation.nnunet.settings import SIGN, NnunetTraining
from cardiosynth.segmentation.nnunet.splits import own_splits
from tests.segmentation.nnunet import tiny

# nnU-Net leaves files open when it looks for a reader.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

SHORT: dict[str, Any] = {
    "pretrain_epochs": 2, "finetune_epochs": 1, "real_only_epochs": 1, "iterations": 2, "validation_iterations": 1,
    "checkpoint_every": 1, "processes": 1, "augmentation_workers": 0,
}  # fmt: skip


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Dataset, Dataset]:
    """Return synthetic cases with maps and real ones without."""
    return tiny.dataset(tmp_path / "synthetic", 2, mapped=2), tiny.dataset(tmp_path / "real", 3, mapped=0)


@pytest.fixture
def settings(tmp_path: Path) -> NnunetTraining:
    write_json(tmp_path / "plans.json", tiny.plans("elsewhere"))
    return NnunetTraining(plans=tmp_path / "plans.json", **SHORT)


class Killed(BaseException):
    """What a kill is to the code that it hits."""


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Let the child's work be done in this process; return what it tells, and kill it where ``kill`` is first."""
    pytest.importorskip("nnunetv2", reason="needs the extra nnunet: pip install 'cardiosynth[nnunet]'")
    from nnunetv2.training.logging.nnunet_logger import MetaLogger

    from cardiosynth.segmentation.nnunet import child

    told: list[dict[str, Any]] = []
    kill = {"after": -1}

    def tell(**facts: Any) -> None:
        told.append(facts)
        if len(told) == kill["after"]:
            raise Killed

    def lines(command: Sequence[str], environment: Mapping[str, str | None], *_: Any, **__: Any) -> Iterator[str]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value or "")
                if value is None:
                    patch.delenv(name)
            child.main(Path(command[-1]))
        yield f"{SIGN}{{}}"

    monkeypatch.setattr(child, "tell", tell)
    monkeypatch.setattr(stages, "program_lines", lines)
    monkeypatch.setattr(MetaLogger, "plot_progress_png", lambda self, folder: None)
    monkeypatch.setattr(tiny, "kill", kill, raising=False)
    return told


def test_the_chain_runs_and_goes_on_where_it_was_killed(
    sets: tuple[Dataset, Dataset], settings: NnunetTraining, inside: list[dict[str, Any]], tmp_path: Path
):
    import torch

    synthetic, real = sets
    run = tmp_path / "run"
    for after, last in ((1, {"case": "c0"}), (3, {"case": "c1"}), (1, {"epoch": 1, "of": 2, "fold": "all"})):
        inside.clear()
        tiny.kill["after"] = after  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(Killed):
            stages.pretrain(synthetic, real, run, settings)
        assert last.items() <= inside[-1].items()
    inside.clear()
    tiny.kill["after"] = -1  # pyright: ignore[reportAttributeAccessIssue]
    pretrained = stages.pretrain(synthetic, real, run, settings)
    assert [told["epoch"] for told in inside] == [2], "the first epoch is not trained again"
    assert pretrained.name == "nnUNetTrainerCAL_2epochs__nnUNetPlans__3d_fullres"
    assert read_json(pretrained / "plans.json")["dataset_name"] == stages.SYNTHETIC
    final = torch.load(pretrained / "fold_all" / "checkpoint_final.pth", weights_only=False)
    assert final["current_epoch"] == 2

    before = dict(os.environ)
    folded = settings.model_copy(update={"folds": (0, 2)})
    model = stages.finetune(real, run, folded, pretrained)
    assert model.name == "nnUNetTrainer_1epochs__nnUNetPlans__3d_fullres"
    assert {path.parent.name for path in model.glob("fold_*/checkpoint_final.pth")} == {"fold_0", "fold_2"}
    assert read_json(run / "nnUNet_preprocessed" / stages.REAL / "splits_final.json") == own_splits(real.case_ids)
    with pytest.raises(InputError, match=r"3 cases make folds 0 .. 2; there is no fold 3"):
        stages.finetune(real, run, settings.model_copy(update={"folds": (3,)}), pretrained)
    alone = stages.train_real_only(real, run, settings)
    assert alone != model
    assert dict(os.environ) == before
    inside.clear()
    assert stages.pretrain(synthetic, real, run, settings) == pretrained
    assert inside == [], "what is finished is not done again"
    with pytest.raises(InputError, match="was begun with other settings"):
        stages.pretrain(synthetic, real, run, settings.model_copy(update={"pretrain_epochs": 3}))


def test_label_tables_that_differ_are_refused(sets: tuple[Dataset, Dataset], tmp_path: Path):
    case = tiny.case(0, confidence=False).with_(labels=label_table({"wall": 1, "vessel": 2}))
    other = write_dataset([case], tmp_path / "other")
    with pytest.raises(InputError, match="different label tables"):
        stages.pretrain(sets[0], other, tmp_path / "run", NnunetTraining())


def test_without_pretraining_there_is_no_finetuning(sets: tuple[Dataset, Dataset], tmp_path: Path):
    with pytest.raises(InputError, match="finish pre-training first"):
        stages.finetune(sets[1], tmp_path / "run", NnunetTraining(), tmp_path / "nothing")


def test_few_cases_and_patients_with_several_get_folds_of_their_own():
    assert own_splits([f"p{i}" for i in range(5)]) is None
    for cases in (["a", "b"], ["a_ed", "a_es", "b_ed", "b_es", "c_ed", "d_ed", "e_ed", "f_ed"]):
        folds = own_splits(cases)
        assert folds is not None
        assert sorted(case for fold in folds for case in fold["val"]) == sorted(cases)
        for fold in folds:
            assert sorted(fold["train"] + fold["val"]) == sorted(cases)
            assert not {case[0] for case in fold["train"]} & {case[0] for case in fold["val"]}
    with pytest.raises(InputError, match="all cases are of patient a"):
        own_splits(["a_ed", "a_es"])


def test_nnunet_finds_a_folder_of_trainers():
    assert [path.name for path in TRAINERS.glob("*.py")] == ["nnunet_trainer_cal.py"]


def test_a_subset_of_a_run_is_refused(
    sets: tuple[Dataset, Dataset], settings: NnunetTraining, inside: list[dict[str, Any]], tmp_path: Path
):
    tiny.kill["after"] = 1  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(Killed):
        stages.train_real_only(sets[1], tmp_path / "run", settings)
    with pytest.raises(InputError, match="holds cases that"):
        stages.train_real_only(read_dataset(tmp_path / "real").subset(["c0"]), tmp_path / "run", settings)


def test_synthetic_cases_alone_are_planned_for_themselves(
    sets: tuple[Dataset, Dataset], settings: NnunetTraining, inside: list[dict[str, Any]], tmp_path: Path
):
    tiny.kill["after"] = 2  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(Killed):
        stages.pretrain(sets[0], None, tmp_path / "run", settings)
    assert [told["case"] for told in inside] == ["c0", "c1"]
    made = tmp_path / "run" / "nnUNet_preprocessed"
    assert [path.name for path in made.iterdir()] == [stages.SYNTHETIC]
    assert read_json(made / stages.SYNTHETIC / "nnUNetPlans.json")["dataset_name"] == stages.SYNTHETIC


def test_plans_of_two_resolutions_are_refused(
    sets: tuple[Dataset, Dataset], settings: NnunetTraining, inside: list[dict[str, Any]], tmp_path: Path
):
    plans = tiny.plans("elsewhere")
    network = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    network["strides"] = network["strides"][:2]
    write_json(tmp_path / "plans.json", plans)
    with pytest.raises(InputError, match=r"only 2 resolutions for patches of \[16, 16, 16\]"):
        stages.train_real_only(sets[1], tmp_path / "run", settings)
