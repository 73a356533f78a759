"""Volumes brought to one grid: right-angled axes, resampled in physical space, the heart in the middle."""

import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import normalized, rounded_image
from cardiosynth.core.progress import say
from cardiosynth.core.store import fingerprint
from cardiosynth.core.volume import (
    Grid,
    centered_grid,
    covering_grid,
    resample,
    resample_mask,
    resampled_blocks,
    right_angled_axes,
    spacing_along,
)
from cardiosynth.data.prepare.settings import PrepareSettings

THICK = 3.0
"""Voxels this many times longer than wide lose their in-plane detail when an oblique scan is turned."""


def prepare_case(case: Case, settings: PrepareSettings) -> Case:
    """Return ``case`` on the grid that ``settings`` ask for; a crop by whole voxels changes no value.

    Raises:
        InputError: an empty mask, a shape or spacing of another dimension than the case, or a spacing asked for where
            the case's own is unknown.
    """
    check_numbers(case, settings)
    moved = on_grid(case, target_grid(case, settings), settings)
    if moved.mask is not None and not moved.mask.any():
        raise InputError(f"case {case.case_id}: none of its mask lies in the prepared field of view; enlarge it.")
    return moved


def normalized_case(case: Case) -> Case:
    """Return a case of MR in the same units as all others; the values that became the ends go to its provenance.

    Raises:
        InputError: CT, whose units are its own.
    """
    if case.image is None:
        return case
    if case.intensity_unit != "mr":
        raise InputError(f"case {case.case_id} is in '{case.intensity_unit}' and only MR is normalized; leave it out.")
    image, own = normalized(case.image)
    return case.with_(image=image, provenance={**case.provenance, "normalized_from": [own.low, own.high]})


def on_grid(case: Case, target: Grid, settings: PrepareSettings) -> Case:
    """Return ``case`` resampled to ``target``; where it came from goes to its provenance."""
    facts = {
        "shape": list(case.grid.shape),
        "spacing_mm": list(case.spacing_mm or []),
        "sheared": case.grid.is_sheared,
        "settings": fingerprint(settings.model_dump(mode="json")),
    }
    confidence = case.confidence
    return case.with_(
        image=None if case.image is None else _image_on(case, case.image, target, settings),
        mask=None if case.mask is None else resample_mask(case.mask, case.grid, target),
        confidence=None if confidence is None else resample(confidence, case.grid, target, fill=0.0).clip(0, 1),
        affine=target.affine,
        provenance={**case.provenance, "prepared_from": facts},
    )


def check_numbers(case: Case, settings: PrepareSettings) -> None:
    """Refuse what cannot be prepared as asked.

    Raises:
        InputError: see :func:`prepare_case`.
    """
    for name, numbers in (("shape", settings.shape), ("spacing_mm", settings.spacing_mm)):
        if numbers is not None and len(numbers) != len(case.grid.shape):
            raise InputError(
                f"{name} {numbers} has {len(numbers)} numbers, case {case.case_id} has {len(case.grid.shape)} axes; "
                "give one number per axis."
            )
    if settings.spacing_mm is not None and not case.spacing_known:
        raise InputError(
            f"case {case.case_id}: its voxel size is unknown; write it into the header, or leave the spacing out to "
            "keep the voxels as they are."
        )
    if case.mask is not None and not case.mask.any():
        raise InputError(f"case {case.case_id}: the mask is empty; draw the structures or remove the mask file.")


def target_grid(case: Case, settings: PrepareSettings) -> Grid:
    """Return the grid that a case comes to, aligned with its voxels where axes and spacing agree."""
    axes = _axes(case, settings)
    spacing = spacing_along(case.grid, axes)
    if settings.spacing_mm is not None:
        spacing = (*settings.spacing_mm, *spacing[len(settings.spacing_mm) :])
    if settings.shape is None:
        target = covering_grid(case.grid, axes, spacing)
    else:
        target = centered_grid(center_mm(case, settings), settings.shape, spacing, axes)
    return snapped(target, case.grid)


def _axes(case: Case, settings: PrepareSettings) -> np.ndarray:
    """Return the (3, 3) axes of the grid wanted, and tell what that does to an odd one."""
    own = right_angled_axes(case.grid)
    if case.grid.is_sheared:
        say(f"case {case.case_id}: its affine is sheared; resampled to a straight grid.", case_id=case.case_id)
    if settings.axes == "image" or len(case.grid.shape) == 2:
        return own
    if is_turned(case.grid) and max(case.grid.spacing_mm) > THICK * min(case.grid.spacing_mm):
        say(
            f"case {case.case_id}: an oblique scan with thick slices loses detail when it is turned to straight "
            "axes; axes=image keeps its own.",
            case_id=case.case_id,
        )
    return np.eye(3)


def is_turned(grid: Grid) -> bool:
    """Whether an axis is more than five degrees off the patient's."""
    return bool(np.abs(right_angled_axes(grid)).max(axis=0).min() < np.cos(np.radians(5)))


def center_mm(case: Case, settings: PrepareSettings) -> np.ndarray:
    """Return the patient coordinates (3,) of what shall lie in the middle."""
    if settings.center == "image":
        return case.grid.center_mm
    bounds = target_bounds(case)
    if bounds is None:
        say(
            f"case {case.case_id}: no target structure to center on; the image's center is taken.", case_id=case.case_id
        )
        return case.grid.center_mm
    middle = np.zeros(3)
    middle[: len(bounds)] = [(low + high) / 2 for low, high in bounds]
    return case.grid.affine[:3, :3] @ middle + case.grid.affine[:3, 3]


def target_bounds(case: Case) -> list[tuple[int, int]] | None:
    """Return the first and last index along each axis at which a target structure lies, None where there is none."""
    wanted = None if case.mask is None else case.labels.only_targets(case.mask[0]) > 0
    if wanted is None or not wanted.any():
        return None
    bounds = []
    for axis in range(wanted.ndim):
        filled = np.flatnonzero(wanted.any(axis=tuple(i for i in range(wanted.ndim) if i != axis)))
        bounds.append((int(filled[0]), int(filled[-1])))
    return bounds


def snapped(target: Grid, source: Grid) -> Grid:
    """Return ``target`` shifted onto the voxels of ``source``, where axes and spacing agree."""
    n = len(source.shape)
    mapping = np.linalg.inv(source.affine) @ target.affine
    drift = np.abs(mapping[:n, :n] - np.eye(n)) @ np.array(target.shape)
    if drift.max() > 1e-2:
        return target
    shift = np.eye(4)
    shift[:n, 3] = np.rint(mapping[:n, 3])
    return Grid(target.shape, source.affine @ shift)


def _image_on(case: Case, image: np.ndarray, target: Grid, settings: PrepareSettings) -> np.ndarray:
    fill = settings.fill_hu if case.intensity_unit == "hu" else settings.fill_mr
    order = 3 if settings.interpolation == "cubic" else 1
    moved = np.empty((1, *target.shape), image.dtype)
    for where, block in resampled_blocks(image, case.grid, target, fill, order):
        moved[where] = rounded_image(block) if image.dtype == np.int16 else block
    return moved
