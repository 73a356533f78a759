"""Confidence by Skip-Sampling Variance (SSV, section 3.2.1, Eq. 7): how much the predicted image moves while sampling.

Eq. 7 as printed is Norm(sum_i (I_i - mean) / r). That sum is signed, and the sum of deviations from a mean is zero
for any images: the printed map would be blank. The name says variance and r = N - 1 of the N = r + 1 images is
Bessel's divisor, so we take the standard deviation over the images, sqrt(sum_i (I_i - mean)^2 / r), and
CM = 1 - its normalized value, because the text wants higher values to mean a more stable generation.

A generation can also be unstable in what it is told: with ``mask_shift`` the change of the predictions when the mask
moves by a voxel is added. Samples from other noise (``ensemble``) go the same way, see ``sampling/ensemble.py``.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pydantic
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from cardiosynth.core.config import Settings

Decode = Callable[[Tensor, int | None], np.ndarray]
"""(latent (c, *latent), number) -> image (1, *grid) in image units; ``number`` None where the mask was not moved."""
Again = Callable[[Tensor, Tensor, int], Tensor]
"""(x, t, number) -> x0 predicted from the state x at time t for the mask moved in direction ``number``."""
Facts = dict[str, float | int | str | None]
"""What made a map, for the case's provenance."""


class ConfidenceSettings(Settings):
    """How the confidence map is computed.

    Attributes:
        kind: what must agree: ``decoded`` (published, as we read it) the x0 predicted on the way, decoded; ``latent``
            the same without decoding, its channels averaged, which is nearly free; ``raw`` the states themselves,
            decoded, as printed (measured: worthless, because noisy latents are outside the decoder's range);
            ``ensemble`` finished samples from several noises, the expensive reference.
        interval: k, every k-th step is looked at; not for ``ensemble``.
        steps: of the solver, ``all`` or the ``last_half``; not for ``ensemble``.
        members: samples of an ensemble, the case itself among them.
        member_steps: solver steps of every other member, or None for as many as the case's own.
        mask_shift: voxels by which the mask is moved, forth and back along one axis after the other, to repeat each
            prediction: a border drawn in voxels is not known better. For ``decoded`` and ``latent``. Published: 0.
        mask_weight: factor on the mean absolute change that this makes, before it is added.
        box: side in voxels of the cube over which the standard deviation is averaged; 1 for none.
        percentiles: of the spread (deviation and change) over the case; they become confidence 1 and 0.
    """

    kind: Literal["decoded", "latent", "raw", "ensemble"] = "decoded"
    interval: int = pydantic.Field(default=2, ge=1)
    steps: Literal["all", "last_half"] = "all"
    members: int = pydantic.Field(default=4, ge=2)
    member_steps: int | None = pydantic.Field(default=None, ge=1)
    mask_shift: int = pydantic.Field(default=0, ge=0)
    mask_weight: float = pydantic.Field(default=2.0, gt=0)
    box: int = pydantic.Field(default=3, ge=1)
    percentiles: tuple[float, float] = (1.0, 99.0)

    @pydantic.model_validator(mode="after")
    def _usable(self) -> "ConfidenceSettings":
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"percentiles {self.percentiles} must rise within 0 to 100")
        if self.box % 2 == 0:
            raise ValueError(f"box {self.box} must be odd")
        if self.kind in ("raw", "ensemble") and self.mask_shift:
            raise ValueError(
                f"mask_shift {self.mask_shift} is for predictions, and kind 'raw' looks at none; set it to 0"
            )
        return self

    def watched(self, num_steps: int) -> range:
        """Return which of a solver's ``num_steps`` steps are looked at, from 0; none for an ensemble."""
        first = num_steps if self.kind == "ensemble" else 0 if self.steps == "all" else num_steps // 2
        return range(first, num_steps, self.interval)

    def num_images(self, num_steps: int) -> int:
        """Return r + 1: how many images, or latents, are compared."""
        return self.members if self.kind == "ensemble" else len(self.watched(num_steps))

    def num_decodes(self, num_steps: int) -> int:
        """Return how many latents are decoded for the map, the case's own image not counted."""
        each = 2 if self.mask_shift else 1
        return {"latent": 0, "ensemble": self.members - 1}.get(self.kind, each * len(self.watched(num_steps)))

    def num_embeddings(self, num_steps: int) -> int:
        """Return how many conditions are embedded for the map, the case's own not counted."""
        return self.members - 1 if self.kind == "ensemble" else len(self.watched(num_steps)) * bool(self.mask_shift)

    def num_steps(self, num_steps: int) -> int:
        """Return how many solver steps' predictions are made for the map, the case's own ``num_steps`` not counted."""
        if self.kind == "ensemble":
            return (self.members - 1) * (self.member_steps or num_steps)
        return self.num_embeddings(num_steps)

    def facts(self) -> Facts:
        """Return the settings that shaped the map, for the case's provenance."""
        theirs = {"kind", "box", *(("mask_shift", "mask_weight") if self.mask_shift else ())}
        theirs |= {"members", "member_steps"} if self.kind == "ensemble" else {"interval", "steps"}
        return self.model_dump(include=theirs)


class Dispersion:
    """Mean and variance over images that come one by one (Welford, 1962), in two float32 volumes."""

    def __init__(self):
        self.count = 0
        self._mean: np.ndarray | None = None
        self._squares: np.ndarray | None = None

    def add(self, image: Float[np.ndarray, "c *grid"]) -> None:
        """Take in one image, or latent."""
        self.count += 1
        if self._mean is None or self._squares is None:
            self._mean, self._squares = np.zeros(image.shape, np.float32), np.zeros(image.shape, np.float32)
        deviation = image - self._mean
        self._mean += deviation / np.float32(self.count)
        deviation *= image - self._mean
        self._squares += deviation

    def mean(self) -> Float[np.ndarray, "c *grid"]:
        """Return the mean."""
        assert self._mean is not None, "a mean needs an image"
        return self._mean

    def std(self) -> Float[np.ndarray, "c *grid"]:
        """Return the standard deviation with the printed divisor r, one less than the images."""
        assert self.count >= 2, "a dispersion needs two images"
        assert self._squares is not None
        return np.sqrt(self._squares / np.float32(self.count - 1))


class SkipSamplingVariance:
    """Watches a solver as its callback.

    Args:
        settings: what is watched, and when.
        num_steps: of the solver.
        decode: latent -> image in image units, of the mask or of a moved one.
        again: predicts x0 for moved masks; needed where ``mask_shift`` is not 0.
    """

    def __init__(self, settings: ConfidenceSettings, num_steps: int, decode: Decode, again: Again | None = None):
        self._settings, self._watched = settings, settings.watched(num_steps)
        self._decode, self._again = decode, again
        self.dispersion, self.changes = Dispersion(), Dispersion()

    def __call__(self, step: int, x: Tensor, t: Tensor, denoised: Tensor) -> None:
        """See one solver step of a single case, (1, c, *latent)."""
        assert len(x) == 1, "a confidence map belongs to one case"
        if step not in self._watched:
            return
        seen = self._seen(x if self._settings.kind == "raw" else denoised, None)
        self.dispersion.add(seen)
        if self._settings.mask_shift:
            assert self._again is not None, "moved masks need their predictions"
            number = self._watched.index(step)
            self.changes.add(np.abs(self._seen(self._again(x, t, number), number) - seen))

    def confidence(self, grid: tuple[int, ...]) -> tuple[Float[np.ndarray, "1 *grid"], Facts]:
        """Return the map on the image's ``grid`` and its facts, see :func:`confidence_map`."""
        return confidence_map(self.dispersion, self._settings, grid, self.changes)

    def _seen(self, latent: Tensor, number: int | None) -> np.ndarray:
        return latent[0].float().cpu().numpy() if self._settings.kind == "latent" else self._decode(latent[0], number)


def confidence_map(
    dispersion: Dispersion, settings: ConfidenceSettings, grid: tuple[int, ...], changes: Dispersion | None = None
) -> tuple[Float[np.ndarray, "1 *grid"], Facts]:
    """Return the map in [0, 1], float32, and the constants that made it, for the case's provenance.

    Args:
        dispersion: over images on ``grid``, or latents, whose channels are averaged and interpolated linearly.
        settings: smoothing and normalization.
        grid: voxels per axis of the image.
        changes: absolute ones that moved masks made, where they did.
    """
    spread = smoothed(on_grid(dispersion.std(), grid), settings.box)
    if changes is not None and changes.count:
        spread = spread + np.float32(settings.mask_weight) * on_grid(changes.mean(), grid)
    confidence, (low, high) = normalized_confidence(spread, settings.percentiles)
    facts = settings.facts() | {
        "images": dispersion.count, "divisor": dispersion.count - 1,
        "spread_at_confidence_1": low, "spread_at_confidence_0": high,
    }  # fmt: skip
    return confidence, facts


def on_grid(values: Float[np.ndarray, "c *latent"], grid: tuple[int, ...]) -> Float[np.ndarray, "1 *grid"]:
    """Return the mean over the channels, interpolated linearly to ``grid``; an image on it stays as it is."""
    if values.shape == (1, *grid):
        return values
    x = torch.from_numpy(values.mean(0))[None, None]
    return F.interpolate(x, size=grid, mode="trilinear" if x.ndim == 5 else "bilinear")[0].numpy()


def smoothed(values: Float[np.ndarray, "1 *grid"], box: int) -> Float[np.ndarray, "1 *grid"]:
    """Return the mean over a cube of ``box`` voxels; at the border over the voxels that are there."""
    x = torch.from_numpy(values)[None]
    pool = F.avg_pool3d if x.ndim == 5 else F.avg_pool2d
    return pool(x, box, stride=1, padding=box // 2, count_include_pad=False)[0].numpy()


def normalized_confidence(
    spread: Float[np.ndarray, "1 *grid"], percentiles: tuple[float, float]
) -> tuple[Float[np.ndarray, "1 *grid"], tuple[float, float]]:
    """Return 1 - spread, normalized by its percentiles over the case and clipped to [0, 1], and the two values.

    A spread that is the same everywhere gives confidence 1.
    """
    low, high = (float(v) for v in np.percentile(spread, percentiles))
    if high <= low:
        return np.ones_like(spread), (low, high)
    return (1 - np.clip((spread - low) / (high - low), 0, 1)).astype(np.float32), (low, high)


def moved_mask(mask: UInt8[np.ndarray, "1 *grid"], shift: int, number: int) -> UInt8[np.ndarray, "1 *grid"]:
    """Return ``mask`` moved by ``shift`` voxels in direction ``number``; what leaves the grid at one border is lost.

    Directions: forth along one axis after the other, then back along each, then forth again. The border's voxels are
    repeated where the mask moved away from it.
    """
    dims = mask.ndim - 1
    axis, back = 1 + number % dims, number // dims % 2
    source = np.arange(mask.shape[axis]) + (shift if back else -shift)
    return np.take(mask, source.clip(0, mask.shape[axis] - 1), axis=axis)
