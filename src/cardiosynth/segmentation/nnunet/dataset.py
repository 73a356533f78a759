"""nnU-Net's preprocessed cases, with word of their maps for whoever augments them."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import blosc2  # pyright: ignore[reportMissingImports]
import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import (  # pyright: ignore[reportMissingImports]
    nnUNetDatasetBlosc2,
)

from cardiosynth.core.errors import InputError
from cardiosynth.segmentation.losses import ConfidenceWeights
from cardiosynth.segmentation.nnunet.patches import CaseMap, NotedImage, Place
from cardiosynth.segmentation.nnunet.sidecar import centers_file, counts_file, sidecar

KEPT_MAPS = 4096
"""A process may have some 65 000 files mapped into its memory."""


class ConfidenceDataset(nnUNetDatasetBlosc2):
    """nnU-Net's cases; of the one that was loaded last, ``place`` has the map and where its patch was cut.

    Args:
        folder: of the preprocessed cases.
        identifiers: names of the cases.
        weights: how confidence becomes a weight.
        place: what the augmentation of the patches looks at.
    """

    def __init__(self, folder: str, identifiers: list[str], weights: ConfidenceWeights, place: Place):
        super().__init__(folder, identifiers)
        self.weights, self.place = weights, place
        self._classes: list[Any] = []
        self._maps: dict[str, CaseMap] = {}

    def load_case(self, identifier: str) -> tuple[Any, Any, None, dict[str, Any]]:  # pyright: ignore
        """Return the image, the segmentation, None and nnU-Net's facts; of these only what patches are centered on.

        Raises:
            InputError: the map lies on another grid than the image.
        """
        folder = Path(self.source_folder)
        self.place.map = self._map(identifier, folder)
        if self.place.map is None:
            return super().load_case(identifier)
        image, segmentation, centers = self._opened(identifier, folder)
        if self.place.map.grid != tuple(image.shape[1:]):
            file = sidecar(folder, identifier)
            raise InputError(f"{file} does not lie on its image's grid; remove its folder, it is made anew.")
        return NotedImage(image, self.place), segmentation, None, {"class_locations": centers}

    def _map(self, identifier: str, folder: Path) -> CaseMap | None:
        """Return the case's map, which stays mapped into memory: opening a file takes six times as long as reading."""
        file = sidecar(folder, identifier)
        if identifier not in self._maps and file.exists():
            counts = np.load(counts_file(folder, identifier)) if self.weights.relative else None
            if len(self._maps) >= KEPT_MAPS:
                self._maps.clear()
            self._maps[identifier] = CaseMap(np.asarray(np.load(file, mmap_mode="r")), self.weights, counts)
        return self._maps.get(identifier)

    def _opened(self, identifier: str, folder: Path) -> tuple[Any, Any, Mapping[Any, np.ndarray]]:
        """Return image, segmentation and centers; ours, of which little is read, where nnU-Net reads a whole file."""
        if not self._classes or self.weights.floor > 0:
            image, segmentation, _, properties = super().load_case(identifier)
            self._classes = list(properties["class_locations"])
            if self.weights.floor > 0:
                return image, segmentation, properties["class_locations"]
        kwargs: dict[str, Any] = {"mode": "r", "dparams": {"nthreads": 1}, **self.mmap_kwargs}
        names = (f"{identifier}.b2nd", f"{identifier}_seg.b2nd")
        image, segmentation = (blosc2.open(urlpath=str(folder / name), **kwargs) for name in names)
        return image, segmentation, Centers(centers_file(folder, identifier), self._classes)


class Centers(Mapping[Any, np.ndarray]):
    """The voxels that patches may be centered on, by class; nnU-Net looks at those of a third of its patches.

    Args:
        path: see `centers_file`.
        classes: in the file's order.
    """

    def __init__(self, path: Path, classes: Sequence[Any]):
        self._path, self._classes = path, classes

    @cached_property
    def _parts(self) -> dict[Any, np.ndarray]:
        stored, count = np.asarray(np.load(self._path, mmap_mode="r")), len(self._classes)
        parts = np.split(stored[count:], np.cumsum(stored[:count, 0])[:-1])
        return dict(zip(self._classes, parts, strict=True))

    def __getitem__(self, label: Any) -> np.ndarray:
        """Return the voxels of a class."""
        return self._parts[label]

    def __iter__(self) -> Iterator[Any]:
        """Go through the classes."""
        return iter(self._classes)

    def __len__(self) -> int:
        """Return how many classes there are."""
        return len(self._classes)
