"""A learning rate that falls when a loss no longer does (PyTorch's ReduceLROnPlateau), resumed bit for bit."""

import math

import pydantic
import torch
from torch import Tensor

from cardiosynth.core.config import Settings


class PlateauSettings(Settings):
    """When the learning rate falls. Defaults are PyTorch's; FQCDM names the rule and none of its numbers.

    It watches the loss of training, averaged over an epoch: every stage has that one, with or without held-out cases,
    and every process knows it.

    Attributes:
        part: which part of the first player's loss is watched. Against an opponent the total rises when the opponent
            joins or wins; watch the reconstruction.
        every: steps that are averaged, an epoch.
        factor: what the rate is multiplied by.
        patience: averages in a row that may bring nothing better before it is.
        threshold: share of the best average by which a better one must lie below it.
        smallest: share of the full rate below which it does not fall.
    """

    part: str = "total"
    every: int = pydantic.Field(ge=1)
    factor: float = pydantic.Field(default=0.1, gt=0, lt=1)
    patience: int = pydantic.Field(default=10, ge=0)
    threshold: float = pydantic.Field(default=1e-4, ge=0)
    smallest: float = pydantic.Field(default=1e-3, gt=0, le=1)


class Plateau:
    """What has been seen of the loss, and what became of the rate.

    Attributes:
        share: what the learning rate is multiplied by, 1 at first.
    """

    def __init__(self, settings: PlateauSettings):
        self._settings = settings
        self.share = 1.0
        self._sum, self._count, self._best, self._bad = 0.0, 0, math.inf, 0

    def take(self, loss: float) -> None:
        """Take in the loss of one step."""
        settings = self._settings
        self._sum, self._count = self._sum + loss, self._count + 1
        if self._count < settings.every:
            return
        average = self._sum / self._count
        self._sum, self._count = 0.0, 0
        # Of a negative loss, as some adversaries have, the share is taken of its absolute value.
        if average < self._best - settings.threshold * (abs(self._best) if math.isfinite(self._best) else 0):
            self._best, self._bad = average, 0
            return
        self._bad += 1
        if self._bad > settings.patience:
            self.share, self._bad = max(self.share * settings.factor, settings.smallest), 0

    def tensor(self) -> Tensor:
        """Return everything that is remembered, to be saved."""
        values = (self.share, self._sum, self._count, self._best, self._bad)
        return torch.tensor(values, dtype=torch.float64)

    def restore(self, saved: Tensor) -> None:
        """Remember what ``tensor`` returned."""
        self.share, self._sum, count, self._best, bad = saved.tolist()
        self._count, self._bad = int(count), int(bad)
