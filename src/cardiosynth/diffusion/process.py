"""Noising processes x = alpha(t) x0 + sigma(t) noise with t in [0, 1]: data at 0, noise at 1.

DDPM schedules and rectified flow are values of one contract. Sigma alone could not describe them: alpha of
rectified flow is 0 at t = 1. Solvers that must be finite at both ends work in the angle atan2(sigma, alpha).
"""

import math
from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import pydantic
import torch
from jaxtyping import Float
from torch import Tensor

from cardiosynth.core.config import Settings

Spacing = Literal["auto", "time", "angle"]
Numbers = Float[Tensor, "*shape"]
BASE_SIDE = 32
"""Latent voxels along each axis of the volume whose times are not shifted (MAISI: 32^3 = 32768 in all)."""


@runtime_checkable
class Process(Protocol):
    """The contract: alpha and sigma as functions of time, of the shape and dtype of ``t``.

    Attributes:
        spacing: in which measure the steps of a solver should be even.
    """

    spacing: Literal["time", "angle"]

    def alpha(self, t: Numbers) -> Numbers:
        """Return the share of the data, 1 at t = 0."""
        ...

    def sigma(self, t: Numbers) -> Numbers:
        """Return the standard deviation of the noise, 0 at t = 0."""
        ...


class VariancePreserving:
    """The DDPM process with alpha^2 + sigma^2 = 1, made continuous (FCaS section 3.1.1; MAISI's schedule).

    alpha_bar(n / T) is the product of 1 - beta over the first n steps, so alpha_bar(0) = 1 exactly; its logarithm
    is interpolated between the steps.

    Args:
        beta_start: variance of the first step; published 0.0015.
        beta_end: variance of the last step; published 0.0195.
        num_steps: T; published 1000.
        linear: whether betas are even (Ho et al., 2020), or their square roots are ("scaled linear", as published).
        betas: one by one, in place of all that; see :func:`cosine_betas`.
    """

    spacing: Literal["time", "angle"] = "angle"

    def __init__(
        self,
        beta_start: float = 0.0015,
        beta_end: float = 0.0195,
        num_steps: int = 1000,
        *,
        linear: bool = False,
        betas: Float[Tensor, "n"] | None = None,
    ):
        power = 1 if linear else 2
        ends = (beta_start ** (1 / power), beta_end ** (1 / power))
        if betas is None:
            betas = torch.linspace(*ends, num_steps, dtype=torch.float64) ** power
        steps = torch.log1p(-betas).cumsum(0)
        self._log_alpha_bar = torch.cat([steps.new_zeros(1), steps])

    def log_alpha_bar(self, t: Numbers) -> Float[Tensor, "*shape"]:
        """Return log alpha_bar, float64, for times in [0, 1]."""
        nodes = self._log_alpha_bar.to(t.device)
        position = t.double().clamp(0, 1) * (len(nodes) - 1)
        below = position.floor().long().clamp(max=len(nodes) - 2)
        return torch.lerp(nodes[below], nodes[below + 1], position - below)

    def alpha(self, t: Numbers) -> Numbers:
        """Return sqrt(alpha_bar)."""
        return torch.exp(0.5 * self.log_alpha_bar(t)).to(t.dtype)

    def sigma(self, t: Numbers) -> Numbers:
        """Return sqrt(1 - alpha_bar), without cancellation near t = 0."""
        return torch.sqrt(-torch.expm1(self.log_alpha_bar(t))).to(t.dtype)


def cosine_betas(num_steps: int) -> Float[Tensor, "n"]:
    """Return the betas of Nichol and Dhariwal (2021), float64: Eq. 17 with s = 0.008, none above 0.999.

    The last one leaves a trace of the data at t = 1, so that noise can be predicted there.
    """
    t = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
    alpha_bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


class Cosine:
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2): no data at all at t = 1, as when a sampler starts from noise.

    Nichol and Dhariwal's (2021) schedule without its offset, which serves the first of discrete steps. Without any data
    at its end, a sampler starts where training has been (Lin et al., 2024).
    """

    spacing: Literal["time", "angle"] = "time"

    def alpha(self, t: Numbers) -> Numbers:
        """Return cos(pi t / 2), exactly 0 at t = 1."""
        return torch.sin(0.5 * math.pi * (1 - t.double())).to(t.dtype)

    def sigma(self, t: Numbers) -> Numbers:
        """Return sin(pi t / 2)."""
        return torch.sin(0.5 * math.pi * t.double()).to(t.dtype)


class RectifiedFlow:
    """The straight line from data to noise: alpha = 1 - t, sigma = t (Liu et al., 2023)."""

    spacing: Literal["time", "angle"] = "time"

    def alpha(self, t: Numbers) -> Numbers:
        """Return 1 - t."""
        return 1 - t

    def sigma(self, t: Numbers) -> Numbers:
        """Return t."""
        return t.clone()


class ProcessSettings(Settings):
    """Which process.

    Attributes:
        kind: ``variance_preserving`` (FCaS) with betas whose roots are even, ``linear`` (DDPM) with even betas,
            ``cosine``, ``cosine_betas`` (published: Med-DDPM, Medical Diffusion, DiffInfinite), its discrete steps as
            they were, or ``rectified_flow``. Fewer steps need larger betas: 100 even ones from 1e-4 to 0.02 keep
            alpha_bar = 0.364 of the data's variance; times 1000 / T (Nichol and Dhariwal, 2021) they keep 2e-5.
        beta_start: first variance of a schedule of betas. Published (FCaS) 0.0015; FQCDM: not stated.
        beta_end: last variance of a schedule of betas. Published (FCaS) 0.0195; FQCDM: not stated.
        num_steps: T of a schedule of betas. Published: FCaS 1000, FQCDM 100.
    """

    kind: Literal["variance_preserving", "linear", "cosine", "cosine_betas", "rectified_flow"] = "variance_preserving"
    beta_start: float = 0.0015
    beta_end: float = 0.0195
    num_steps: int = 1000


def build_process(settings: ProcessSettings) -> Process:
    """Return the process that ``settings`` describe."""
    match settings.kind:
        case "rectified_flow":
            return RectifiedFlow()
        case "cosine":
            return Cosine()
        case "cosine_betas":
            return VariancePreserving(betas=cosine_betas(settings.num_steps))
        case "variance_preserving" | "linear":
            linear = settings.kind == "linear"
            return VariancePreserving(settings.beta_start, settings.beta_end, settings.num_steps, linear=linear)


def angle(process: Process, t: Numbers) -> Numbers:
    """Return atan2(sigma, alpha): 0 is data, pi / 2 pure noise. Finite and strictly increasing for every process."""
    return torch.atan2(process.sigma(t), process.alpha(t))


def time_at_angle(process: Process, wanted: Numbers) -> Numbers:
    """Return the times in [0, 1] at which ``angle`` takes the ``wanted`` values, by bisection in float64."""
    low = torch.zeros_like(wanted, dtype=torch.float64)
    high = torch.ones_like(low)
    for _ in range(60):
        middle = (low + high) / 2
        below = angle(process, middle) < wanted.double()
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return ((low + high) / 2).to(wanted.dtype)


class TimeShift(Settings):
    """How times lean towards noise: a large volume stays recognizable under more noise than a small one.

    MAISI's timestep transform: t' = ratio t / (1 + (ratio - 1) t). In rectified flow it multiplies sigma / alpha by
    the ratio. By default the ratio is 1 and every time stays, bit for bit.

    Attributes:
        by_volume: whether the ratio grows with the latent's volume, (voxels / 32^dims)^(1 / dims). MAISI's
            rectified flow, in training and in sampling: true.
        scale: factor on the ratio; alone a ratio for every volume.
    """

    by_volume: bool = False
    scale: float = pydantic.Field(default=1.0, gt=0)

    def ratio(self, latent_shape: Sequence[int]) -> float:
        """Return the ratio for a latent of this shape, without channels."""
        volume = math.prod(n / BASE_SIDE for n in latent_shape)
        return self.scale * (volume ** (1 / len(latent_shape)) if self.by_volume else 1)


def shifted(t: Numbers, ratio: float) -> Numbers:
    """Return ratio t / (1 + (ratio - 1) t) for times in [0, 1]; 0 and 1 stay, exactly, and so does the order.

    Written so that no rounding leaves [0, 1] and a ratio of 1 changes no bit.
    """
    return ratio * t / (ratio * t + (1 - t))


def times(
    num_steps: int, spacing: Spacing, process: Process, ratio: float = 1.0, start: float = 1.0
) -> Float[Tensor, "n"]:
    """Return ``num_steps + 1`` times from ``start`` down to 0, float64.

    Args:
        num_steps: steps of a solver, one denoiser call each (two for Heun).
        spacing: ``time`` for equal steps of t; ``angle`` for equal steps of atan2(sigma, alpha), which is what the
            order of a solver needs for DDPM schedules, whose sigma rises like sqrt(t); ``auto`` for the process's own.
        process: gives the angle.
        ratio: shifts what the spacing gave, the start included, see :func:`shifted`.
        start: the first time before it is shifted, in (0, 1].
    """
    line = torch.linspace(start, 0, num_steps + 1, dtype=torch.float64)
    if (process.spacing if spacing == "auto" else spacing) == "angle":
        inner = time_at_angle(process, line[1:-1] / start * angle(process, line[:1]))
        line = torch.cat([line[:1], inner, line[-1:]])
    return shifted(line, ratio)
