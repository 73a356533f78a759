"""What the recipes of all systems have in common."""

from abc import ABC, abstractmethod

import pydantic

from cardiosynth.anatomy.masks import MaskSettings
from cardiosynth.anatomy.template import TemplateSettings
from cardiosynth.autoencoder.task import AutoencoderStage
from cardiosynth.autoencoder.verdict import VerdictThresholds
from cardiosynth.core.config import Settings
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.diffusion.settings import DiffusionStage
from cardiosynth.sampling.sampler import SamplerSettings
from cardiosynth.segmentation.task import SegmentationStage


class Recipe(Settings, ABC):
    """Everything that decides what is trained and made. A field that bears the name of a stage has its settings.

    Attributes:
        name: SYSTEM/SIZE.
        intensity: how images become model units.
        autoencoder: first stage.
        gate: what the autoencoder must keep before anything is trained on its latents.
        diffusion: second stage: FCaS's without conditions, FQCDM's told of masks.
        sampler: how latents are drawn.
        masks: how new masks are made.
        templates: which template a mask gets in synthesis. Published (FCaS): random.
        segmenter: the downstream network.
    """

    name: str = pydantic.Field(pattern=r"^[a-z0-9]+/[a-z0-9]+$")
    intensity: IntensityScale = IntensityScale()
    autoencoder: AutoencoderStage
    gate: VerdictThresholds = VerdictThresholds()
    diffusion: DiffusionStage
    sampler: SamplerSettings
    masks: MaskSettings = MaskSettings()
    templates: TemplateSettings = TemplateSettings()
    segmenter: SegmentationStage

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Voxels per axis of every case."""
