"""nnU-Net at work, in a process of its own: plans, preprocessing, training. Everything that is done is passed over.

``python -m cardiosynth.segmentation.nnunet.child REQUEST.json``; nnU-Net's folders come as its environment variables.
"""

import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # pyright: ignore[reportMissingImports]

from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.store import read_json, remove_partial, whole_folder, write_json
from cardiosynth.data.annotate.programs import end_with_parent
from cardiosynth.segmentation.nnunet.settings import FINAL, PLANS, SIGN, Fold, NnunetTraining, Request
from cardiosynth.segmentation.nnunet.sidecar import missing_sidecars, write_sidecar
from cardiosynth.segmentation.nnunet.splits import SPLITS
from cardiosynth.segmentation.nnunet.trainer import ScheduledTrainer, configured_trainer
from cardiosynth.segmentation.nnunet.weights import transfer_weights

CHECKPOINTS = ("checkpoint_latest.pth", "checkpoint_best.pth")
MIN_STAGES = 3
"""With two, nnU-Net's weights of deep supervision are 0 divided by 0."""


def main(request: Path) -> None:
    """Do what ``request`` asks for."""
    asked = parse_settings(Request, read_json(request), str(request))
    plan(asked.real, asked.settings)
    if asked.dataset != asked.real:
        move_plans(asked.real, asked.dataset)
    preprocess(asked.dataset, asked.settings)
    if asked.settings.augmentation_workers is not None:  # not before: planning fails with 0
        os.environ["nnUNet_n_proc_DA"] = str(asked.settings.augmentation_workers)  # noqa: SIM112
    for fold in asked.folds:
        train(asked, fold)


def tell(**facts: Any) -> None:
    """Write one message to whoever started us."""
    print(SIGN + json.dumps(facts), flush=True)  # noqa: T201


def _folder(kind: str, dataset: str) -> Path:
    return Path(os.environ[f"nnUNet_{kind}"]) / dataset


def plan(dataset: str, settings: NnunetTraining) -> None:
    """Plan for the real cases, or take the plans given."""
    raw, folder = _folder("raw", dataset), _folder("preprocessed", dataset)
    folder.mkdir(parents=True, exist_ok=True)
    if settings.plans is not None:
        write_json(
            folder / f"{PLANS}.json", {**read_json(settings.plans), "dataset_name": dataset, "plans_name": PLANS}
        )
        write_json(folder / "dataset_fingerprint.json", {})  # nnU-Net copies it and never looks
        shutil.copy(raw / "dataset.json", folder / "dataset.json")
    elif not (folder / "planned.json").exists():
        from nnunetv2.experiment_planning.plan_and_preprocess_api import (  # pyright: ignore[reportMissingImports]
            extract_fingerprints,
            plan_experiments,
        )

        number = int(dataset[7:10])
        extract_fingerprints([number], num_processes=settings.processes)
        plan_experiments([number], settings.planner, overwrite_plans_name=PLANS)
        write_json(folder / "planned.json", {"planner": settings.planner})
    if (raw / SPLITS).exists():  # nnU-Net's planners copy it, but it may be written later
        shutil.copy(raw / SPLITS, folder / SPLITS)


def move_plans(source: str, target: str) -> None:
    """Give the synthetic dataset the real one's plans, and all else that nnU-Net looks for and does not move itself."""
    from nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets import (  # pyright: ignore
        move_plans_between_datasets,
    )

    folder = _folder("preprocessed", target)
    folder.mkdir(parents=True, exist_ok=True)
    move_plans_between_datasets(source, target, PLANS, PLANS)
    shutil.copy(_folder("raw", target) / "dataset.json", folder / "dataset.json")
    shutil.copy(_folder("preprocessed", source) / "dataset_fingerprint.json", folder / "dataset_fingerprint.json")


def preprocess(dataset: str, settings: NnunetTraining) -> None:
    """Preprocess the cases that are not yet, with their confidence maps.

    Raises:
        InputError: the plans do not have this configuration, or one that cannot be trained.
    """
    raw, folder = _folder("raw", dataset), _folder("preprocessed", dataset)
    plans = PlansManager(str(folder / f"{PLANS}.json"))
    if settings.configuration not in plans.available_configurations:
        raise InputError(f"nnU-Net has no plans for '{settings.configuration}' here; choose another configuration.")
    chosen = plans.get_configuration(settings.configuration)
    if len(chosen.pool_op_kernel_sizes) < MIN_STAGES:
        raise InputError(
            f"nnU-Net plans only {len(chosen.pool_op_kernel_sizes)} resolutions for patches of {chosen.patch_size} "
            "voxels, with which its loss is not a number; give larger images or plans of your own."
        )
    out = folder / chosen.data_identifier
    names = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").glob("*.nii.gz"))
    (folder / "gt_segmentations").mkdir(exist_ok=True)
    out.mkdir(exist_ok=True)
    remove_partial(folder / "made")
    left = [name for name in names if not (out / f"{name}.pkl").exists()]
    _each(partial(_preprocess_case, raw, folder, settings.configuration), left, settings.processes)
    maps = [] if settings.confidence is None else missing_sidecars(raw, out, ".nii.gz")
    left = [name for name, _ in maps]
    _each(partial(_bring_confidence, raw, folder, settings.configuration), left, settings.processes)


def _each(work: Callable[[str], None], names: list[str], processes: int) -> None:
    if processes == 1 or len(names) < 2:
        for name in names:
            work(name)
            tell(case=name)
        return
    with multiprocessing.get_context("spawn").Pool(min(processes, len(names)), torch.set_num_threads, (1,)) as pool:
        for name, _ in zip(names, pool.imap(work, names), strict=True):
            tell(case=name)


def _preprocess_case(raw: Path, folder: Path, configuration: str, name: str) -> None:
    """Preprocess one case elsewhere and move it to its place, the file that says so last."""
    plans, about = PlansManager(str(folder / f"{PLANS}.json")), read_json(raw / "dataset.json")
    chosen = plans.get_configuration(configuration)
    image, labels = raw / "imagesTr" / f"{name}_0000.nii.gz", raw / "labelsTr" / f"{name}.nii.gz"
    with whole_folder(folder / "made" / name) as partial_folder:
        stem = str(partial_folder / name)
        chosen.preprocessor_class(verbose=False).run_case_save(stem, [str(image)], str(labels), plans, chosen, about)
    made = folder / "made" / name
    shutil.copy(labels, folder / "gt_segmentations" / labels.name)
    for ending in (".b2nd", "_seg.b2nd", ".pkl"):
        (made / f"{name}{ending}").replace(folder / chosen.data_identifier / f"{name}{ending}")
    made.rmdir()


def _bring_confidence(raw: Path, folder: Path, configuration: str, name: str) -> None:
    plans = PlansManager(str(folder / f"{PLANS}.json"))
    chosen = plans.get_configuration(configuration)
    write_sidecar(raw / "confidenceTr" / f"{name}.nii.gz", name, folder / chosen.data_identifier, plans, chosen)


def train(asked: Request, fold: Fold) -> None:
    """Train one fold to its end: from its newest checkpoint, from the given weights, or from nothing."""
    trainer = _trainer(asked, fold)
    folder = Path(str(trainer.output_folder))
    if (folder / FINAL).exists():
        return
    remove_partial(folder)
    there = [folder / name for name in CHECKPOINTS if (folder / name).exists()]
    if there:
        trainer.load_checkpoint(str(max(there, key=lambda path: path.stat().st_mtime)))
    elif asked.initial is not None:
        trainer.initialize()
        network: Any = trainer.network
        transfer_weights(network, asked.initial, asked.settings.head_transfer)
    trainer.run_training()


def _trainer(asked: Request, fold: Fold) -> ScheduledTrainer:
    settings, folder = asked.settings, _folder("preprocessed", asked.dataset)
    device: str = asked.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":  # as nnU-Net's own command does
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark = True
    schedule = settings.schedule(asked.stage)

    def report(epoch: int, loss: float, dice: float) -> None:
        tell(epoch=epoch, of=schedule.epochs, fold=str(fold), loss=loss, dice=dice)

    plans = {**read_json(folder / f"{PLANS}.json"), "continue_training": False}
    about = read_json(folder / "dataset.json")
    kind = configured_trainer(schedule, asked.weights, report)
    return kind(plans, settings.configuration, fold, about, torch.device(device))  # pyright: ignore


if __name__ == "__main__":
    end_with_parent()
    try:
        main(Path(sys.argv[1]))
    except InputError as error:
        sys.exit(str(error))
