"""A whole training by nnU-Net: pre-training, fine-tuning or both, and masks of what it ends with."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pydantic
from jaxtyping import UInt8

from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable, relabel
from cardiosynth.core.store import fingerprint, read_json, remove_partial, write_json
from cardiosynth.data.annotate.nnunet import trained_nnunet
from cardiosynth.data.annotate.plan import NnunetSettings
from cardiosynth.data.annotate.provider import read_labels
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.export.nnunet import source_codes
from cardiosynth.data.layout import is_whole, manifest
from cardiosynth.segmentation.nnunet import stages
from cardiosynth.segmentation.nnunet.settings import FINAL, Device, Fold, NnunetTraining, StageName
from cardiosynth.segmentation.predictions import write_predictions

RECORD = "stages.json"
WORK = "nnunet"
Run = Callable[[Mapping[str, Path], Path], Iterator[tuple[str, str | None]]]


def train(
    pretrain: Dataset | None, finetune: Dataset | None, run: Path, settings: NnunetTraining, device: Device = "auto"
) -> Path:
    """Train nnU-Net; killed anywhere, the same call goes on.

    Args:
        pretrain: synthetic cases for ``settings.pretrain_epochs``, weighted by their confidence maps. None trains on
            the real ones alone, for ``settings.real_only_epochs``.
        finetune: real cases of the same label table, for ``settings.finetune_epochs`` and each of ``settings.folds``.
            None ends with pre-training, which then plans for the synthetic cases.
        run: the run's folder.
        settings: how.
        device: ``auto`` takes CUDA where nnU-Net's torch finds it.

    Returns:
        nnU-Net's model folder of the last stage, ``TRAINER__PLANS__CONFIGURATION``.

    Raises:
        InputError: neither dataset, datasets that differ in labels or units, a run begun otherwise, or nnU-Net fails,
            with its last words.
    """
    if finetune is None and pretrain is None:
        raise InputError("there is nothing to train on; give cases to pre-train on, to fine-tune on, or both.")
    _begin(run, pretrain, finetune)
    if pretrain is None:
        assert finetune is not None
        return stages.train_real_only(finetune, run, settings, device)
    pretrained = stages.pretrain(pretrain, finetune, run, settings, device)
    return pretrained if finetune is None else stages.finetune(finetune, run, settings, pretrained, device)


def _begin(run: Path, pretrain: Dataset | None, finetune: Dataset | None) -> None:
    last: StageName = "pretrain" if finetune is None else "real_only" if pretrain is None else "finetune"
    about = {"last": last, "pretrained": pretrain is not None}
    if (run / RECORD).exists() and fingerprint(read_json(run / RECORD)) != fingerprint(about):
        raise InputError(f"{run} was begun with other stages; choose another run folder.")
    write_json(run / RECORD, about)


class NnunetPrediction(Settings):
    """How whole cases are predicted.

    Attributes:
        folds: which vote, by their mean probability; None for all that were trained.
        mirroring: whether each window is predicted in every mirrored position too, as nnU-Net does by default.
        timeout_min: how long one case may take.
    """

    folds: tuple[Fold, ...] | None = pydantic.Field(default=None, min_length=1)
    mirroring: bool = True
    timeout_min: pydantic.PositiveFloat = 120.0


def predict_dataset(
    run: Path,
    test: Dataset,
    out: Path,
    *,
    settings: NnunetPrediction | None = None,
    device: str = "auto",
    name: str = "nnunet",
) -> Dataset:
    """Write the masks that a trained nnU-Net, or its folds together, see in a dataset's images.

    nnU-Net works in a child process that loads the model once. The masks have the codes of the dataset that was
    trained on.

    Args:
        run: of `train`, or any model folder of nnU-Net.
        test: with images.
        out: a folder; the same call goes on after a stop. Its facts are ``segmented_by`` (fingerprint of plans and
            weights), ``folds`` and ``mirroring``.
        settings: folds and mirroring; None for the defaults.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        name: what the dataset is called.

    Raises:
        InputError: training is not finished, images that do not suit it, a folder that holds something else, or nnU-Net
            fails at a case.
    """
    settings = settings or NnunetPrediction()
    folder = model_folder(run, settings.folds)
    chosen = settings.model_dump()
    model = trained_nnunet(NnunetSettings(model=folder, device=device, name=name, **chosen), test.intensity_unit)
    trained, labels = model.table, source_codes(model.description)
    facts = {"segmented_by": model.identity, "folds": list(model.folds), "mirroring": settings.mirroring}
    with closing(_masks(model.run, test, out)) as masks:

        def predict(case: Case) -> UInt8[np.ndarray, "1 *grid"]:
            return relabel(_on_grid(next(masks), case, trained), trained, labels)[0]

        return write_predictions(test, out, labels, facts, predict, name=name)


def model_folder(run: Path, folds: Sequence[Fold] | None = None) -> Path:
    """Return the model folder that a run ends with.

    Args:
        run: of `train`, or a model folder already.
        folds: that are to be there; None for all that were asked for.

    Raises:
        InputError: a fold is not trained to its end.
    """
    if not (run / RECORD).exists():
        return run
    results = run / "nnUNet_results" / read_json(run / RECORD)["last"]
    found = sorted(results.glob("Dataset*/*__*__*"))
    asked = read_json(results / "request.json")["folds"] if (results / "request.json").exists() else ["all"]
    wanted = asked if folds is None else folds
    for fold in wanted:
        if not found or not (found[0] / f"fold_{fold}" / FINAL).exists():
            raise InputError(f"{run}: fold {fold} is not trained to its end; let the same training go on first.")
    return found[0]


def _masks(run: Run, test: Dataset, out: Path) -> Generator[Path, None, None]:
    """Yield nnU-Net's mask of each case that is not in ``out`` yet, in order.

    Raises:
        InputError: it fails at one.
    """
    rows, folder = manifest(out), out / WORK
    left = [case_id for case_id in test.case_ids if not (case_id in rows and is_whole(out, rows[case_id]))]
    folder.mkdir(parents=True, exist_ok=True)
    remove_partial(folder)
    for case_id, why in run({case_id: test.file("image", case_id) for case_id in left}, folder):
        if why is not None:
            raise InputError(f"case {case_id}: {why}")
        try:
            yield folder / f"{case_id}.nii.gz"
        finally:
            (folder / f"{case_id}.nii.gz").unlink()


def _on_grid(path: Path, case: Case, labels: LabelTable) -> UInt8[np.ndarray, "1 *grid"]:
    mask = read_labels(path, labels)
    assert path.name == f"{case.case_id}.nii.gz", path
    assert mask.grid.same_as(case.grid), f"{path} lies on another grid than its image"
    return mask.array
