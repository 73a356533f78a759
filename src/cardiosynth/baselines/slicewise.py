"""A method of slices on volumes: it learns from axial slices and makes a volume one slice after the other.

No slice knows its neighbors, so that the structures of one may not meet those of the next; evaluation's continuity
along the third axis shows how far (FCaS, Fig. 4).
"""

from pathlib import Path
from typing import Any

import numpy as np

from cardiosynth.baselines.cases import synthetic
from cardiosynth.core.case import Case
from cardiosynth.core.progress import Progress
from cardiosynth.data.dataset import Dataset, DatasetWriter, read_dataset
from cardiosynth.data.prepare.slices import slice_of
from cardiosynth.sampling.fitting import check_same_grid
from cardiosynth.sampling.generator import Generator

AXIAL = 2
"""Axis of a volume, RAS+, that slices are cut across."""
SLICES = "slices"
"""Folder of a run with the slices that it learned from."""


class SliceWise:
    """A generator of volumes from one of slices.

    Args:
        method: of slices; its stages lie in the same run.
    """

    def __init__(self, method: Generator):
        self.method = method

    def fit(self, cases: Dataset, run: Path) -> None:
        """Learn from all axial slices of ``cases``, which are written to the run first.

        Raises:
            InputError: what the method of slices refuses, or the disk is full.
        """
        self.method.fit(write_slices(cases, run / SLICES), run)

    def generate(self, mask: Case, template: Case, seed: int) -> Case:
        """Return the volume of the slices made for those of mask and template at the same place.

        Each slice has noise of its own, named after the case and the slice's index.

        Raises:
            InputError: mask and template differ in their grids, or what the method of slices refuses.
        """
        check_same_grid(mask, template)
        pairs = [(slice_at(mask, index), slice_at(template, index)) for index in range(mask.grid.shape[AXIAL])]
        made = [self.method.generate(*pair, seed) for pair in pairs]
        image = np.stack([piece.required_image() for piece in made], axis=-1)
        shows, licences = made[0].mask is not None, {str(piece.provenance["licence"]) for piece in made}
        volume = synthetic(image, mask, template, seed, _facts(made[0]), shows_mask=shows, licences=licences)
        maps = [piece.confidence for piece in made if piece.confidence is not None]
        return volume.with_(confidence=np.stack(maps, axis=-1)) if len(maps) == len(made) else volume


def slice_at(volume: Case, index: int) -> Case:
    """Return the axial slice of a volume with this index, named after both."""
    name = f"{volume.case_id}_slice{index:03d}"
    facts = {**volume.provenance, "volume": volume.case_id, "slice": index}
    return slice_of(volume, AXIAL, index).with_(case_id=name, provenance=facts)


def write_slices(cases: Dataset, out: Path) -> Dataset:
    """Write all axial slices of volumes as a dataset folder; those that are there already are kept."""
    facts = {"volumes": list(cases.case_ids)}
    writer = DatasetWriter(out, cases.labels, name="axial slices", facts=facts)
    with writer, Progress("cut slices", len(cases)) as progress:
        for case in cases:
            pieces = (slice_at(case, index) for index in range(case.grid.shape[AXIAL]))
            for piece in pieces:
                if not writer.has(piece.case_id):
                    writer.write(piece)
            progress.update()
    return read_dataset(out)


def _facts(piece: Case) -> dict[str, Any]:
    """Return what a slice says of how it was made; of what it was made, the volume says itself."""
    own = {"parents", "reference", "template", "seed", "licence", "conditional"}
    return {key: value for key, value in piece.provenance.items() if key not in own} | {"slice_wise": True}
