"""Cases held in memory for training: int16 images and uint8 masks, turned into model units crop by crop."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale, Window
from cardiosynth.core.random import draw_int
from cardiosynth.core.store import fingerprint

Where = tuple[slice, ...]
"""Voxels per axis; all of them for ()."""


@dataclass(frozen=True, eq=False)
class Crop:
    """A block of a case.

    Attributes:
        image: (1, *shape) in model units [0, 1]; 0 beyond the case.
        mask: (1, *shape) uint8 codes; 0 beyond the case. None where the case has no mask.
        confidence: (1, *shape) in [0, 1]; 1 where the case has no confidence map, 0 beyond the case.
        start: voxel index of the block's corner; negative where the block is larger than the case.
    """

    image: Float[Tensor, "1 *grid"]
    mask: UInt8[Tensor, "1 *grid"] | None
    confidence: Float[Tensor, "1 *grid"]
    start: tuple[int, ...]


class CaseCache:
    """The cases of a dataset, read once.

    Args:
        cases: a dataset or any sequence of cases; all of them need an image.
        scale: how the model sees intensities.
        needs_masks: whether every case must have a mask.

    Raises:
        InputError: fewer than two cases, another intensity unit than the model's, or a part that is missing or empty.
    """

    def __init__(self, cases: Sequence[Case], scale: IntensityScale, *, needs_masks: bool = False):
        if len(cases) < 2:
            raise InputError(f"{len(cases)} case is too few for training; give a dataset with at least two.")
        self.cases: list[Case] = []
        self._confidence: list[np.ndarray | None] = []
        for case in cases:
            _check(case, scale, needs_masks)
            self.cases.append(case.with_(confidence=None))
            self._confidence.append(_as_bytes(case))
        self.case_ids = tuple(case.case_id for case in self.cases)
        self.labels = self.cases[0].labels
        self._windows = [scale.window_of(case.required_image()) for case in self.cases]
        self._where: dict[tuple[int, tuple[int, ...]], np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def fingerprint(self) -> str:
        """What identifies the cases, in their order, for a run's record."""
        return fingerprint(list(self.case_ids))

    @property
    def record(self) -> dict[str, Any]:
        """What a trained network's record says of its cases.

        ``labels``, ``grid`` (shape and spacing in mm of the first case), ``cases`` (their fingerprint) and
        ``licences`` of those that tell it.
        """
        first = self.cases[0]
        spacing = None if first.spacing_mm is None else [round(v, 6) for v in first.spacing_mm]
        return {
            "labels": self.labels.model_dump(mode="json"),
            "grid": {"shape": list(first.grid.shape), "spacing_mm": spacing},
            "cases": self.fingerprint,
            "licences": sorted(
                {str(case.provenance["licence"]) for case in self.cases if "licence" in case.provenance}
            ),
        }

    def window(self, index: int) -> Window:
        """Return the window that maps this case's image to model units."""
        return self._windows[index]

    def mean_confidence(self, index: int) -> float:
        """Return the mean of this case's confidence map; 1 where it has none."""
        confidence = self._confidence[index]
        return 1.0 if confidence is None else float(confidence.mean(dtype=np.float64)) / 255

    def image(self, index: int, where: Where = ()) -> Float[Tensor, "1 *grid"]:
        """Return the image, or a part of it, in model units [0, 1]."""
        return self._image(index, self.cases[index].required_image()[(slice(None), *where)])

    def mask(self, index: int, where: Where = ()) -> UInt8[Tensor, "1 *grid"]:
        """Return the mask, or a part of it.

        Raises:
            InputError: the case has none.
        """
        return torch.from_numpy(np.ascontiguousarray(self.cases[index].required_mask()[(slice(None), *where)]))

    def confidence(self, index: int, where: Where = ()) -> Float[Tensor, "1 *grid"]:
        """Return the confidence map, or a part of it, in [0, 1]; 1 where the case has none."""
        confidence, place = self._confidence[index], (slice(None), *where)
        if confidence is None:
            return torch.ones(self.cases[index].required_image()[place].shape)
        return torch.from_numpy(np.ascontiguousarray(confidence[place])).float() / 255

    def start(
        self, index: int, shape: Sequence[int], rng: torch.Generator, codes: Sequence[int] = ()
    ) -> tuple[int, ...]:
        """Draw where a block of ``shape`` begins.

        Args:
            index: the case.
            shape: voxels per axis.
            rng: the example's generator.
            codes: if the mask holds any of these, the block is centered on one of their voxels that has any confidence,
                as far as the case reaches; else every place is alike.
        """
        size = self.cases[index].grid.shape
        assert len(shape) == len(size), (shape, size)
        voxels = self._voxels(index, tuple(codes))
        if len(voxels) == 0:
            return tuple(_corner(draw_int(abs(n - b) + 1, rng), n, b) for n, b in zip(size, shape, strict=True))
        center = np.unravel_index(int(voxels[draw_int(len(voxels), rng)]), size)
        wanted = [int(c) - b // 2 for c, b in zip(center, shape, strict=True)]
        return tuple(min(max(w, min(0, n - b)), max(0, n - b)) for w, n, b in zip(wanted, size, shape, strict=True))

    def crop(self, index: int, shape: Sequence[int], rng: torch.Generator, codes: Sequence[int] = ()) -> Crop:
        """Draw a block of a case; see `start`. A block larger than the case is padded."""
        return self.take(index, self.start(index, shape, rng, codes), shape)

    def take(self, index: int, start: Sequence[int], shape: Sequence[int]) -> Crop:
        """Return the block of a case that begins at voxel ``start``, which may lie beyond the case."""
        case = self.cases[index]
        image = block(case.required_image(), start, shape)
        inside = block(np.ones_like(case.required_image(), np.uint8), start, shape)
        confidence = self._confidence[index]
        certain = inside * np.uint8(255) if confidence is None else block(confidence, start, shape)
        mask = None if case.mask is None else torch.from_numpy(block(case.mask, start, shape))
        return Crop(
            image=self._image(index, image) * torch.from_numpy(inside),
            mask=mask,
            confidence=torch.from_numpy(certain).float() / 255,
            start=tuple(start),
        )

    def _image(self, index: int, image: np.ndarray) -> Float[Tensor, "1 *grid"]:
        return self._windows[index].to_model(torch.from_numpy(image.astype(np.float32)))

    def _voxels(self, index: int, codes: tuple[int, ...]) -> np.ndarray:
        """Return the flat indices of the voxels that hold one of ``codes`` and may count, computed once."""
        mask, confidence = self.cases[index].mask, self._confidence[index]
        if not codes or mask is None:
            return np.empty(0, np.int32)
        if (index, codes) not in self._where:
            inside = np.isin(mask, codes) if confidence is None else np.isin(mask, codes) & (confidence > 0)
            self._where[index, codes] = np.flatnonzero(inside).astype(np.int32)
        return self._where[index, codes]


def _check(case: Case, scale: IntensityScale, needs_masks: bool) -> None:
    case.required_image()
    if case.intensity_unit != scale.unit:
        raise InputError(
            f"case {case.case_id} is in '{case.intensity_unit}', the model expects '{scale.unit}'; prepare it with the "
            "right unit or change intensity.unit."
        )
    if needs_masks and not case.required_mask().any():
        raise InputError(f"case {case.case_id}: its mask is empty; draw the structures or remove the case.")


def _as_bytes(case: Case) -> np.ndarray | None:
    return None if case.confidence is None else np.rint(case.confidence * 255).astype(np.uint8)


def _corner(drawn: int, size: int, block: int) -> int:
    return drawn if size >= block else drawn - (block - size)


def block(array: np.ndarray, start: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """Return ``array[:, start : start + shape]`` with zeros where that lies outside.

    Args:
        array: (C, *grid).
        start: voxel index of the corner; may be negative.
        shape: voxels per axis.
    """
    out = np.zeros((array.shape[0], *shape), array.dtype)
    source, target = [slice(None)], [slice(None)]
    for first, length, size in zip(start, shape, array.shape[1:], strict=True):
        low, high = max(first, 0), min(first + length, size)
        source.append(slice(low, high))
        target.append(slice(low - first, high - first))
    out[tuple(target)] = array[tuple(source)]
    return out
