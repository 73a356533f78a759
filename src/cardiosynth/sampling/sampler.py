"""How latents are drawn: the solver, its steps, and what is watched on the way, as one frozen value."""

from typing import Any, Literal

import pydantic
import torch
from jaxtyping import Float
from torch import Tensor

from cardiosynth.core.config import Settings
from cardiosynth.diffusion.denoiser import Denoiser, diffuse
from cardiosynth.diffusion.process import Process, Spacing, TimeShift, times
from cardiosynth.sampling import solvers
from cardiosynth.sampling.confidence import ConfidenceSettings
from cardiosynth.sampling.guidance import Guidance
from cardiosynth.training.settings import Precision

SOLVERS = {
    "ddim": solvers.ddim,
    "euler": solvers.euler,
    "heun": solvers.heun,
    "dpm_solver_pp_2m": solvers.dpm_solver_pp_2m,
}
"""Those that draw nothing on their way."""
OF_THE_MACHINE = {"guidance_stacked", "decode_budget_gb"}
"""Settings that say where and how samples are computed, not which."""


class SamplerSettings(Settings):
    """How latents are drawn.

    Attributes:
        start: ``noise``; ``image``, the noised latent of the template's image (FQCDM's Algorithm 1; the result then
            inherits of that patient); or ``reconstruction``, that image encoded and decoded, without any sampling.
        strength: time at which an ``image`` is noised, in (0, 1]: 1 is the end of the process. The paper's T = 100 with
            DDPM's betas keeps 0.364 of the image's variance, as the cosine process does at 0.588.
        solver: a function of ``sampling/solvers.py``. Published: ddpm_ancestral.
        steps: from noise to data. Published 1000.
        spacing: of the times; ``auto`` takes ``angle`` for DDPM schedules and ``time`` for rectified flow. DDPM's own
            1000 steps are even in ``time``.
        shift: moves the times towards noise, for volumes larger than MAISI's base; MAISI does so by volume for
            rectified flow.
        guidance_template: w_template of ``sampling/guidance.py``, 0 for none; the model must have been trained with
            ``control.drop_template``. Every weight that is not 0 adds a call of the networks to each step.
        guidance_mask: w_mask, likewise, with ``control.drop_mask``.
        guidance_stacked: whether these calls are one batch, for more memory.
        confidence: settings of the confidence map, or None for none.
        clamp: limit of the predicted x0 in normalized latents; ``image`` (published, DDPM, Med-DDPM, WDM) limits it to
            what images hold, through the inverse transform where latents are wavelets, for codecs of kind ``identity``
            and ``haar``; or None.
        precision: of the networks; noise arithmetic is float32 in any case.
        decode_budget_gb: memory that decoding may take, or None for as much as a whole volume needs at once.
    """

    start: Literal["noise", "image", "reconstruction"] = "noise"
    strength: float = pydantic.Field(default=1.0, gt=0, le=1)
    solver: Literal["ddpm_ancestral", "ddim", "euler", "heun", "dpm_solver_pp_2m"] = "dpm_solver_pp_2m"
    steps: int = pydantic.Field(default=20, ge=1)
    spacing: Spacing = "auto"
    shift: TimeShift = TimeShift()
    guidance_template: float = pydantic.Field(default=0.0, ge=0)
    guidance_mask: float = pydantic.Field(default=0.0, ge=0)
    guidance_stacked: bool = False
    confidence: ConfidenceSettings | None = ConfidenceSettings()
    clamp: pydantic.PositiveFloat | Literal["image"] | None = 5.0
    precision: Precision = "auto"
    decode_budget_gb: float | None = pydantic.Field(default=None, gt=0)

    @pydantic.model_validator(mode="after")
    def _enough_images(self) -> "SamplerSettings":
        if self.strength != 1 and self.start != "image":
            raise ValueError(f"a strength of {self.strength:g} is for start 'image', not '{self.start}'; set both")
        if self.confidence is not None and self.confidence.num_images(self.steps) < 2:
            raise ValueError(
                f"{self.steps} steps with confidence.interval {self.confidence.interval} give one image and confidence "
                "needs two; raise steps, lower the interval, or set confidence to null"
            )
        return self

    @property
    def guidance(self) -> Guidance:
        """The weights of guidance."""
        return Guidance(self.guidance_template, self.guidance_mask)

    def provenance(self) -> dict[str, Any]:
        """Return what shaped the samples, for their provenance."""
        untold = {"noise": {"start", "strength"}, "image": set(), "reconstruction": {"strength"}}[self.start]
        return self.model_dump(mode="json", exclude=OF_THE_MACHINE | untold)


def draw_latent(
    settings: SamplerSettings,
    denoiser: Denoiser,
    process: Process,
    noise: Float[Tensor, "b c *latent"],
    condition: Any,
    *,
    rng: torch.Generator,
    callback: solvers.Callback | None = None,
    encoded: Float[Tensor, "b c *latent"] | None = None,
) -> Float[Tensor, "b c *latent"]:
    """Return the data that ``noise`` becomes, or that an image becomes that was noised with it.

    Args:
        settings: which solver, how many steps.
        denoiser: predicts x0.
        process: the one it was trained with.
        noise: standard normal.
        condition: handed to the denoiser as it is.
        rng: what the ancestral solver draws from.
        callback: sees every step.
        encoded: the latents of images to start from, noised to ``settings.strength``; None starts from noise alone.
    """
    ratio, start = settings.shift.ratio(noise.shape[2:]), 1.0 if encoded is None else settings.strength
    grid, x = times(settings.steps, settings.spacing, process, ratio, start), noise
    if encoded is not None:
        x = diffuse(encoded, noise, process.alpha(grid[0]).to(noise), process.sigma(grid[0]).to(noise))
    if settings.solver == "ddpm_ancestral":
        return solvers.ddpm_ancestral(denoiser, process, grid, x, condition, rng=rng, callback=callback)
    return SOLVERS[settings.solver](denoiser, process, grid, x, condition, callback=callback)
