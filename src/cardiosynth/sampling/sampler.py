"""How latents are drawn: the solver, its steps, and what is watched on the way, as one frozen value."""

from typing import Any, Literal

import pydantic
import torch
from jaxtyping import Float
from torch import Tensor

from cardiosynth.core.config import Settings
from cardiosynth.diffusion.denoiser import Denoiser
from cardiosynth.diffusion.process import Process, Spacing, times
from cardiosynth.sampling import solvers
from cardiosynth.sampling.confidence import ConfidenceSettings
from cardiosynth.training.settings import Precision

SOLVERS = {
    "ddim": solvers.ddim,
    "euler": solvers.euler,
    "heun": solvers.heun,
    "dpm_solver_pp_2m": solvers.dpm_solver_pp_2m,
}
"""Those that draw nothing on their way."""


class SamplerSettings(Settings):
    """How latents are drawn.

    Attributes:
        solver: a function of ``sampling/solvers.py``. Published: ddpm_ancestral.
        steps: from noise to data. Published 1000.
        spacing: of the times; ``angle`` suits DDPM schedules with few steps, ``time`` rectified flow.
        confidence: settings of the confidence map, or None for none.
        clamp: limit of the predicted x0 in normalized latents, or None.
        precision: of the networks; noise arithmetic is float32 in any case.
    """

    solver: Literal["ddpm_ancestral", "ddim", "euler", "heun", "dpm_solver_pp_2m"] = "dpm_solver_pp_2m"
    steps: int = pydantic.Field(default=20, ge=1)
    spacing: Spacing = "time"
    confidence: ConfidenceSettings | None = ConfidenceSettings()
    clamp: float | None = pydantic.Field(default=5.0, gt=0)
    precision: Precision = "auto"

    @pydantic.model_validator(mode="after")
    def _enough_images(self) -> "SamplerSettings":
        if self.confidence is not None and self.confidence.num_images(self.steps) < 2:
            raise ValueError(
                f"{self.steps} steps with confidence.interval {self.confidence.interval} give one image and confidence "
                "needs two; raise steps, lower the interval, or set confidence to null"
            )
        return self


def draw_latent(
    settings: SamplerSettings,
    denoiser: Denoiser,
    process: Process,
    noise: Float[Tensor, "b c *latent"],
    condition: Any,
    *,
    rng: torch.Generator,
    callback: solvers.Callback | None = None,
) -> Float[Tensor, "b c *latent"]:
    """Return the data that ``noise`` becomes.

    Args:
        settings: which solver, how many steps.
        denoiser: predicts x0.
        process: the one it was trained with.
        noise: standard normal.
        condition: handed to the denoiser as it is.
        rng: what the ancestral solver draws from.
        callback: sees every step.
    """
    grid = times(settings.steps, settings.spacing, process)
    if settings.solver == "ddpm_ancestral":
        return solvers.ddpm_ancestral(denoiser, process, grid, noise, condition, rng=rng, callback=callback)
    return SOLVERS[settings.solver](denoiser, process, grid, noise, condition, callback=callback)
