"""nnU-Net's preprocessed cases, with one more channel where there is a map: how far weights fall short of 1."""

from pathlib import Path
from typing import Any

import blosc2  # pyright: ignore[reportMissingImports]
import numpy as np
import torch
from jaxtyping import Float, UInt8
from nnunetv2.training.dataloading.nnunet_dataset import (  # pyright: ignore[reportMissingImports]
    nnUNetDatasetBlosc2,
)

from cardiosynth.core.errors import InputError
from cardiosynth.segmentation.losses import ConfidenceWeights
from cardiosynth.segmentation.nnunet.sidecar import CENTERS, COUNTS, LEVELS, centers_file, sidecar

NOTHING = np.float32(1e30)
"""Added to 1 - weight where the weight is 0. Whatever is interpolated with the least share of such a voxel is far above
1 too, and its weight 0: the voxel's label may have gone into the label that is interpolated beside it."""


class ConfidenceDataset(nnUNetDatasetBlosc2):
    """nnU-Net's cases. Those with a map have one channel more, 1 - weight, and :data:`NOTHING` where the weight is 0.

    Args:
        folder: of the preprocessed cases.
        identifiers: names of the cases.
        weights: how confidence becomes a weight.
    """

    def __init__(self, folder: str, identifiers: list[str], weights: ConfidenceWeights):
        super().__init__(folder, identifiers)
        self.weights = weights

    def load_case(self, identifier: str) -> tuple[Any, Any, None, dict[str, Any]]:  # pyright: ignore
        """Return the image, with the weights where it has a map, the segmentation, None and nnU-Net's facts.

        Raises:
            InputError: the map lies on another grid than the image.
        """
        image, segmentation, _, properties = super().load_case(identifier)
        file = sidecar(Path(self.source_folder), identifier)
        if not file.exists():
            return image, segmentation, None, properties
        kwargs: dict[str, Any] = {"mode": "r", "dparams": {"nthreads": 1}, **self.mmap_kwargs}
        levels: Any = blosc2.open(urlpath=str(file), **kwargs)
        shapes: list[Any] = [levels, image]
        if len({array.shape[1:] for array in shapes}) > 1:
            raise InputError(f"{file} does not lie on its image's grid; remove its folder, it is made anew.")
        numbers = levels.schunk.vlmeta[CENTERS]
        if self.weights.floor == 0 and numbers is not None:
            stored = np.load(centers_file(Path(self.source_folder), identifier), mmap_mode="r")
            parts = np.split(stored, np.cumsum(numbers)[:-1])
            properties["class_locations"] = dict(zip(properties["class_locations"], parts, strict=True))
        return Stacked(image, levels, self.weights), segmentation, None, properties


class Stacked:
    """Looks to nnU-Net's cropping like one array (c + 1, x, y, z) and reads the window asked for of both files.

    Args:
        image: (c, x, y, z).
        levels: (1, x, y, z) bytes, a map that knows how many of its voxels have each value.
        weights: how confidence becomes a weight.
    """

    def __init__(self, image: Any, levels: Any, weights: ConfidenceWeights):
        self._image, self._levels, self._floor, self._factor = image, levels, weights.floor, 1.0
        if weights.relative:
            floored = weights.floored(torch.linspace(1, 0, LEVELS + 1)).numpy()
            self._factor = weights.factor(float(np.average(floored, weights=levels.schunk.vlmeta[COUNTS])))
        self.shape = (image.shape[0] + 1, *image.shape[1:])
        self.ndim, self.dtype = len(self.shape), np.dtype(np.float32)

    def __getitem__(self, window: tuple[slice, ...]) -> Float[np.ndarray, "c x y z"]:
        image = self._image[window]
        stacked = np.empty((len(image) + 1, *image.shape[1:]), np.float32)
        stacked[:-1] = image
        self._fall_short(self._levels[(slice(None), *window[1:])][0], stacked[-1])
        return stacked

    def _fall_short(self, levels: UInt8[np.ndarray, "x y z"], out: Float[np.ndarray, "x y z"]) -> None:
        """Write 1 - factor * max(CM, floor), where CM = 1 - level / 255. Every batch waits for this."""
        np.multiply(levels, np.float32(self._factor / LEVELS), out=out)
        if self._factor != 1:
            out += 1 - self._factor
        if self._floor > 0:
            np.minimum(out, 1 - self._factor * self._floor, out=out)
        else:
            np.add(out, NOTHING, out=out, where=levels == LEVELS)
