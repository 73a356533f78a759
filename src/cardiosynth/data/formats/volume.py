"""What every format yields, and the checks that all of them share."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cardiosynth.core.errors import InputError
from cardiosynth.core.volume import Grid, to_ras


@dataclass(frozen=True, eq=False)
class Volume:
    """One image file.

    Attributes:
        array: (1, X, Y, Z) or (1, X, Y), axes closest to RAS+.
        affine: (4, 4) float64, voxel index to RAS+ millimeters.
        spacing_known: False where the file carries no voxel size.
        facts: what the header says: ``affine_from`` (which of its fields gave the affine), ``axis_codes`` as stored,
            ``sheared``, ``description``.
    """

    array: np.ndarray
    affine: np.ndarray
    spacing_known: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """Shape and affine."""
        return Grid(self.array.shape[1:], self.affine)


def upright(
    values: np.ndarray, affine: np.ndarray, spacing_known: bool, affine_from: str, description: str = ""
) -> Volume:
    """Return ``values`` (X, Y[, Z]) as a volume whose axes are closest to RAS+; no value changes."""
    stored = Grid(values.shape, affine)
    facts = {
        "affine_from": affine_from,
        "axis_codes": stored.axis_codes,
        "sheared": stored.is_sheared,
        "description": description,
    }
    array, affine = to_ras(values[None], affine)
    return Volume(array, affine, spacing_known, facts)


def check_voxel_type(dtype: np.dtype, path: Path) -> None:
    """Refuse voxels that are not real numbers.

    Raises:
        InputError: naming the file and what to export instead.
    """
    if dtype.names is not None:
        raise InputError(f"{path} holds RGB colors; export the gray values instead.")
    if dtype.kind == "c":
        raise InputError(f"{path} holds complex numbers; export the magnitude image instead.")
    if dtype.kind not in "iuf":
        raise InputError(f"{path} holds voxels of type {dtype}; export integers or floating-point numbers.")


def without_trailing_axes(values: np.ndarray, path: Path) -> np.ndarray:
    """Return ``values`` as a slice (X, Y) or a volume (X, Y, Z), trailing axes of length one dropped.

    Raises:
        InputError: several frames, or nothing at all.
    """
    while values.ndim > 2 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim > 3:
        frames = int(np.prod(values.shape[3:]))
        raise InputError(f"{path} holds {frames} frames of {values.shape[:3]}; write one frame to a file of its own.")
    if values.ndim < 2 or 0 in values.shape:
        raise InputError(f"{path} has the shape {values.shape}; give a slice or a volume.")
    return values


def check_affine(affine: np.ndarray, path: Path, what: str) -> None:
    """Refuse an affine that maps no space; ``what`` names the header's field.

    Raises:
        InputError: naming the file and the field.
    """
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{path}: its {what} is not an invertible finite matrix; mend the header's orientation.")


def as_image(volume: Volume, path: Path) -> Volume:
    """Return ``volume`` as an image: int16 where every value is an integer that int16 holds, else float32.

    Raises:
        InputError: voxels that are not finite.
    """
    values = volume.array
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise InputError(f"{path}: {bad} voxels are not finite; replace NaN and infinity by the value of air.")
    fits = values.min() >= -32768 and values.max() <= 32767
    whole = values.dtype.kind != "f" or bool((values == np.rint(values)).all())
    return replace(volume, array=values.astype(np.int16 if fits and whole else np.float32))


def as_mask(volume: Volume, path: Path, codes: Mapping[int, int] | None = None) -> Volume:
    """Return ``volume`` as a mask of uint8 codes, renumbered by ``codes`` (in the file -> wanted; 0 stays 0).

    Raises:
        InputError: values that are not whole numbers from 0 to 255, or not in ``codes``.
    """
    values = volume.array
    if values.dtype.kind == "f" and not (values == np.rint(values)).all():
        raise InputError(f"{path}: the mask holds fractions; export it with one whole number per structure.")
    if codes is not None:
        return replace(volume, array=_renumbered(values, {0: 0, **codes}, path))
    low, high = values.min(), values.max()
    if low < 0 or high > 255:
        raise InputError(f"{path}: mask codes run from {low:g} to {high:g}; renumber the structures to 1..255.")
    return replace(volume, array=values.astype(np.uint8))


def _renumbered(values: np.ndarray, codes: Mapping[int, int], path: Path) -> np.ndarray:
    found = np.unique(values)
    unknown = [f"{value:g}" for value in found if int(value) not in codes]
    if unknown:
        known = ", ".join(str(code) for code in sorted(codes) if code)
        raise InputError(f"{path} holds the code {', '.join(unknown)}; expected are {known}: mend the mask.")
    mask = np.zeros(values.shape, np.uint8)
    for value in found:
        mask[values == value] = codes[int(value)]
    return mask


def as_confidence(volume: Volume, path: Path) -> Volume:
    """Return ``volume`` as a confidence map, float32 in [0, 1].

    Raises:
        InputError: voxels that are not finite, or values outside [0, 1].
    """
    values = as_image(volume, path).array.astype(np.float32)
    if values.min() < -1e-6 or values.max() > 1 + 1e-6:
        raise InputError(f"{path}: confidence runs from {values.min():g} to {values.max():g}; scale it to [0, 1].")
    return replace(volume, array=values.clip(0, 1))
