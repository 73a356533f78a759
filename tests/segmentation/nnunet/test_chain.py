"""A whole training: which stages it has, what it ends with, and the masks that come of it."""

import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.store import read_json, write_json, write_text
from cardiosynth.data.annotate import programs
from cardiosynth.data.dataset import Dataset, read_dataset, write_dataset
from cardiosynth.data.description import Description
from cardiosynth.data.export.nnunet import consecutive, export_nnunet
from cardiosynth.data.formats.files import read_image
from cardiosynth.data.formats.nifti import write_nifti
from cardiosynth.segmentation.nnunet import chain, stages
from cardiosynth.segmentation.nnunet.chain import NnunetPrediction, model_folder, predict_dataset, train
from cardiosynth.segmentation.nnunet.settings import NnunetTraining
from cardiosynth.segmentation.nnunet.splits import own_splits
from tests.segmentation.nnunet import tiny

TOP = "nnUNet_results/{}/Dataset001_real/nnUNetTrainer__nnUNetPlans__3d_fullres"


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Dataset, Dataset]:
    """Return synthetic cases with maps and real ones without."""
    return tiny.dataset(tmp_path / "synthetic", 2, mapped=2), tiny.dataset(tmp_path / "real", 3, mapped=0)


def test_each_stage_gets_its_cases_and_a_run_stays_what_it_was(
    sets: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synthetic, real = sets
    called: list[tuple[Any, ...]] = []
    for name in ("pretrain", "finetune", "train_real_only"):
        monkeypatch.setattr(stages, name, lambda *given, name=name: called.append((name, *given)) or tmp_path / name)
    settings = NnunetTraining()
    both, first, second = (tmp_path / name for name in ("both", "first", "second"))
    assert train(synthetic, real, both, settings, "cpu") == tmp_path / "finetune"
    assert train(synthetic, None, first, settings) == tmp_path / "pretrain"
    assert train(None, real, second, settings) == tmp_path / "train_real_only"
    assert called == [
        ("pretrain", synthetic, real, both, settings, "cpu"),
        ("finetune", real, both, settings, tmp_path / "pretrain", "cpu"),
        ("pretrain", synthetic, None, first, settings, "auto"),
        ("train_real_only", real, second, settings, "auto"),
    ]
    with pytest.raises(InputError, match="was begun with other stages"):
        train(None, real, both, settings)
    with pytest.raises(InputError, match="nothing to train on"):
        train(None, None, tmp_path / "nothing", settings)


def test_only_what_is_trained_to_its_end_predicts(tmp_path: Path):
    write_json(tmp_path / "stages.json", {"last": "finetune", "pretrained": True})
    top = tmp_path / TOP.format("finetune")
    write_text(tmp_path / TOP.format("pretrain") / "fold_all" / "checkpoint_final.pth", "")
    with pytest.raises(InputError, match="fold all is not trained to its end"):
        model_folder(tmp_path)
    write_json(top.parents[1] / "request.json", {"folds": [0, 1]})
    write_text(top / "fold_0" / "checkpoint_final.pth", "")
    with pytest.raises(InputError, match="fold 1 is not trained to its end"):
        model_folder(tmp_path)
    assert model_folder(tmp_path, [0]) == model_folder(top) == top


class Stub:
    """Looks like a trained nnU-Net and segments by threshold: wall above 50 HU, chamber above 250."""

    identity, folds = "abc", ("all",)

    def __init__(self, labels: LabelTable, facts: Mapping[str, Any]):
        self.description = Description("trained", labels, "hu", facts)
        self.table, self.seen, self.fails_at = labels, list[str](), ""

    def run(self, images: Mapping[str, Path], folder: Path) -> Iterator[tuple[str, str | None]]:
        for case_id, image in images.items():
            self.seen.append(case_id)
            if case_id == self.fails_at:
                yield case_id, "out of memory"
                continue
            volume = read_image(image)
            codes = (volume.array > 50).astype(np.uint8) + (volume.array > 250)
            write_nifti(folder / f"{case_id}.nii.gz", codes.astype(np.uint8), volume.affine)
            yield case_id, None


@pytest.fixture
def stub(sets: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    """Trained on the real cases with other codes, which nnU-Net's folder has changed to 1 and 2."""
    codes = {"wall": 40, "chamber": 70}
    labels = LabelTable(labels=tuple(x.model_copy(update={"code": codes[x.name]}) for x in tiny.LABELS))
    cases = [x.with_(mask=np.array([0, 40, 70], np.uint8)[x.required_mask()], labels=labels) for x in sets[1]]
    folder = export_nnunet(write_dataset(cases, tmp_path / "coded"), tmp_path / "Dataset007_coded")
    assert folder.labels == consecutive(labels)
    made = Stub(folder.labels, folder.description.facts)
    monkeypatch.setattr(chain, "trained_nnunet", lambda settings, unit: made)
    return made


def test_masks_have_the_codes_trained_on_and_go_on_case_by_case(
    sets: tuple[Dataset, Dataset], stub: Stub, tmp_path: Path
):
    test, out = sets[1], tmp_path / "out"
    stub.fails_at = "c1"
    with pytest.raises(InputError, match="case c1: out of memory"):
        predict_dataset(tmp_path, test, out)
    stub.fails_at = ""
    found = predict_dataset(tmp_path, test, out)
    assert stub.seen == ["c0", "c1", "c1", "c2"], "what is there is not predicted again"
    assert found.case_ids == test.case_ids
    assert {x.name: x.code for x in found.labels} == {"wall": 40, "chamber": 70}
    for case, truth in zip(found, test, strict=True):
        image = truth.required_image()
        np.testing.assert_array_equal(case.required_mask(), np.where(image > 250, 70, np.where(image > 50, 40, 0)))
        assert case.image is None
        assert case.provenance["segmented_by"] == "abc"
        assert case.grid.same_as(truth.grid)
    predict_dataset(tmp_path, test, out)
    assert len(stub.seen) == 4
    assert not list((out / "nnunet").glob("*.nii.gz"))
    with pytest.raises(InputError, match="made with other settings"):
        predict_dataset(tmp_path, test, out, settings=NnunetPrediction(mirroring=False))


class Killing:
    """Starts programs as usual, and kills the one that says a word, with signal 9."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, modules: Sequence[Any]):
        self.word, self.started = "", list[Any]()
        original, popen = programs.program_lines, subprocess.Popen

        def start(*words: Any, **more: Any) -> Any:
            self.started.append(popen(*words, **more))
            return self.started[-1]

        def lines(*words: Any, **more: Any) -> Iterator[str]:
            for line in original(*words, **more):
                yield line
                if self.word and self.word in line:
                    self.word = ""
                    self.started[-1].send_signal(signal.SIGKILL)

        monkeypatch.setattr(programs, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": start}))
        for module in modules:
            monkeypatch.setattr(module, "program_lines", lines)

    def at(self, word: str, work: Callable[[], Any]) -> None:
        """Do some work until a program says ``word``."""
        self.word = word
        with pytest.raises(InputError, match="exit code -9"):
            work()
        assert not self.word, "nobody said it"


@pytest.fixture
def killing(monkeypatch: pytest.MonkeyPatch) -> Killing:
    """Kill programs of nnU-Net."""
    pytest.importorskip("nnunetv2", reason="needs the extra nnunet: pip install 'cardiosynth[nnunet]'")
    from cardiosynth.data.annotate import nnunet

    return Killing(monkeypatch, (stages, nnunet))


SHORT: dict[str, Any] = {
    "pretrain_epochs": 2, "finetune_epochs": 2, "iterations": 2, "validation_iterations": 1, "checkpoint_every": 1,
    "processes": 1, "augmentation_workers": 0,
}  # fmt: skip


@pytest.mark.slow
def test_the_whole_way_with_nnunets_own_plans(sets: tuple[Dataset, Dataset], killing: Killing, tmp_path: Path):
    """Fingerprint, plans of the real cases, both stages, two folds that vote; killed in planning and predicting."""
    synthetic, real = sets
    run, out, settings = tmp_path / "run", tmp_path / "out", NnunetTraining(folds=(0, 1), **SHORT)

    def work() -> Path:
        return train(synthetic, real, run, settings, "cpu")

    killing.at(stages.REAL, work)  # nnU-Net names the dataset when it begins with the fingerprint
    made = run / "nnUNet_preprocessed"
    assert not (made / stages.REAL / "planned.json").exists()
    model = work()
    plans, moved = (read_json(made / name / "nnUNetPlans.json") for name in (stages.REAL, stages.SYNTHETIC))
    assert moved == {**plans, "dataset_name": stages.SYNTHETIC}
    assert len(plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["strides"]) == 3
    assert read_json(made / stages.REAL / "splits_final.json") == own_splits(real.case_ids)
    assert {path.parent.name for path in model.glob("fold_*/checkpoint_final.pth")} == {"fold_0", "fold_1"}

    def predict() -> Dataset:
        return predict_dataset(run, real, out, settings=NnunetPrediction(mirroring=False), device="cpu")

    killing.at('"begun": "c0"', predict)
    found = predict()
    assert found.case_ids == real.case_ids
    assert found.description.facts["folds"] == ["0", "1"]
    assert found.labels == real.labels
    for case, truth in zip(found, real, strict=True):
        assert case.grid.same_as(truth.grid)


@pytest.mark.slow
def test_killed_in_every_stage_the_same_call_ends_alike(
    sets: tuple[Dataset, Dataset], killing: Killing, tmp_path: Path
):
    import torch

    write_json(tmp_path / "plans.json", tiny.plans("elsewhere"))
    settings, run = NnunetTraining(plans=tmp_path / "plans.json", **SHORT), tmp_path / "run"

    def work() -> Path:
        return train(*sets, run, settings, "cpu")

    killing.at('{"case": "c0"}', work)
    killing.at('"epoch": 1, "of": 2', work)
    killing.at('"epoch": 1, "of": 2', work)  # the next that says so is the fine-tuning
    model = work()
    for stage in ("pretrain", "finetune"):
        log = (run / "nnUNet_results" / stage / "log.txt").read_text()
        assert [log.count(f'"epoch": {epoch},') for epoch in (1, 2, 3)] == [1, 1, 0]
    final = torch.load(model / "fold_all" / "checkpoint_final.pth", weights_only=False)
    assert final["current_epoch"] == 2
    assert read_dataset(run / "nnUNet_raw" / stages.SYNTHETIC).case_ids == sets[0].case_ids
