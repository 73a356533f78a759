"""Volumes cut into slices: one size, the heart in the middle, the patient and the place in every row."""

import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import say
from cardiosynth.core.volume import Grid, centered_grid, right_angled_axes, spacing_along
from cardiosynth.data.prepare.settings import FIELD_MM, PrepareSettings, SliceSettings
from cardiosynth.data.prepare.volumes import center_mm, is_turned, on_grid, snapped, target_bounds, target_grid

THICKER = 1.5
"""An axis is the slice axis where its voxels are so many times longer than the shortest."""


def cut_slices(case: Case, settings: PrepareSettings) -> list[Case]:
    """Return the slices of a volume that show a target structure, or all where there is no mask.

    They share one field of view around the volume's heart. A case that is a slice already is brought to size.

    Args:
        case: volume or slice.
        settings: with ``slices``.

    Returns:
        ``CASE_slice000`` and so on, counted along the patient's axis; the provenance holds ``volume``, ``slice`` (the
        index), ``slices`` (how many were kept) and ``left_out``.

    Raises:
        InputError: an empty mask, or a pixel size asked for in millimeters where the case's own is unknown.
    """
    cut = settings.slices
    assert cut is not None
    if case.mask is not None and not case.mask.any():
        raise InputError(f"case {case.case_id}: the mask is empty; draw the structures or remove the mask file.")
    if len(case.grid.shape) == 2:
        return [on_grid(case, _field(case, center_mm(case, settings), settings), settings)]
    if cut.plane == "axial" and settings.axes == "patient" and is_turned(case.grid):
        case = on_grid(case, target_grid(case, PrepareSettings(axes="patient")), settings)
    axis, middle = slice_axis(case, cut), center_mm(case, settings)
    pieces = [slice_of(case, axis, index) for index in range(case.grid.shape[axis])]
    _tell_if_cut(case, axis, _field(pieces[0], middle, settings))
    moved = (on_grid(piece, _field(piece, middle, settings), settings) for piece in pieces)
    kept = [(i, piece) for i, piece in enumerate(moved) if piece.mask is None or target_bounds(piece) is not None]
    facts = {"volume": case.case_id, "slices": len(kept), "left_out": len(pieces) - len(kept)}
    if not kept:
        raise InputError(f"case {case.case_id}: none of its slices shows a target structure; look at its mask.")
    return [
        piece.with_(
            case_id=f"{case.case_id}_slice{index:03d}",
            provenance={**case.provenance, **piece.provenance, **facts, "slice": index},
        )
        for index, piece in kept
    ]


def slice_axis(case: Case, cut: SliceSettings) -> int:
    """Return the axis that slices are cut across: the patient's, or that of the thickest voxels, else the shortest."""
    grid = case.grid
    if cut.plane == "axial":
        return int(np.argmax(np.abs(right_angled_axes(grid)[2])))
    spacing = grid.spacing_mm
    if case.spacing_known and max(spacing) > THICKER * min(spacing):
        return int(np.argmax(spacing))
    return int(np.argmin(grid.shape))


def slice_of(case: Case, axis: int, index: int) -> Case:
    """Return one slice of a volume as a case of two axes; the affine's third column is its normal and thickness."""
    order = [i for i in range(3) if i != axis] + [axis, 3]
    affine = case.affine[:, order].copy()
    affine[:3, 3] += index * affine[:3, 2]
    parts = {name: getattr(case, name) for name in ("image", "mask", "confidence")}
    taken = {
        name: None if a is None else np.ascontiguousarray(a.take(index, axis=axis + 1)) for name, a in parts.items()
    }
    return case.with_(**taken, affine=affine)


def _field(piece: Case, middle: np.ndarray, settings: PrepareSettings) -> Grid:
    """Return the grid that a slice comes to: its own plane, the size asked for, ``middle`` at its center."""
    cut = settings.slices
    assert cut is not None
    axes = right_angled_axes(piece.grid)
    across, along, thick = spacing_along(piece.grid, axes)
    if cut.scale == "mm" and not piece.spacing_known:
        raise InputError(
            f"case {piece.case_id}: its voxel size is unknown; write it into the header, or use --scale width."
        )
    if cut.scale == "width" or not piece.spacing_known:
        factor = max(piece.grid.shape) / (2 * cut.size)
        across, along = across * factor, along * factor
    else:
        across, along = settings.spacing_mm or (FIELD_MM / cut.size,) * 2
    normal = axes[:, 2]
    in_plane = middle - normal * (normal @ (middle - piece.affine[:3, 3]))
    return snapped(centered_grid(in_plane, (cut.size, cut.size), (across, along, thick), axes), piece.grid)


def _tell_if_cut(case: Case, axis: int, field: Grid) -> None:
    bounds = target_bounds(case)
    if bounds is None:
        return
    spans = [(high - low) * mm for (low, high), mm in zip(bounds, case.grid.spacing_mm, strict=True)]
    del spans[axis]
    if any(span > n * mm for span, n, mm in zip(spans, field.shape, field.spacing_mm, strict=True)):
        say(
            f"case {case.case_id}: its heart is wider than the slices; use a larger --size or --spacing-mm.",
            case_id=case.case_id,
        )
