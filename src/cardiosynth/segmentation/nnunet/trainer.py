"""nnU-Net's trainer with confidence. Network, plans, checkpoints and inference stay nnU-Net's own.

nnU-Net fixes what a trainer's ``__init__`` takes, so what can be set are attributes of the class, and
:func:`configured_trainer` makes a class with other values.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from nnunetv2.paths import nnUNet_raw  # pyright: ignore[reportMissingImports]
from nnunetv2.training.dataloading.nnunet_dataset import (  # pyright: ignore[reportMissingImports]
    nnUNetDatasetBlosc2,
)
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper  # pyright: ignore[reportMissingImports]
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # pyright: ignore[reportMissingImports]
from torch import Tensor

from cardiosynth.core.errors import InputError
from cardiosynth.core.store import whole_file
from cardiosynth.segmentation.losses import ConfidenceWeights
from cardiosynth.segmentation.nnunet.dataset import ConfidenceDataset
from cardiosynth.segmentation.nnunet.loss import ConfidenceLoss, at_scale_of
from cardiosynth.segmentation.nnunet.patches import Place
from cardiosynth.segmentation.nnunet.schedule import STOCK, Schedule, trainer_name
from cardiosynth.segmentation.nnunet.sidecar import missing_sidecars, sidecar, sidecar_folder, write_sidecar
from cardiosynth.segmentation.nnunet.transforms import Carrying


class ScheduledTrainer(nnUNetTrainer):
    """nnU-Net's trainer with another schedule, and with checkpoints that are whole or absent.

    Attributes:
        schedule: how long and how fast it learns.
        report: called at the end of every epoch with its number, counted from 1, training loss and mean Dice.
    """

    schedule: Schedule = Schedule()
    report: Callable[[int, float, float], None] | None = None

    def initialize(self) -> None:
        """Set the schedule, then build network and optimizer as nnU-Net does."""
        self.num_epochs, self.initial_lr = self.schedule.epochs, self.schedule.learning_rate
        self.num_iterations_per_epoch = self.schedule.iterations
        self.num_val_iterations_per_epoch = self.schedule.validation_iterations
        self.save_every = self.schedule.checkpoint_every
        super().initialize()

    def save_checkpoint(self, filename: str) -> None:
        """Write a checkpoint that names nnU-Net's own trainer, so that prediction needs nothing of ours."""
        if self.local_rank != 0 or self.disable_checkpointing:
            return super().save_checkpoint(filename)
        with whole_file(Path(filename)) as partial:
            super().save_checkpoint(str(partial))
            checkpoint = torch.load(partial, map_location="cpu", weights_only=False)  # nnU-Net keeps more than tensors
            torch.save({**checkpoint, "trainer_name": STOCK}, partial)
        return None

    def on_epoch_end(self) -> None:
        """Finish the epoch and report it."""
        super().on_epoch_end()
        if self.report is not None and self.local_rank == 0:
            loss: Any = self.logger.get_value("train_losses", step=-1)
            dice: Any = self.logger.get_value("mean_fg_dice", step=-1)
            self.report(self.current_epoch, float(loss), float(dice))


class nnUNetTrainerCAL(ScheduledTrainer):
    """nnU-Net's trainer with Confidence-aware Adaptive Learning (FCaS Eq. 9).

    Cases with a map in ``confidenceTr`` of the raw dataset are weighted by it; all others train as in nnU-Net, bit for
    bit where a batch holds none of the former.

    Attributes:
        weights: how confidence becomes a weight.
    """

    weights: ConfidenceWeights = ConfidenceWeights()

    def get_dataloaders(self) -> Any:
        """Return nnU-Net's loaders; cases and augmentation of each share the place of the patch at work."""
        self.place = Place()
        return super().get_dataloaders()

    def get_tr_and_val_datasets(self) -> tuple[ConfidenceDataset, ConfidenceDataset]:
        """Return nnU-Net's split, every case with its weights."""
        training, validation = super().get_tr_and_val_datasets()
        if self.dataset_class is not nnUNetDatasetBlosc2:
            raise InputError(f"{self.preprocessed_dataset_folder} is of an old nnU-Net; preprocess it again.")
        self._bring_confidence()
        folder = str(self.preprocessed_dataset_folder)
        parts = (
            ConfidenceDataset(folder, list(part.identifiers), self.weights, self.place)
            for part in (training, validation)
        )
        return next(parts), next(parts)

    def _bring_confidence(self) -> None:
        """Write the side-cars that are missing, where the raw dataset is at hand; one process does it for all."""
        folder = Path(str(self.preprocessed_dataset_folder))
        if self.local_rank == 0 and nnUNet_raw.is_set():
            raw = Path(os.fspath(nnUNet_raw)) / self.plans_manager.dataset_name
            for case_id, source in missing_sidecars(raw, folder, self.dataset_json["file_ending"]):
                write_sidecar(source, case_id, folder, self.plans_manager, self.configuration_manager)
        if self.is_ddp:
            torch.distributed.barrier()
        found = len(list(sidecar_folder(folder).glob(sidecar(folder, "*").name)))
        self.print_to_log_file(f"{found} cases have a confidence map; every other one trains as in nnU-Net.")

    # What these two take is nnU-Net's affair and grows from version to version.
    def get_training_transforms(self, *args: Any, **kwargs: Any) -> Carrying:
        """Return nnU-Net's augmentation, which takes the confidence along."""
        return self._carrying(super().get_training_transforms(*args, **kwargs))

    def get_validation_transforms(self, *args: Any, **kwargs: Any) -> Carrying:
        """Return nnU-Net's preparation of validation samples, which takes the confidence along."""
        return self._carrying(super().get_validation_transforms(*args, **kwargs))

    def _carrying(self, stock: Any) -> Carrying:
        return Carrying(stock, self.place)

    def _build_loss(self) -> Any:
        if self.label_manager.has_regions or self.is_cascaded:
            what = "regions" if self.label_manager.has_regions else "a cascade"
            raise InputError(
                f"{type(self).__name__} does not train {what}; give one code per structure and no cascade."
            )
        stock = super()._build_loss()
        deep = isinstance(stock, DeepSupervisionWrapper)
        weighted = ConfidenceLoss(stock.loss if deep else stock)
        self.weighted_loss = DeepSupervisionWrapper(weighted, stock.weight_factors) if deep else weighted
        return stock

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Take nnU-Net's training step with the batch's weights."""
        return self._weighted(super().train_step, batch)

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Take nnU-Net's validation step; the loss is weighted, the Dice that it reports is not."""
        return self._weighted(super().validation_step, batch)

    def _weighted(self, step: Callable[[dict[str, Any]], dict[str, Any]], batch: dict[str, Any]) -> dict[str, Any]:
        channels = batch["data"]
        # Looked at before the copy, so that no GPU is waited for, and by NumPy, which is seven times as fast.
        trusted = not channels[:, -1].numpy().any()
        channels = channels.to(self.device, non_blocking=True)
        plain = {**batch, "data": channels[:, :-1].contiguous()}
        if trusted:
            return step(plain)
        weight = 1 - channels[:, -1:]
        stock = self.loss

        def weighted(output: Any, target: Any) -> Tensor:
            deep = isinstance(target, list)
            return self.weighted_loss(output, target, [at_scale_of(weight, t) for t in target] if deep else weight)

        self.loss = weighted
        try:
            return step(plain)
        finally:
            self.loss = stock


def configured_trainer(
    schedule: Schedule,
    weights: ConfidenceWeights | None = None,
    report: Callable[[int, float, float], None] | None = None,
) -> type[ScheduledTrainer]:
    """Return a trainer with other values, named as nnU-Net names its own variants, ``..._800epochs``.

    Args:
        schedule: how long and how fast it learns.
        weights: how confidence becomes a weight; None trains without looking at confidence.
        report: called at the end of every epoch.
    """
    base = ScheduledTrainer if weights is None else nnUNetTrainerCAL
    values: dict[str, Any] = {"schedule": schedule, "report": None if report is None else staticmethod(report)}
    if weights is not None:
        values["weights"] = weights
    made: Any = type(trainer_name(schedule, weights is not None), (base,), values)
    return made
