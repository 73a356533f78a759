"""Latents of a data set, encoded once and kept on disk: mean *and* std per case.

Freezing one noisy sample per case, as MAISI's scripts do, costs a quarter of the latents' variance; with both, every
training step draws afresh. A file's name holds the codec's and the image's fingerprints, so a file that is there is
right, and encoding that was killed goes on with the case it was at.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from cardiosynth.autoencoder.codec import Codec, LatentStatistics, measure_statistics, raw_statistics
from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import Progress
from cardiosynth.core.store import file_sha256, load_tensors, whole_file
from cardiosynth.data.dataset import Dataset

Latent = Float[Tensor, "c *latent"]


class Latents(Sequence[tuple[Tensor, Tensor]]):
    """Encoded cases, read from disk when asked for.

    Args:
        files: one per case, in the order of ``case_ids``; raw means and stds, (c, *latent).
        case_ids: names of the cases.
        statistics: normalize what is read, channel by channel.
    """

    def __init__(self, files: Sequence[Path], case_ids: Sequence[str], statistics: LatentStatistics):
        self.files, self.case_ids, self.statistics = tuple(files), tuple(case_ids), statistics

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Latent, Latent]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return mean and std of a case's normalized latents, float32."""
        tensors = load_tensors(self.files[index])
        mean, std = tensors["mean"], tensors["std"]
        shape = (-1,) + (1,) * (mean.ndim - 1)
        center, spread = (torch.tensor(v).view(shape) for v in (self.statistics.mean, self.statistics.std))
        return (mean - center) / spread, std / spread

    def __iter__(self) -> Iterator[tuple[Latent, Latent]]:
        return (self[index] for index in range(len(self)))

    def normalized(self, statistics: LatentStatistics) -> "Latents":
        """Return the same latents normalized by other statistics."""
        return Latents(self.files, self.case_ids, statistics)

    def measured(self) -> LatentStatistics:
        """Return the statistics of the raw latents per channel, over all voxels of all cases."""
        return measure_statistics(self.normalized(raw_statistics(len(self.statistics.mean))))


def encode_dataset(codec: Codec, cases: Dataset, folder: Path) -> Latents:
    """Encode every case that ``folder`` does not hold yet.

    Args:
        codec: the autoencoder; its statistics are not used.
        cases: all with images.
        folder: gets one safetensors file per case.

    Returns:
        Raw latents, normalized by nothing.

    Raises:
        InputError: fewer than two cases, a case without image, of another unit, or on another grid than the first.
    """
    if len(cases) < 2:
        raise InputError(f"{cases.root} has {len(cases)} case with what this stage needs; training takes two or more.")
    raw = codec.with_statistics(raw_statistics(codec.latent_channels))
    files = [latent_file(codec, cases, case_id, folder) for case_id in cases.case_ids]
    missing = [(i, file) for i, file in zip(cases.case_ids, files, strict=True) if not file.exists()]
    if missing:
        with Progress("encode", len(files), len(files) - len(missing)) as progress:
            for case_id, file in missing:
                _encode(raw, cases, case_id, file)
                progress.update()
    return Latents(files, cases.case_ids, raw.statistics)


def latent_file(codec: Codec, cases: Dataset, case_id: str, folder: Path) -> Path:
    """Return where the latents of a case lie: their name says which codec encoded which image."""
    image = cases.file("image", case_id)
    known = cases.row(case_id).get("files", {})
    digest = known.get(image.relative_to(cases.root).as_posix()) or file_sha256(image)
    return folder / codec.fingerprint / f"{case_id}.{digest[:12]}.safetensors"


def _encode(codec: Codec, cases: Dataset, case_id: str, file: Path) -> None:
    from safetensors.torch import save_file

    mean, std = codec.encode_case(cases.case(case_id))
    with whole_file(file) as partial:
        save_file({"mean": mean.contiguous(), "std": std.contiguous()}, partial)
