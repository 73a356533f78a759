"""The trained autoencoder as later stages use it: cases to normalized latents and back to image units."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from cardiosynth.autoencoder import streaming
from cardiosynth.autoencoder.fixed import FixedAutoencoder
from cardiosynth.autoencoder.networks import Autoencoder, AutoencoderSettings, build_autoencoder
from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings, parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale, Window
from cardiosynth.core.labels import LabelTable, relabel
from cardiosynth.core.store import latest_checkpoint, read_json
from cardiosynth.training.state import load_weights


class LatentStatistics(Settings):
    """Mean and standard deviation of every latent channel. Measured, never configured; travels in the checkpoint."""

    mean: tuple[float, ...] = pydantic.Field(min_length=1)
    std: tuple[float, ...] = pydantic.Field(min_length=1)

    @pydantic.model_validator(mode="after")
    def _usable(self) -> "LatentStatistics":
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise ValueError("latent statistics need one mean and one positive std per channel")
        return self


def raw_statistics(channels: int) -> LatentStatistics:
    """Return the statistics that leave latents as the autoencoder makes them."""
    return LatentStatistics(mean=(0.0,) * channels, std=(1.0,) * channels)


def measure_statistics(
    latents: Iterable[tuple[Tensor, Tensor]],
) -> LatentStatistics:
    """Return the statistics per channel of the latents' draws, over all voxels of all cases.

    The variance of a draw is that of the means plus the mean of std^2; leaving the second out would normalize
    noisy channels too little.

    Args:
        latents: raw (mean, std) per case, (c, *latent), as ``Codec.encode_case`` returns them with raw statistics.
    """
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for mean, std in latents:
        mean, std = mean.flatten(1).double(), std.flatten(1).double()
        count += mean.shape[1]
        total, squares = total + mean.sum(1), squares + (mean**2 + std**2).sum(1)
    assert count > 0, "no latents to measure"
    center = total / count
    spread = (squares / count - center**2).clamp_min(1e-12).sqrt()
    return LatentStatistics(mean=tuple(center.tolist()), std=tuple(spread.tolist()))


@dataclass(frozen=True, eq=False)
class Codec:
    """A frozen autoencoder that knows its intensity window and the scale of its latents.

    Attributes:
        autoencoder: the network, in eval mode, without gradients to its weights.
        scale: how it sees intensities.
        labels: the label table of its training data, in whose codes a decoder is told of masks.
        statistics: per channel; latents are normalized by them. Raw until a later stage has measured them.
        fingerprint: of the weights.
        record: everything that the checkpoint says of itself.
    """

    autoencoder: Autoencoder
    scale: IntensityScale
    labels: LabelTable
    statistics: LatentStatistics
    fingerprint: str
    record: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return next(chain(self.autoencoder.parameters(), self.autoencoder.buffers())).device

    @property
    def compression(self) -> int:
        """Image voxels per latent voxel along each axis."""
        return self.autoencoder.compression

    @property
    def latent_channels(self) -> int:
        """Values per latent voxel."""
        return self.autoencoder.latent_channels

    def with_statistics(self, statistics: LatentStatistics) -> "Codec":
        """Return this codec with latents normalized by ``statistics``."""
        assert len(statistics.mean) == self.latent_channels, statistics
        return replace(self, statistics=statistics)

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the latent grid of an image grid.

        Raises:
            InputError: the grid is not a multiple of the compression, or has the wrong number of axes.
        """
        factor, dims = self.compression, self.autoencoder.spatial_dims
        if len(shape) != dims or any(n % factor for n in shape):
            wanted = " ".join(str(max(1, round(n / factor)) * factor) for n in shape)
            raise InputError(
                f"a grid of {shape} does not suit this autoencoder, which takes {dims} axes with multiples of "
                f"{factor} voxels; prepare the data with --shape {wanted}."
            )
        return tuple(n // factor for n in shape)

    def window_of(self, case: Case) -> Window:
        """Return the intensity window through which the model sees this case.

        Raises:
            InputError: the case has no image or is in another unit than the model's.
        """
        if case.intensity_unit != self.scale.unit:
            raise InputError(
                f"case {case.case_id} is in {case.intensity_unit} and the autoencoder was trained on "
                f"{self.scale.unit}; use a model of that unit."
            )
        return self.scale.window_of(case.required_image())

    @torch.no_grad()
    def encode_case(
        self, case: Case, budget_gb: float | None = None
    ) -> tuple[Float[Tensor, "c *latent"], Float[Tensor, "c *latent"]]:
        """Return mean and standard deviation of a case's normalized latents, float32 on the CPU.

        Latents that decoding will quantize are returned as they are before; these and fixed ones have a deviation
        of 0.

        Args:
            case: with an image.
            budget_gb: memory beside the weights, in 1e9 bytes: the volume is computed in slabs, with the same result.
                None for the whole volume at once, in slabs only where a tensor had more than 2^31 values.

        Raises:
            InputError: no image, another unit, a grid that does not suit, or a budget that cannot be met.
        """
        image = case.required_image()
        self.latent_shape(image.shape[1:])
        x = torch.from_numpy(self.window_of(case).to_model(image.astype(np.float32)))
        mean, std = self._normalized(streaming.encode(self.autoencoder, x[None].to(self.device), budget_gb))
        return mean[0].cpu(), std[0].cpu()

    @torch.no_grad()
    def decode(
        self,
        latent: Float[Tensor, "c *latent"],
        window: Window,
        budget_gb: float | None = None,
        mask: UInt8[np.ndarray, "1 *grid"] | None = None,
    ) -> Float[np.ndarray, "1 *grid"]:
        """Return the image of one normalized latent in the case's unit, float32, within the window.

        Args:
            latent: as ``encode_case`` returns it; it is quantized first where there is a codebook.
            window: of the case.
            budget_gb: as in ``encode_case``.
            mask: what the image shows, see ``mask_of``; None where nothing is known, or the decoder is told nothing.

        Raises:
            InputError: a budget that cannot be met.
        """
        z = self.autoencoder.quantize(self._raw(latent[None].to(self.device)))
        shown = None if mask is None else torch.from_numpy(np.ascontiguousarray(mask))[None].to(self.device)
        x = streaming.decode(self.autoencoder, z, budget_gb, mask=shown)
        return window.from_model(x[0].float().cpu()).numpy()

    def encode(
        self, x: Float[Tensor, "b 1 *grid"]
    ) -> tuple[Float[Tensor, "b c *latent"], Float[Tensor, "b c *latent"]]:
        """Return mean and standard deviation of the normalized latents of images in model units."""
        return self._normalized(self.autoencoder.encode(x))

    def quantize(self, z: Float[Tensor, "b c *latent"]) -> Float[Tensor, "b c *latent"]:
        """Return the nearest code of each normalized latent, normalized alike; as it is where there is no codebook."""
        return self._normalized((self.autoencoder.quantize(self._raw(z)), z))[0]

    def within_images(self, z: Float[Tensor, "b c *latent"]) -> Float[Tensor, "b c *latent"]:
        """Return normalized latents with the images that they stand for limited to model units [0, 1].

        Raises:
            InputError: the autoencoder does not give back what it is given, so that this would change all of it.
        """
        if not isinstance(self.autoencoder, FixedAutoencoder):
            raise InputError("sampler.clamp 'image' is for autoencoders of kind identity and haar; set a number.")
        image = self.autoencoder.decode(self._raw(z)).clamp(0, 1)
        return self._normalized(self.autoencoder.encode(image))[0]

    def nearest_codes(self, latent: Float[Tensor, "c *latent"]) -> Int[Tensor, "*latent"]:
        """Return the index of the code of each value of one normalized latent; there must be a codebook."""
        codebook = self.autoencoder.codebook
        assert codebook is not None, "latents of this autoencoder are not quantized"
        return codebook.nearest(self._raw(latent[None].to(self.device)))[0].cpu()

    def reconstruct(self, case: Case) -> Float[np.ndarray, "1 *grid"]:
        """Return what is left of a case's image after encoding (mean latents) and decoding, in its unit.

        A decoder that is told of masks is told the case's own, where it has one.
        """
        mean, _ = self.encode_case(case)
        return self.decode(mean, self.window_of(case), mask=self.mask_of(case))

    def mask_of(self, case: Case) -> UInt8[np.ndarray, "1 *grid"] | None:
        """Return what the decoder is told of a case's mask, in the codes that it learned, matched by name.

        None where the case has no mask, or the decoder sees latents alone.

        Raises:
            InputError: the mask holds a target structure that the decoder never learned.
        """
        if self.autoencoder.mask_stem is None or case.mask is None:
            return None
        if case.labels == self.labels:
            return case.mask
        known = [label.name for label in self.labels.targets]
        there = [label.name for label in case.labels.targets if (case.mask == label.code).any()]
        if unknown := [name for name in there if name not in known]:
            raise InputError(
                f"case {case.case_id}: the autoencoder's decoder never learned of {', '.join(unknown)}; make it a "
                f"surrounding, or give it the decoder's name with cardiosynth prepare --map ({', '.join(known)})."
            )
        return relabel(case.labels.only_targets(case.mask), case.labels, self.labels)[0]

    def _normalized(self, latents: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        mean, std = latents
        center, spread = self._columns(mean)
        return (mean - center) / spread, std / spread

    def _raw(self, z: Tensor) -> Tensor:
        center, spread = self._columns(z)
        return z * spread + center

    def _columns(self, z: Tensor) -> tuple[Tensor, Tensor]:
        shape = (1, -1) + (1,) * (z.ndim - 2)
        return z.new_tensor(self.statistics.mean).reshape(shape), z.new_tensor(self.statistics.std).reshape(shape)


def stage_folder(run: Path) -> Path:
    """Return the autoencoder's folder of a run, or ``run`` itself where it is one, or a checkpoint."""
    return run / "autoencoder" if (run / "autoencoder").is_dir() else run


def load_codec(run: Path, device: str = "cpu") -> Codec:
    """Load the newest autoencoder of a run, strictly and without pickle.

    Args:
        run: a run's folder, its autoencoder folder, or one checkpoint.
        device: where the network goes.

    Raises:
        InputError: no checkpoint, a checkpoint of another stage, or weights that do not fit.
    """
    checkpoint = latest_checkpoint(stage_folder(Path(run)))
    record = read_json(checkpoint / "record.json")
    if record.get("stage") != "autoencoder":
        raise InputError(f"{checkpoint} is of stage '{record.get('stage')}', not an autoencoder; name another run.")
    origin = str(checkpoint / "record.json")
    settings = parse_settings(AutoencoderSettings, record["settings"]["network"], origin)
    labels = parse_settings(LabelTable, record["labels"], origin)
    autoencoder = build_autoencoder(settings, labels=labels)
    fingerprint = load_weights(autoencoder, checkpoint)
    autoencoder.requires_grad_(False).eval().to(device)
    return Codec(
        autoencoder=autoencoder,
        scale=parse_settings(IntensityScale, record["intensity"], origin),
        labels=labels,
        statistics=raw_statistics(settings.latent_channels),
        fingerprint=fingerprint,
        record=record,
    )
