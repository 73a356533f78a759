"""Everything that decides how the two diffusion stages are trained."""

from typing import Literal

import pydantic

from cardiosynth.anatomy.appearance import AppearanceSettings
from cardiosynth.core.config import Settings
from cardiosynth.diffusion.control import ConditionSettings
from cardiosynth.diffusion.denoiser import Prediction, check_prediction
from cardiosynth.diffusion.objective import ObjectiveSettings
from cardiosynth.diffusion.process import ProcessSettings, build_process
from cardiosynth.diffusion.unet import DenoiserSettings
from cardiosynth.training.settings import TrainingSettings
from cardiosynth.training.watch import WatchSettings


class DiffusionStage(Settings):
    """The first stage, and where it is told of masks the only one.

    Attributes:
        denoiser: size of the U-Net (and of the ControlNet of the next stage).
        condition: what the network is told: null for nothing (published, FCaS), or of ``kind: mask`` (published, FQCDM:
            the mask, in the decoder). Templates belong to the second stage.
        drop_mask: probability that a training example lacks its mask, which guidance on it needs. Published 0.
        process: how latents are noised. Published: DDPM; FCaS T = 1000, FQCDM T = 100.
        prediction: what the network predicts. Published: epsilon.
        normalization: of the latents: null for a mean of 0 and a variance of 1 per channel, as measured; ``raw`` as the
            codec makes them, for kinds ``identity`` and ``haar`` (published, Med-DDPM, WDM); ``codebook`` for the range
            of the codes as [-1, 1] (published, Medical Diffusion).
        objective: which times and places count how much.
        crop: voxels per axis of an example around the heart, or null for whole volumes: multiples of the compression
            times the U-Net's multiple.
        encode_budget_gb: memory that encoding a case may take, or null for as much as a whole volume needs at once.
        watch: what is looked at on the way.
        training: the loop's. Published: learning rate 1e-5.
    """

    denoiser: DenoiserSettings = DenoiserSettings()
    condition: ConditionSettings | None = None
    drop_mask: float = pydantic.Field(default=0.0, ge=0, lt=1)
    process: ProcessSettings = ProcessSettings()
    prediction: Prediction = "epsilon"
    normalization: Literal["raw", "codebook"] | None = None
    objective: ObjectiveSettings = ObjectiveSettings()
    crop: tuple[int, ...] | None = None
    encode_budget_gb: float | None = pydantic.Field(default=None, gt=0)
    watch: WatchSettings = WatchSettings()
    training: TrainingSettings = TrainingSettings()

    @pydantic.model_validator(mode="after")
    def _determined(self) -> "DiffusionStage":
        check_prediction(self.prediction, build_process(self.process))
        if self.condition is not None and self.condition.kind != "mask":
            raise ValueError(
                "the first stage sees one case at a time and no template; set diffusion.condition.kind=mask"
            )
        if self.condition is not None and self.condition.classes is not None and self.drop_mask == 0:
            raise ValueError("where no structure is, a network of classes 'one' is told nothing; set drop_mask=0.5")
        if self.condition is None and self.drop_mask > 0:
            raise ValueError("a network that is told no mask has none to drop; set drop_mask=0")
        return self


class ControlStage(Settings):
    """The second stage. Process, prediction and sizes are the first stage's.

    Attributes:
        condition: what the network is told. Published: template, bits, control.
        bidirectional: train both directions of every pair (Eq. 4). Published true.
        freeze_unet: leave the U-Net as the first stage made it; for ``inject: control`` and ``adapter`` only. Published
            (ControlNet, T2I-Adapter) true.
        appearance: looks that both images of a pair are given alike, so that the template tells of the target.
        drop_template: probability that a training example lacks its template, which guidance on it needs. Published 0.
        drop_mask: probability that it lacks its mask, likewise. Published 0.
        objective: which times and places count how much.
        crop: voxels per axis of an example around the heart, or null for whole volumes; see the first stage.
        encode_budget_gb: memory that encoding a case may take; see the first stage.
        watch: what is looked at on the way.
        training: the loop's; a batch of n examples holds 2 n directions. Published: learning rate 1e-5.
    """

    condition: ConditionSettings = ConditionSettings()
    bidirectional: bool = True
    freeze_unet: bool = False
    appearance: AppearanceSettings = AppearanceSettings()
    drop_template: float = pydantic.Field(default=0.0, ge=0, lt=1)
    drop_mask: float = pydantic.Field(default=0.0, ge=0, lt=1)
    objective: ObjectiveSettings = ObjectiveSettings()
    crop: tuple[int, ...] | None = None
    encode_budget_gb: float | None = pydantic.Field(default=None, gt=0)
    watch: WatchSettings = WatchSettings()
    training: TrainingSettings = TrainingSettings()

    @pydantic.model_validator(mode="after")
    def _can_learn(self) -> "ControlStage":
        if self.freeze_unet and self.condition.inject not in ("control", "adapter"):
            raise ValueError(
                "freeze_unet leaves no weight that reads the concatenated condition; set condition.inject=control"
            )
        if self.condition.classes is not None:
            raise ValueError("classes 'one' is for a first stage that is told of masks; set condition.classes=null")
        if self.appearance.variants and self.condition.kind == "mask":
            raise ValueError("condition.kind 'mask' has no template to tell a look; set appearance.variants=0")
        if self.drop_template > 0 and self.condition.kind == "mask":
            raise ValueError("condition.kind 'mask' has no template to drop; set drop_template=0 or another kind")
        return self
