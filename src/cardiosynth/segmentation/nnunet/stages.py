"""Pre-training on synthetic cases, fine-tuning on real ones, and real ones alone, by nnU-Net in a run folder.

``RUN/nnUNet_raw``, ``RUN/nnUNet_preprocessed`` and ``RUN/nnUNet_results/STAGE`` are nnU-Net's folders, set for the
child process alone. A stage that was killed is finished by the same call: cases, side-cars and folds are kept, and a
training goes on from nnU-Net's newest checkpoint. nnU-Net's random numbers are not fixed, so that two runs differ.
"""

import importlib.util
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import Progress, say
from cardiosynth.core.store import fingerprint, read_json, write_json
from cardiosynth.data.annotate.programs import program_lines
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.export.nnunet import consecutive, export_nnunet
from cardiosynth.segmentation.nnunet.commands import commands
from cardiosynth.segmentation.nnunet.settings import FINAL, MAY_CHANGE, SIGN, Device, NnunetTraining, Request
from cardiosynth.segmentation.nnunet.splits import write_splits

REAL, SYNTHETIC = "Dataset001_real", "Dataset002_synthetic"


def pretrain(
    synthetic: Dataset, real: Dataset | None, run: Path, settings: NnunetTraining, device: Device = "auto"
) -> Path:
    """Train on synthetic cases with the real ones' plans; see `finetune` for what comes next.

    Args:
        synthetic: with confidence maps where they are to weigh the loss (Eq. 9; without them it is Eq. 8).
        real: of the same label table; planned for, not trained on. None to plan for the synthetic ones.
        run: the run's folder.
        settings: how.
        device: ``auto`` takes CUDA where nnU-Net's torch finds it.

    Returns:
        nnU-Net's model folder, ``TRAINER__PLANS__CONFIGURATION``.

    Raises:
        InputError: label tables or intensity units that differ, a run begun otherwise, or nnU-Net fails, with its last
            words.
    """
    planned_for = {} if real is None else {REAL: real}
    if real is not None:
        _check_together(synthetic, real)
    exported = {
        name: _exported(dataset, run / "nnUNet_raw" / name)
        for name, dataset in {**planned_for, SYNTHETIC: synthetic}.items()
    }
    mapped = any(exported[SYNTHETIC].has("confidence", case_id) for case_id in exported[SYNTHETIC].case_ids)
    request = Request(
        stage="pretrain", settings=settings, real=REAL if planned_for else SYNTHETIC, dataset=SYNTHETIC,
        folds=("all",), weights=settings.confidence if mapped else None, device=device,
    )  # fmt: skip
    return _train(run, request, exported)


def finetune(real: Dataset, run: Path, settings: NnunetTraining, pretrained: Path, device: Device = "auto") -> Path:
    """Train on real cases from pre-trained weights, with a fresh schedule.

    Args:
        real: as in `pretrain`.
        run: the run's folder.
        settings: how.
        pretrained: what `pretrain` returned.
        device: as in `pretrain`.

    Returns:
        nnU-Net's model folder.

    Raises:
        InputError: as `pretrain`, or weights that do not fit.
    """
    checkpoint = (pretrained / "fold_all" / FINAL).resolve()
    if not checkpoint.exists():
        raise InputError(f"{checkpoint} does not exist; finish pre-training first.")
    return _real_stage(real, run, settings, checkpoint, device)


def train_real_only(real: Dataset, run: Path, settings: NnunetTraining, device: Device = "auto") -> Path:
    """Train on real cases alone, as nnU-Net does; see `finetune`."""
    return _real_stage(real, run, settings, None, device)


def _check_together(synthetic: Dataset, real: Dataset) -> None:
    one, other = ({x.name: x.code for x in consecutive(dataset.labels)} for dataset in (synthetic, real))
    if one != other:
        raise InputError(
            f"{synthetic.root} and {real.root} have different label tables; map the one to the other first."
        )
    if synthetic.intensity_unit != real.intensity_unit:
        raise InputError(
            f"{synthetic.root} is in '{synthetic.intensity_unit}', {real.root} in '{real.intensity_unit}'."
        )


def _real_stage(real: Dataset, run: Path, settings: NnunetTraining, initial: Path | None, device: Device) -> Path:
    exported = {REAL: _exported(real, run / "nnUNet_raw" / REAL)}
    write_splits(run / "nnUNet_raw" / REAL, exported[REAL].case_ids, settings.folds)
    request = Request(
        stage="real_only" if initial is None else "finetune",
        settings=settings, real=REAL, dataset=REAL, folds=settings.folds, initial=initial, device=device,
    )  # fmt: skip
    return _train(run, request, exported)


def _exported(dataset: Dataset, out: Path) -> Dataset:
    """Return the dataset as nnU-Net reads it.

    Raises:
        InputError: the run began with other cases.
    """
    exported = export_nnunet(dataset, out)
    if set(exported.case_ids) - set(dataset.case_ids):
        raise InputError(f"{out} holds cases that {dataset.root} does not; choose another run folder.")
    return exported


def _train(run: Path, request: Request, exported: dict[str, Dataset]) -> Path:
    """Let the child do its work, show how far it is, and return the model folder."""
    if importlib.util.find_spec("nnunetv2") is None:
        raise InputError("nnU-Net is not installed; pip install 'cardiosynth[nnunet]'.")
    run = run.resolve()
    results = run / "nnUNet_results" / request.stage
    _begin(results / "config.json", request, exported)
    for line in commands(run, request):
        say(line)
    write_json(results / "request.json", request.model_dump(mode="json"))
    settings = request.settings
    environment = {
        "nnUNet_raw": str(run / "nnUNet_raw"),
        "nnUNet_preprocessed": str(run / "nnUNet_preprocessed"),
        "nnUNet_results": str(results),
        "nnUNet_extTrainer": None,
        "nnUNet_def_n_proc": str(settings.processes),
        "nnUNet_n_proc_DA": None,
    }
    command = [sys.executable, "-u", "-m", "cardiosynth.segmentation.nnunet.child", str(results / "request.json")]
    log = results / "log.txt"
    epochs = settings.schedule(request.stage).epochs * len(request.folds)
    lines = program_lines(command, environment, settings.timeout_h * 3600, log, sign=SIGN)
    with closing(lines), Progress(f"nnU-Net {request.stage}", epochs) as progress:
        for line in lines:
            if line.startswith(SIGN):
                _show(progress, json.loads(line.removeprefix(SIGN)))
    return next(iter(sorted((results / request.dataset).glob(f"*__{settings.configuration}"))))


def _show(progress: Progress, told: dict[str, Any]) -> None:
    if "epoch" in told:
        progress.update(loss=told["loss"], dice=told["dice"])


def _begin(record: Path, request: Request, exported: dict[str, Dataset]) -> None:
    """Write what the stage is made of, or see that it goes on as it began.

    Raises:
        InputError: it does not.
    """
    about = {
        **request.model_dump(mode="json", exclude={"settings", "folds", "device"}),
        "settings": request.settings.model_dump(mode="json", exclude=MAY_CHANGE),
        "cases": {name: list(dataset.case_ids) for name, dataset in exported.items()},
    }
    if record.exists() and fingerprint(read_json(record)) != fingerprint(about):
        raise InputError(f"{record.parent} was begun with other settings or cases; choose another run folder.")
    write_json(record, about)
