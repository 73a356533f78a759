"""What the recipes of all systems have in common."""

from abc import ABC, abstractmethod

import pydantic

from cardiosynth.autoencoder.task import AutoencoderStage
from cardiosynth.autoencoder.verdict import VerdictThresholds
from cardiosynth.core.config import Settings
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.segmentation.task import SegmentationStage


class Recipe(Settings, ABC):
    """Everything that decides what is trained and made. A field that bears the name of a stage has its settings.

    Attributes:
        name: SYSTEM/SIZE.
        intensity: how images become model units.
        autoencoder: first stage.
        gate: what the autoencoder must keep before anything is trained on its latents.
        segmenter: the downstream network.
    """

    name: str = pydantic.Field(pattern=r"^[a-z0-9]+/[a-z0-9]+$")
    intensity: IntensityScale = IntensityScale()
    autoencoder: AutoencoderStage
    gate: VerdictThresholds = VerdictThresholds()
    segmenter: SegmentationStage

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Voxels per axis of every case."""
