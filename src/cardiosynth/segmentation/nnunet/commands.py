"""The same work by nnU-Net's own commands, for whoever prefers them."""

from pathlib import Path

from cardiosynth.segmentation.nnunet.schedule import trainer_name
from cardiosynth.segmentation.nnunet.settings import PLANS, Request
from cardiosynth.segmentation.nnunet.splits import SPLITS

TRAINERS = Path(__file__).parent / "trainers"
"""What ``nnUNet_extTrainer`` has to name, so that nnU-Net's commands find our trainers."""


def commands(run: Path, request: Request) -> list[str]:
    """Return the lines of a shell that do what ``request`` asks for, as far as nnU-Net's commands can.

    They take the learning rate of a fresh training and never the output layers of other weights; numbers of epochs that
    neither nnU-Net nor `TRAINERS` has need a trainer of one's own.

    Args:
        run: the run's folder.
        request: what a stage asks for.
    """
    number, configuration, device = int(request.dataset[7:10]), request.settings.configuration, request.device
    lines = [
        f"export nnUNet_raw={run}/nnUNet_raw nnUNet_preprocessed={run}/nnUNet_preprocessed",
        f"export nnUNet_results={run}/nnUNet_results/{request.stage} nnUNet_extTrainer={TRAINERS}",
        *_planning(run, request),
    ]
    if request.dataset != request.real:
        planned, place = f"$nnUNet_preprocessed/{request.real}", f"$nnUNet_preprocessed/{request.dataset}"
        lines += [
            f"mkdir -p {place}",
            f"nnUNetv2_move_plans_between_datasets -s {int(request.real[7:10])} -t {number} -sp {PLANS} -tp {PLANS}",
            f"cp $nnUNet_raw/{request.dataset}/dataset.json {planned}/dataset_fingerprint.json {place}/",
            f"nnUNetv2_preprocess -d {number} -c {configuration} -np {request.settings.processes}",
        ]
    trainer = trainer_name(request.settings.schedule(request.stage), request.weights is not None)
    rest = f" -tr {trainer}" + ("" if device == "auto" else f" -device {device}")
    if request.initial is not None:
        rest += f" -pretrained_weights {request.initial}"
    return lines + [f"nnUNetv2_train {number} {configuration} {fold}{rest}" for fold in request.folds]


def _planning(run: Path, request: Request) -> list[str]:
    """Return the lines that plan, and preprocess what is planned for; own folds come along."""
    settings, number = request.settings, int(request.real[7:10])
    processes = settings.processes
    if settings.plans is None:
        return [
            f"nnUNetv2_plan_and_preprocess -d {number} -c {settings.configuration} -pl {settings.planner} "
            f"-overwrite_plans_name {PLANS} -npfp {processes} -np {processes}"
        ]
    place = f"$nnUNet_preprocessed/{request.real}"
    changes = " ".join(
        f"""-e 's/"{key}": "[^"]*"/"{key}": "{value}"/'"""
        for key, value in (("dataset_name", request.real), ("plans_name", PLANS))
    )
    copied = [name for name in ("dataset.json", SPLITS) if (run / "nnUNet_raw" / request.real / name).exists()]
    return [
        f"nnUNetv2_extract_fingerprint -d {number} -np {processes}",
        f"sed {changes} {settings.plans.resolve()} > {place}/{PLANS}.json",
        *(f"cp $nnUNet_raw/{request.real}/{name} {place}/" for name in copied),
        f"nnUNetv2_preprocess -d {number} -c {settings.configuration} -np {processes}",
    ]
