"""The same work by nnU-Net's own commands, for whoever prefers them."""

from pathlib import Path

from cardiosynth.segmentation.nnunet.schedule import trainer_name
from cardiosynth.segmentation.nnunet.settings import Request

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
    real, number = int(request.real[7:10]), int(request.dataset[7:10])
    configuration, device = request.settings.configuration, request.settings.device
    lines = [
        f"export nnUNet_raw={run}/nnUNet_raw nnUNet_preprocessed={run}/nnUNet_preprocessed",
        f"export nnUNet_results={run}/nnUNet_results/{request.stage} nnUNet_extTrainer={TRAINERS}",
        f"nnUNetv2_plan_and_preprocess -d {real} -c {configuration} -pl {request.settings.planner}",
    ]
    if request.dataset != request.real:
        copies = [f"cp $nnUNet_raw/{request.dataset}/dataset.json $nnUNet_preprocessed/{request.dataset}/",
                  f"cp $nnUNet_preprocessed/{request.real}/dataset_fingerprint.json "
                  f"$nnUNet_preprocessed/{request.dataset}/"]  # fmt: skip
        lines += [
            f"nnUNetv2_move_plans_between_datasets -s {real} -t {number} -sp nnUNetPlans -tp nnUNetPlans",
            *copies,
            f"nnUNetv2_preprocess -d {number} -c {configuration}",
        ]
    trainer = trainer_name(request.settings.schedule(request.stage), request.weights is not None)
    rest = f" -tr {trainer}" + ("" if device == "auto" else f" -device {device}")
    if request.initial is not None:
        rest += f" -pretrained_weights {request.initial}"
    return lines + [f"nnUNetv2_train {number} {configuration} {fold}{rest}" for fold in request.folds]
