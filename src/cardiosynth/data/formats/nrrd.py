"""NRRD files (3D Slicer, ITK): the space that the header names becomes RAS+, whatever its units millimeters.

``.nrrd`` holds header and voxels; of a detached header (``.nhdr``) the data file that it names is read too. Axes may be
oblique. A file without a space stands in LPS, as ITK takes it; one without voxel sizes has unknown spacing. Axes that
are none of space (a component list of 3D Slicer's ``.seg.nrrd``, time) must be of length one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nrrd
import numpy as np

from cardiosynth.core.errors import InputError
from cardiosynth.data.formats.volume import Volume, check_affine, check_voxel_type, upright, without_trailing_axes

SPACES = {
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
}
"""Name of a patient's space -> the signs that turn its coordinates into RAS."""
SHORT = {"RAS": "right-anterior-superior", "LAS": "left-anterior-superior", "LPS": "left-posterior-superior"}
MILLIMETERS = {"m": 1000.0, "meter": 1000.0, "cm": 10.0, "mm": 1.0, "um": 0.001, "µm": 0.001, "micron": 0.001}
"""Name of a unit of length -> millimeters; others are taken as millimeters."""


def read_nrrd(path: Path) -> Volume:
    """Read one NRRD file.

    Raises:
        InputError: damaged, not NRRD, colors, several frames or components, or a space that is no patient's.
    """
    values, header = _load(path)
    space, others = _axes(header, values.ndim)
    if others and any(str(header.get("kinds", [""] * values.ndim)[i]).startswith("RGB") for i in others):
        raise InputError(f"{path} holds RGB colors; export the gray values instead.")
    values = without_trailing_axes(values.transpose(space + others), path)
    check_voxel_type(values.dtype, path)
    affine, known = _affine(header, space, path)
    if len(space) == 2:
        affine[:3, 2] = np.cross(affine[:3, 0], affine[:3, 1]) / max(np.linalg.norm(affine[:3, 0]), 1e-9)
    origin = "space directions" if "space directions" in header else "spacings" if known else "nothing"
    check_affine(affine, path, origin)
    return upright(values, affine, known, origin, str(header.get("content", "")))


def _load(path: Path) -> tuple[np.ndarray, Mapping[str, Any]]:
    try:
        return nrrd.read(str(path), index_order="F")
    except Exception as error:  # pynrrd lets through whatever its parsers of numbers and streams raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is truncated or damaged ({reason}); copy or export it again.") from error


def _axes(header: Mapping[str, Any], ndim: int) -> tuple[list[int], list[int]]:
    """Return which axes lie in space and which do not."""
    directions = header.get("space directions")
    if directions is not None:
        inside = [i for i, row in enumerate(directions) if row is not None and np.isfinite(row).all()]
    else:
        kinds = header.get("kinds", ["domain"] * ndim)
        inside = [i for i, kind in enumerate(kinds) if str(kind) in ("domain", "space", "???", "none")][:3]
    return inside, [i for i in range(ndim) if i not in inside]


def _affine(header: Mapping[str, Any], space: list[int], path: Path) -> tuple[np.ndarray, bool]:
    """Return the affine in RAS+ millimeters and whether the header carries a voxel size."""
    n = len(space)
    affine = np.eye(4)
    known = "space directions" in header
    if known:
        columns = np.array([header["space directions"][i] for i in space], np.float64).T
        affine[: columns.shape[0], :n] = columns
        affine[: columns.shape[0], 3] = header.get("space origin", np.zeros(columns.shape[0]))
    elif "spacings" in header and np.isfinite([header["spacings"][i] for i in space]).all():
        affine[range(n), range(n)] = [header["spacings"][i] for i in space]
        known = True
    affine[:3] *= _scales(header)[:, None]
    affine[:3] *= _signs(str(header.get("space", "left-posterior-superior")), path)[:, None]
    return affine, known


def _scales(header: Mapping[str, Any]) -> np.ndarray:
    units = [str(unit).strip('"') for unit in header.get("space units", header.get("units", []))]
    return np.array([MILLIMETERS.get(unit, 1.0) for unit in [*units, "", "", ""][:3]])


def _signs(space: str, path: Path) -> np.ndarray:
    """Return (3,) what turns the coordinates of a named space into RAS; a time beside the space does not matter."""
    name = SHORT.get(space[:3] if space.isupper() else "", space.removesuffix("-time"))
    if name not in SPACES:
        raise InputError(f"{path}: its space '{space}' is none of a patient; save it as left-posterior-superior.")
    return np.array(SPACES[name], np.float64)
