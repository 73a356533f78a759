"""Latents of a data set, encoded once and kept on disk: mean *and* std per case.

Freezing one noisy sample per case, as MAISI's scripts do, costs a quarter of the latents' variance; with both, every
training step draws afresh. A file's name holds the fingerprints of the codec, its window and the image, so a file that
is there is right, and encoding that was killed goes on with the case it was at.

Files hold float16 in units of the case's own spread. Raw latents may lie anywhere, since hardly anything holds them
near 0 (the KL weight is tiny), and float16 ends at 65504. Of n values none lies farther than sqrt(n) standard
deviations from their mean, so in these units nothing overflows, and a value z is kept to |z| / 2048.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cardiosynth.autoencoder.codec import Codec, LatentStatistics, measure_statistics, raw_statistics
from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import Progress
from cardiosynth.core.store import file_sha256, fingerprint, save_tensors, whole_file
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.layout import Part
from cardiosynth.data.loader import Where
from cardiosynth.training.processes import ALONE, Processes

Latent = Float[Tensor, "c *latent"]


@dataclass(frozen=True, eq=False)
class Change:
    """What happens to cases before they are encoded.

    Attributes:
        apply: returns a changed case.
        beside: returns what else is stored of it.
        facts: JSON-like; with image and mask, what the changed case is a function of.
    """

    apply: Callable[[Case], Case]
    beside: Callable[[Case], dict[str, Tensor]]
    facts: Mapping[str, Any]


class Latents(Sequence[tuple[Tensor, Tensor]]):
    """Encoded cases, read from disk when asked for.

    Args:
        files: one per case, in the order of ``case_ids``.
        case_ids: names of the cases.
        statistics: normalize what is read, channel by channel.
    """

    def __init__(self, files: Sequence[Path], case_ids: Sequence[str], statistics: LatentStatistics):
        self.files, self.case_ids, self.statistics = tuple(files), tuple(case_ids), statistics

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Latent, Latent]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return mean and std of a case's normalized latents, float32."""
        return self.block(index)

    def __iter__(self) -> Iterator[tuple[Latent, Latent]]:
        return (self[index] for index in range(len(self)))

    def block(self, index: int, where: Where = ()) -> tuple[Latent, Latent]:
        """Return mean and std of a part of a case's normalized latents, float32; only this part is read.

        Args:
            index: the case.
            where: latent voxels per axis; all of them for ().
        """
        with opened(self.files[index]) as stored:
            mean, std = (stored.get_slice(name)[(slice(None), *where)].float() for name in ("mean", "std"))
            own_center, own_spread = stored.get_tensor("center"), stored.get_tensor("spread")
        center, spread = torch.tensor(self.statistics.mean), torch.tensor(self.statistics.std)
        scale, shift = (own_spread / spread, (own_center - center) / spread)
        columns = (-1,) + (1,) * (mean.ndim - 1)
        return mean * scale.view(columns) + shift.view(columns), std * scale.view(columns)

    def shape(self, index: int) -> tuple[int, ...]:
        """Return the latent grid of a case."""
        with opened(self.files[index]) as stored:
            return tuple(stored.get_slice("mean").get_shape()[1:])

    def normalized(self, statistics: LatentStatistics) -> "Latents":
        """Return the same latents normalized by other statistics."""
        return Latents(self.files, self.case_ids, statistics)

    def of_codes(self, codec: Codec) -> LatentStatistics:
        """Return the statistics that put the least and the largest value of any code at -1 and 1.

        Raises:
            InputError: the codec has no codes.
        """
        if codec.autoencoder.codebook is None:
            raise InputError("normalization 'codebook' needs codes; set autoencoder.network.codebook.codes=1024.")
        low, high = codec.autoencoder.codebook.codes.aminmax()
        channels = codec.latent_channels
        return LatentStatistics(mean=(float(high + low) / 2,) * channels, std=(float(high - low) / 2,) * channels)

    def measured(self) -> LatentStatistics:
        """Return the statistics of the raw latents per channel, over all voxels of all cases, as they are stored."""
        return measure_statistics(self.normalized(raw_statistics(len(self.statistics.mean))))


def encode_dataset(
    codec: Codec,
    cases: Dataset,
    folder: Path,
    processes: Processes = ALONE,
    budget_gb: float | None = None,
    change: Change | None = None,
) -> Latents:
    """Encode every case that ``folder`` does not hold yet; several processes share them out.

    Args:
        codec: the autoencoder; its statistics are not used.
        cases: all with images.
        folder: gets one safetensors file per case.
        processes: those that call this together.
        budget_gb: memory that encoding a case may take, None for as much as a whole volume needs at once.
        change: what is done to cases first, which then need masks; their files have names of their own.

    Returns:
        Raw latents, normalized by nothing.

    Raises:
        InputError: fewer than two cases, a case without image, of another unit, or whose latents are not finite. Every
            process raises it.
    """
    if len(cases) < 2:
        raise InputError(f"{cases.root} has {len(cases)} case with what this stage needs; training takes two or more.")
    files = [latent_file(codec, cases, case_id, folder, change) for case_id in cases.case_ids]
    missing = [(i, file) for i, file in zip(cases.case_ids, files, strict=True) if not file.exists()]
    processes.wait()  # nobody writes before all have looked, or two would have different lists
    failures = _encode_all(codec, cases, missing[processes.rank :: processes.count], budget_gb, change)
    told = processes.gathered(failures)
    if told:
        raise InputError(told[0])
    return Latents(files, cases.case_ids, raw_statistics(codec.latent_channels))


def latent_file(codec: Codec, cases: Dataset, case_id: str, folder: Path, change: Change | None = None) -> Path:
    """Return where the latents of a case lie: their name says which codec encoded which image through which window."""
    digest, window = _digest(cases, "image", case_id), fingerprint(codec.scale.model_dump(mode="json"))
    told = digest[:12]
    if change is not None:
        told += f".{fingerprint({**change.facts, 'mask': _digest(cases, 'mask', case_id)})}"
    return folder / f"{codec.fingerprint}.{window[:8]}" / f"{case_id}.{told}.float16.safetensors"


def _digest(cases: Dataset, part: Part, case_id: str) -> str:
    file = cases.file(part, case_id)
    return cases.row(case_id).get("files", {}).get(file.relative_to(cases.root).as_posix()) or file_sha256(file)


def packed(mean: Latent, std: Latent) -> dict[str, Tensor]:
    """Return latents as they are stored.

    Keys: ``center`` and ``spread`` (c,) float32 of the case's draws; ``mean``, less the center, and ``std`` in units of
    the spread, float16.
    """
    center = mean.flatten(1).double().mean(1)
    columns = (-1,) + (1,) * (mean.ndim - 1)
    apart = mean.double() - center.view(columns)
    spread = (apart.square() + std.double().square()).flatten(1).mean(1).sqrt()
    spread = torch.where(spread > 0, spread, 1.0)
    return {
        "mean": (apart / spread.view(columns)).half(), "std": (std.double() / spread.view(columns)).half(),
        "center": center.float(), "spread": spread.float(),
    }  # fmt: skip


def _encode_all(
    codec: Codec,
    cases: Dataset,
    missing: Sequence[tuple[str, Path]],
    budget_gb: float | None,
    change: Change | None,
) -> list[str]:
    """Encode the cases that are missing; return what went wrong."""
    raw = codec.with_statistics(raw_statistics(codec.latent_channels))
    if not missing:
        return []
    try:
        with Progress("encode", len(missing)) as progress:
            for case_id, file in missing:
                _encode(raw, cases.case(case_id), file, budget_gb, change)
                progress.update()
    except InputError as error:
        return [str(error)]
    return []


def _encode(codec: Codec, case: Case, file: Path, budget_gb: float | None, change: Change | None) -> None:
    case = case if change is None else change.apply(case)
    mean, std = codec.encode_case(case, budget_gb)
    if not bool(mean.isfinite().all() & std.isfinite().all()):
        raise InputError(
            f"case {case.case_id}: its latents are not finite; look at its image, or train the autoencoder anew with a "
            "lower autoencoder.training.learning_rate."
        )
    with whole_file(file) as partial:
        save_tensors(packed(mean.float(), std.float()) | ({} if change is None else change.beside(case)), partial)


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """Open a file of latents to read parts of it.

    Raises:
        InputError: it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as stored:
            yield stored
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} cannot be read as latents ({error}); delete it and run this stage again.") from error
