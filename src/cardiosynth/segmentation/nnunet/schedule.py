"""How long and how fast one nnU-Net training learns."""

import pydantic

from cardiosynth.core.config import Settings

STOCK, CAL = "nnUNetTrainer", "nnUNetTrainerCAL"


class Schedule(Settings):
    """One training; the defaults are nnU-Net's.

    Attributes:
        epochs: over which the learning rate falls to 0, as a power of 0.9 of what is left.
        learning_rate: SGD's, at the beginning.
        iterations: optimizer steps per epoch.
        validation_iterations: batches per epoch on which loss and Dice are watched.
        checkpoint_every: epochs between checkpoints to go on from; the best epoch so far has one beside.
    """

    epochs: int = pydantic.Field(default=1000, ge=1)
    learning_rate: float = pydantic.Field(default=1e-2, gt=0)
    iterations: int = pydantic.Field(default=250, ge=1)
    validation_iterations: int = pydantic.Field(default=50, ge=1)
    checkpoint_every: int = pydantic.Field(default=50, ge=1)


def trainer_name(schedule: Schedule, weighted: bool) -> str:
    """Return what the folder of a training begins with, as nnU-Net names its own variants: ``..._800epochs``."""
    stem = CAL if weighted else STOCK
    return stem if schedule.epochs == Schedule().epochs else f"{stem}_{schedule.epochs}epochs"
