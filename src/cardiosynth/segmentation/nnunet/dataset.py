"""nnU-Net's preprocessed cases with one more channel: how far each voxel's weight falls short of 1."""

from pathlib import Path
from typing import Any

import blosc2  # pyright: ignore[reportMissingImports]
import numpy as np
import torch
from jaxtyping import Float
from nnunetv2.training.dataloading.nnunet_dataset import (  # pyright: ignore[reportMissingImports]
    nnUNetDatasetBlosc2,
)

from cardiosynth.core.errors import InputError
from cardiosynth.segmentation.losses import ConfidenceWeights
from cardiosynth.segmentation.nnunet.sidecar import COUNTS, LEVELS, sidecar


class ConfidenceDataset(nnUNetDatasetBlosc2):
    """nnU-Net's cases, whose last channel is 1 - weight; 0 where a case has no map.

    Args:
        folder: of the preprocessed cases.
        identifiers: names of the cases.
        weights: how confidence becomes a weight.
    """

    def __init__(self, folder: str, identifiers: list[str], weights: ConfidenceWeights):
        super().__init__(folder, identifiers)
        self.weights = weights

    def load_case(self, identifier: str) -> tuple[Any, Any, None, dict[str, Any]]:  # pyright: ignore
        """Return image and weights as one array that is read when sliced, the segmentation, None and nnU-Net's facts.

        Raises:
            InputError: the map lies on another grid than the image.
        """
        image, segmentation, _, properties = super().load_case(identifier)
        file = sidecar(Path(self.source_folder), identifier)
        if not file.exists():
            return Stacked(image), segmentation, None, properties
        kwargs: dict[str, Any] = {"mode": "r", "dparams": {"nthreads": 1}, **self.mmap_kwargs}
        levels: Any = blosc2.open(urlpath=str(file), **kwargs)
        shapes: list[Any] = [levels, image]
        if len({array.shape[1:] for array in shapes}) > 1:
            raise InputError(f"{file} does not lie on its image's grid; remove its folder, it is made anew.")
        return Stacked(image, levels, shortfall(self.weights, levels)), segmentation, None, properties


def shortfall(weights: ConfidenceWeights, levels: Any) -> Float[np.ndarray, "levels"]:
    """Return 1 - weight for every byte of a case's map.

    Args:
        weights: how confidence becomes a weight.
        levels: the map, which knows how many of its voxels have each value.
    """
    floored = weights.floored(torch.linspace(1, 0, LEVELS + 1)).numpy()
    if weights.relative:
        floored = floored * weights.factor(float(np.average(floored, weights=levels.schunk.vlmeta[COUNTS])))
    return (1 - floored).astype(np.float32)


class Stacked:
    """Looks to nnU-Net's cropping like one array (c + 1, x, y, z) and reads the window asked for of both files.

    Args:
        image: (c, x, y, z).
        levels: (1, x, y, z) bytes, or None where every voxel has weight 1.
        table: 1 - weight of every byte.
    """

    def __init__(self, image: Any, levels: Any = None, table: np.ndarray | None = None):
        self._image, self._levels, self._table = image, levels, table
        self.shape = (image.shape[0] + 1, *image.shape[1:])
        self.ndim, self.dtype = len(self.shape), np.dtype(np.float32)

    def __getitem__(self, window: tuple[slice, ...]) -> Float[np.ndarray, "c x y z"]:
        image = self._image[window]
        stacked = np.empty((len(image) + 1, *image.shape[1:]), np.float32)
        stacked[:-1] = image
        if self._levels is None or self._table is None:
            stacked[-1] = 0
        else:
            np.take(self._table, self._levels[(slice(None), *window[1:])][0], out=stacked[-1], mode="clip")
        return stacked
