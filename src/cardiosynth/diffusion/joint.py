"""Autoencoder and denoiser trained together: L = L_FDGB + L_rec + L_codebook + lambda L_GAN (FQCDM, section 4.2).

F_0 is detached for L_FDGB: an encoder that its gradient reached could lower it by latents that tell less of the image.
So each term moves a network of its own, the gradient of the sum is that of its terms, and they are players of one loop.
What is left of training jointly is that the denoiser follows latents that still move, and so do their statistics.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cardiosynth.autoencoder.codec import LatentStatistics, load_codec
from cardiosynth.autoencoder.losses import Perceptual
from cardiosynth.autoencoder.networks import Autoencoder, build_autoencoder
from cardiosynth.autoencoder.task import AutoencoderStage, AutoencoderTask, autoencoder_record
from cardiosynth.autoencoder.verdict import judge
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.random import named_weights
from cardiosynth.core.store import checkpoints, load_tensors, read_json, save_checkpoint
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.loader import CaseCache
from cardiosynth.data.preparation import check_window, recorded_preparation
from cardiosynth.diffusion.control import mask_alone
from cardiosynth.diffusion.latents import encode_dataset
from cardiosynth.diffusion.objective import Objective, draw_time
from cardiosynth.diffusion.process import build_process
from cardiosynth.diffusion.records import diffusion_record
from cardiosynth.diffusion.settings import DiffusionStage
from cardiosynth.diffusion.stages import LATENTS
from cardiosynth.diffusion.unet import TemplateUNet
from cardiosynth.training.loop import Batch, Player, fit
from cardiosynth.training.processes import Processes, join_processes
from cardiosynth.training.settings import TrainingSettings
from cardiosynth.training.state import WithOpponent

STAGE = "joint"
MOMENTUM = 0.01
"""Share of each batch in the running statistics of the latents."""


class Together(nn.Module):
    """Both networks, and the running mean and variance of every latent channel, which normalize F_0."""

    center: Tensor
    variance: Tensor

    def __init__(self, autoencoder: Autoencoder, denoiser: TemplateUNet):
        super().__init__()
        self.autoencoder, self.denoiser = autoencoder, denoiser
        self.register_buffer("center", torch.zeros(autoencoder.latent_channels))
        self.register_buffer("variance", torch.ones(autoencoder.latent_channels))

    @torch.no_grad()
    def latents(self, image: Float[Tensor, "b 1 *grid"]) -> Float[Tensor, "b c *latent"]:
        """Return F_0 as the encoder makes it, detached and not normalized."""
        return self.autoencoder.encode(image)[0]

    def normalized(self, latents: Float[Tensor, "b c *latent"]) -> Float[Tensor, "b c *latent"]:
        """Return latents of about zero mean and unit variance per channel."""
        columns = (1, -1) + (1,) * (latents.ndim - 2)
        return (latents - self.center.view(columns)) / self.variance.clamp_min(1e-12).sqrt().view(columns)

    @torch.no_grad()
    def take_in(self, latents: Float[Tensor, "b c *latent"], step: int) -> None:
        """Move the statistics to those of a batch: all the way at step 0, and later by ``MOMENTUM``."""
        values, share = latents.transpose(0, 1).flatten(1), MOMENTUM if step else 1.0
        self.center.lerp_(values.mean(1), share)
        self.variance.lerp_(values.var(1, unbiased=False), share)


class JointTask:
    """The autoencoder with its opponent, and beside them the denoiser.

    Args:
        autoencoder: the task of the first; its crops are whole slices.
        together: both networks.
        objective: process, prediction, settings of the second.
        cases: images and masks.
    """

    def __init__(self, autoencoder: AutoencoderTask, together: Together, objective: Objective, cases: CaseCache):
        self._first, self._together, self._objective, self._cases = autoencoder, together, objective, cases
        opponent = autoencoder.module.opponent if isinstance(autoencoder.module, WithOpponent) else None
        self.module: nn.Module = together if opponent is None else WithOpponent(together, opponent)

    def players(self) -> list[Player]:
        """Return the autoencoder's players, and the denoiser after them."""
        denoiser = list(self._together.denoiser.parameters())
        return [*self._first.players(), Player("denoiser", denoiser, self._denoise, follow=self._follow)]

    def batch(self, generators: Sequence[torch.Generator]) -> Batch:
        """Return what the autoencoder learns from, and for the denoiser ``reference``, ``epsilon``, ``t``."""
        first, together = self._first.batch(generators), self._together
        latent = tuple(n // together.autoencoder.compression for n in first["image"].shape[2:])
        shape = (together.autoencoder.latent_channels, *latent)
        noises = [torch.randn(shape, generator=rng) for rng in generators]
        times = [draw_time(self._objective.settings.times, latent, rng) for rng in generators]
        masks = [self._cases.mask(index) for index in first["index"].tolist()]
        return {**first, "reference": torch.stack(masks), "epsilon": torch.stack(noises), "t": torch.stack(times)}

    def case_names(self, batch: Batch) -> list[str]:
        """Return the names of the cases of a batch."""
        return self._first.case_names(batch)

    def _denoise(self, batch: Batch) -> dict[str, Tensor]:
        together = self._together
        x0 = together.normalized(together.latents(batch["image"]))
        seen = {"x0": x0, "noise": batch["epsilon"], "t": batch["t"], "weight": torch.ones_like(x0[:, :1])}
        return self._objective.loss(together.denoiser, seen, together.denoiser.embed(mask_alone(batch["reference"])))

    def _follow(self, batch: Batch, processes: Processes) -> None:
        latents = processes.whole_batch(self._together.latents(batch["image"]))
        self._together.take_in(latents, int(batch["step"]))


def train_joint(
    cases: Dataset,
    run: Path,
    first: AutoencoderStage,
    second: DiffusionStage,
    training: TrainingSettings,
    scale: IntensityScale,
    *,
    perceptual: Perceptual | None = None,
    device: str = "cpu",
) -> Path:
    """Train both networks in one loop, and write them as the stages ``autoencoder`` and ``diffusion`` of the run.

    Args:
        cases: the training set; those without image or mask are passed over.
        run: the model's folder; gets ``joint/``, and at the end what two stages would have left.
        first: how the autoencoder is built and judged; its crop must be the whole grid.
        second: how the denoiser is built; it must be told of masks.
        training: the loop's settings, for both.
        scale: how intensities are seen.
        perceptual: distance of two images, where ``first.loss.perceptual`` is above 0.
        device: cpu or cuda.

    Returns:
        The checkpoint of the denoiser.

    Raises:
        InputError: crops, a network that is told nothing, a stage that was trained already, or settings that changed.
    """
    cases, processes = cases.with_images().with_masks(), join_processes(device)
    check_window(cases, scale)
    cache = CaseCache(cases, scale)
    _check(cache, run, first, second)
    task = _task(cache, first, second, training.seed, perceptual)
    record = {
        "stage": STAGE,
        "autoencoder": first.model_dump(mode="json"),
        "diffusion": second.model_dump(mode="json"),
        "intensity": scale.model_dump(mode="json"),
        "cases": cache.fingerprint,
        "perceptual": None if perceptual is None else perceptual.fingerprint,
    }
    trained = fit(task, training, run / STAGE, record, device=device, label="train joint")
    with processes.writer_first():
        if processes.writes:
            _divide(trained, run, cases, cache, (first, second), str(processes.device))
    return checkpoints(run / "diffusion")[-1]


def _task(
    cache: CaseCache, first: AutoencoderStage, second: DiffusionStage, seed: int, perceptual: Perceptual | None
) -> JointTask:
    autoencoder = build_autoencoder(first.network, seed, cache.labels)
    sizes = (first.network.latent_channels, first.network.compression, first.network.spatial_dims)
    with named_weights(seed, "diffusion"):
        denoiser = TemplateUNet(*sizes, second.denoiser, second.condition, cache.labels)
    objective = Objective(build_process(second.process), second.prediction, second.objective)
    return JointTask(
        AutoencoderTask(cache, autoencoder, first, perceptual), Together(autoencoder, denoiser), objective, cache
    )


def _check(cache: CaseCache, run: Path, first: AutoencoderStage, second: DiffusionStage) -> None:
    if second.condition is None:
        raise InputError("the denoiser of a joint training is told of masks; set diffusion.condition.")
    if second.normalization is not None:
        raise InputError("joint training normalizes latents as it measures them; set diffusion.normalization=null.")
    for case in cache.cases:
        if case.grid.shape != first.crop:
            raise InputError(
                f"case {case.case_id} has a grid of {case.grid.shape} and joint training sees whole cases; set "
                f"autoencoder.crop={list(case.grid.shape)}."
            )
    for stage in ("autoencoder", "diffusion"):
        found = checkpoints(run / stage)
        if found and "joint" not in read_json(found[-1] / "record.json"):
            raise InputError(f"{run} has a stage '{stage}' that was trained by itself; name another run folder.")


def _divide(
    trained: Path,
    run: Path,
    cases: Dataset,
    cache: CaseCache,
    stages: tuple[AutoencoderStage, DiffusionStage],
    device: str,
) -> None:
    """Write both networks of a checkpoint as stages of their own, which later steps find and load as ever."""
    weights, record = load_tensors(trained / "model.safetensors"), read_json(trained / "record.json")
    origin = {"joint": record["fingerprint"], "training": record["training"], "perceptual": record["perceptual"]}
    scale = parse_settings(IntensityScale, record["intensity"], str(trained))
    first = {**autoencoder_record(cache, stages[0], scale), **recorded_preparation(cases), "held_out": [], **origin}
    save_checkpoint(run / "autoencoder", record["step"], _part(weights, "autoencoder."), {}, first)
    codec = load_codec(run, device)
    judge(codec, cache.cases, run / "autoencoder", held_out=False)
    spread = weights["variance"].clamp_min(1e-12).sqrt()
    statistics = LatentStatistics(mean=tuple(weights["center"].tolist()), std=tuple(spread.tolist()))
    latents = encode_dataset(codec, cases, run / LATENTS).normalized(statistics)
    second: dict[str, Any] = {**diffusion_record(stages[1], codec, cases, latents), **origin, "init": None}
    save_checkpoint(run / "diffusion", record["step"], _part(weights, "denoiser."), {}, second)


def _part(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
