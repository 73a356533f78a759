"""Datasets of phantoms, drawn by as many processes as the machine has cores."""

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cardiosynth.core.case import Case
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.progress import Progress
from cardiosynth.data.dataset import Dataset, DatasetWriter, read_dataset
from cardiosynth.data.sources.phantom.source import phantom, phantoms


@dataclass(frozen=True)
class Population:
    """Which phantoms.

    Attributes:
        count: how many.
        shape: voxels along X, Y, Z.
        spacing_mm: voxel size; None lets the heart fill the field of view.
        protocols: how many acquisition protocols take turns.
        seed: the run's seed.
        first: index of the first patient; patients nobody has seen have others.
        first_protocol: index of the first protocol.
    """

    count: int
    shape: tuple[int, int, int]
    spacing_mm: float | tuple[float, ...] | None = None
    protocols: int = 4
    seed: int = 0
    first: int = 0
    first_protocol: int = 0

    def draw(self, index: int) -> Case:
        """Return the patient with this index."""
        protocol = self.first_protocol + index % self.protocols
        return phantom(index, self.shape, self.spacing_mm, protocol, self.seed)


def write_phantoms(population: Population, out: Path, name: str = "phantoms") -> Dataset:
    """Write the phantoms that ``out`` does not hold yet.

    Raises:
        InputError: a population that cannot be drawn, or a folder that cannot be written.
    """
    # An impossible request is refused before anything is written.
    phantoms(population.count, population.shape, population.spacing_mm, population.protocols, population.seed)
    indices = range(population.first, population.first + population.count)
    with DatasetWriter(out, CARDIAC_CT, name=name) as writer:
        missing = [index for index in indices if not writer.has(f"phantom-{index:05d}")]
        with Progress(f"draw {name}", population.count, population.count - len(missing)) as progress:
            for case in _drawn(population, missing):
                writer.write(case)
                progress.update()
    return read_dataset(out)


def _drawn(population: Population, indices: list[int]) -> Iterator[Case]:
    workers = min(len(indices), os.cpu_count() or 1)
    if workers < 2:
        yield from map(population.draw, indices)
        return
    # Forked children of a process with running threads can hang; spawned ones start clean.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(population.draw, indices)
