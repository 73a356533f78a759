"""Peers that are latent diffusion, as values of the project's stages: voxels and wavelets are latents, too.

What they share stands here: how a size becomes a generator on the terms of a comparison, and the small settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cardiosynth.autoencoder.fixed import fixed_settings
from cardiosynth.autoencoder.losses import ReconstructionSettings
from cardiosynth.autoencoder.networks import AutoencoderSettings
from cardiosynth.autoencoder.task import AutoencoderStage
from cardiosynth.baselines.method import Terms
from cardiosynth.diffusion.control import ConditionSettings
from cardiosynth.diffusion.denoiser import Prediction
from cardiosynth.diffusion.settings import DiffusionStage
from cardiosynth.diffusion.unet import DenoiserSettings
from cardiosynth.sampling.generator import Generator, LatentDiffusionGenerator, LatentDiffusionStages
from cardiosynth.sampling.sampler import SamplerSettings
from cardiosynth.training.settings import TrainingSettings


@dataclass(frozen=True)
class LatentDiffusion:
    """Builds the generator of one size on the terms of a comparison.

    Stages keep their shares of the steps, and one that has nothing to learn takes none. Crops are no larger than the
    cases. Confidence maps are left out, which no table needs.

    Attributes:
        stages: how its own authors, or we, train it.
        sampler: how it draws.
    """

    stages: LatentDiffusionStages
    sampler: SamplerSettings

    def __call__(self, terms: Terms) -> Generator:
        """Return the untrained generator."""
        stages = {"autoencoder": self.stages.autoencoder, "diffusion": self.stages.diffusion}
        if self.stages.control is not None:
            stages["control"] = self.stages.control
        fixed = self.stages.autoencoder.network.is_fixed
        learned = {name: stage for name, stage in stages.items() if name != "autoencoder" or not fixed}
        total, changed = sum(stage.training.steps for stage in learned.values()), {"control": None}
        for name, stage in stages.items():
            share = stage.training.steps / total if name in learned else 1.0
            training = terms.training(stage.training, share)
            changed[name] = stage.model_copy(update={"training": training, "crop": _within(stage.crop, terms.shape)})
        whole = self.stages.model_copy(update={"intensity": terms.intensity, **changed})
        return LatentDiffusionGenerator(whole, self.sampler.model_copy(update={"confidence": None}), terms.device)


def _within(crop: tuple[int, ...] | None, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    return None if crop is None else tuple(map(min, zip(crop, shape, strict=True)))


SHORT = 100
"""Steps below which a stage is that of a test: smaller, and in float32 whatever the processor has."""


def short_training(steps: int, batch_size: int, learning_rate: float) -> TrainingSettings:
    """Return what all stages of ``tiny`` and ``demo`` share: a short warm-up, then a cosine to 0."""
    short = steps < SHORT
    return TrainingSettings(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, schedule="cosine",
        warmup_steps=min(30, steps // 4), weight_decay=1e-4, betas=(0.9, 0.99), ema_decay=0.0 if short else 0.995,
        checkpoint_every=max(1, steps // 4), log_every=max(1, steps // 100), precision="fp32" if short else "auto",
    )  # fmt: skip


def learned_latents(training: TrainingSettings) -> Literal["sampled", "mean"]:
    """Return which latents a stage learns: draws, but for tests, whose encoders are still so uncertain that these are
    noise.
    """
    return "mean" if training.steps < SHORT else "sampled"


def untrained(kind: str, dims: int) -> AutoencoderStage:
    """Return the stage of an autoencoder that nothing is learned of: ``identity`` or ``haar``."""
    return AutoencoderStage(network=fixed_settings(kind, dims), crop=(64,) * dims)


def without_autoencoder(
    kind: str, dims: int, paper: DiffusionStage, sampler: SamplerSettings, small: Mapping[str, TrainingSettings]
) -> dict[str, LatentDiffusion]:
    """Return the sizes of a method whose latents are voxels or wavelets.

    Args:
        kind: of latents, ``identity`` or ``haar``.
        dims: spatial dimensions.
        paper: the stage with the official values.
        sampler: likewise.
        small: how ``tiny`` and ``demo`` are trained; they have small networks, and what predicts noise predicts v.
    """

    def size(stage: DiffusionStage, steps: int) -> LatentDiffusion:
        stages = LatentDiffusionStages(autoencoder=untrained(kind, dims), diffusion=stage, control=None)
        return LatentDiffusion(stages, sampler.model_copy(update={"steps": steps}))

    prediction = QUICKLY if paper.prediction == "epsilon" else paper.prediction
    sizes = {"paper": size(paper, sampler.steps)}
    for name, denoiser, steps in (("tiny", TINY_UNET, 8), ("demo", SMALL_UNET, 50)):
        changes = {"denoiser": denoiser, "training": small[name], "prediction": prediction}
        sizes[name] = size(paper.model_copy(update=changes), steps)
    return sizes


QUICKLY: Prediction = "v"
"""What ``tiny`` and ``demo`` predict where noise is published, as our own small recipes do: at the noisy end, where a
sampler begins, little of an image can be told from noise, and few steps do not learn to look at the mask there."""
EVEN = ReconstructionSettings(l1=1.0, l2=0.0, heart=0.0, thin_weight=0.0)
"""Every voxel counts alike; perceptual losses, which need a network trained elsewhere, are left out of all peers."""
WHOLE_MASK = ConditionSettings(kind="mask", encoding="one_hot", structures="all")
"""One channel per structure, surroundings where the label table has some."""
CONCATENATED = WHOLE_MASK.model_copy(update={"inject": "concatenate", "stem": "nearest"})
"""The mask beside x_t at the same resolution, as it is."""

TINY_UNET = DenoiserSettings(
    channels=(8, 16, 16), attention_levels=(False, False, False), num_head_channels=16, norm_num_groups=8
)
TINY_LATENT_UNET = DenoiserSettings(
    channels=(32, 64), attention_levels=(False, False), num_head_channels=32, norm_num_groups=8
)
SMALL_UNET = DenoiserSettings(
    channels=(16, 32, 64, 64), attention_levels=(False, False, False, True), num_head_channels=32, norm_num_groups=8
)
"""For voxels and wavelets, whose grids are large."""
LATENT_UNET = DenoiserSettings(channels=(32, 64, 128), norm_num_groups=16)
"""That of our own demo, for grids of a quarter per axis."""


def small_autoencoder(dims: int, crop: int, steps: int) -> AutoencoderStage:
    """Return the Gaussian autoencoder of our own demo, or for a handful of steps a tiny one."""
    sizes = {"channels": (8, 16), "num_res_blocks": (1, 1)} if steps < SHORT else {}
    return AutoencoderStage(
        network=AutoencoderSettings.model_validate({"spatial_dims": dims, **sizes}), loss=EVEN, thin_fraction=0.0,
        crop=(crop,) * dims, training=short_training(steps, 4, 2e-3),
    )  # fmt: skip
