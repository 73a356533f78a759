"""Real scans brought to one grid: right-angled axes, resampled in physical space, the heart in the middle."""

from collections.abc import Iterable, Iterator
from itertools import chain
from operator import length_hint
from pathlib import Path
from typing import Literal

import numpy as np
import pydantic

from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import rounded_image
from cardiosynth.core.progress import Progress, say
from cardiosynth.core.store import fingerprint
from cardiosynth.core.volume import (
    Grid,
    centered_grid,
    covering_grid,
    resample,
    resample_mask,
    right_angled_axes,
    spacing_along,
)
from cardiosynth.data.dataset import Dataset, DatasetWriter, read_dataset

THICK = 3.0
"""Voxels this many times longer than wide lose their in-plane detail when an oblique scan is turned."""


class PrepareSettings(Settings):
    """How scans are brought to one grid.

    Attributes:
        shape: voxels per axis; None keeps the whole field of view.
        spacing_mm: voxel size per axis; None keeps each scan's own.
        axes: ``patient`` turns oblique scans to straight RAS; ``image`` keeps their own axes, straightened, which
            spares thick slices the turn.
        center: what lies in the middle: the bounding box of the ``targets`` of the mask, or the ``image``'s center.
        interpolation: of images; masks are resampled label by label.
        fill_hu: value of CT outside the scan, air.
        fill_mr: value of MR outside the scan.
    """

    shape: tuple[pydantic.PositiveInt, ...] | None = pydantic.Field(default=None, min_length=2, max_length=3)
    spacing_mm: tuple[pydantic.PositiveFloat, ...] | None = pydantic.Field(default=None, min_length=2, max_length=3)
    axes: Literal["patient", "image"] = "patient"
    center: Literal["targets", "image"] = "targets"
    interpolation: Literal["linear", "cubic"] = "linear"
    fill_hu: float = -1024.0
    fill_mr: float = 0.0


def prepare(source: Iterable[Case], out: Path, settings: PrepareSettings, name: str = "prepared") -> Dataset:
    """Prepare every case of ``source`` into the dataset folder ``out``. Cases that are there already are kept.

    Args:
        source: cases as a source reads them. An `InputError` on one case is kept for the end, and the rest goes on.
        out: dataset folder.
        settings: the grid wanted; a folder prepared with others is refused.
        name: what the dataset is called.

    Raises:
        InputError: at the end, naming every case that could not be prepared; or there was none, or the disk is full.
    """
    values = settings.model_dump(mode="json")
    facts = {"preparation": {**values, "fingerprint": fingerprint(values)}}
    broken: list[str] = []
    iterator = iter(source)
    total = length_hint(iterator)
    first = next(_readable(iterator, broken), None)
    if first is None:
        raise InputError(_summary(broken) if broken else "the source holds no case; check the folder.")
    with DatasetWriter(out, first.labels, name=name, facts=facts) as writer, Progress("prepare", total) as progress:
        for case in chain([first], _readable(iterator, broken)):
            if not writer.has(case.case_id):
                try:
                    prepared = prepare_case(case, settings)
                except InputError as error:
                    broken.append(str(error))
                    continue
                writer.write(prepared)
            progress.update()
        if not list(writer):
            raise InputError(_summary(broken))
    if broken:
        raise InputError(f"{_summary(broken)} The other cases are in {out}.")
    return read_dataset(out)


def _readable(iterator: Iterator[Case], broken: list[str]) -> Iterator[Case]:
    while True:
        try:
            yield next(iterator)
        except StopIteration:
            return
        except InputError as error:
            broken.append(str(error))


def _summary(broken: list[str]) -> str:
    return broken[0] if len(broken) == 1 else f"{len(broken)} cases cannot be prepared: " + " | ".join(broken)


def prepare_case(case: Case, settings: PrepareSettings) -> Case:
    """Return ``case`` on the grid that ``settings`` ask for; a crop by whole voxels changes no value.

    Raises:
        InputError: an empty mask, a shape or spacing of another dimension than the case, or a spacing asked for where
            the case's own is unknown.
    """
    _check(case, settings)
    target = _target_grid(case, settings)
    facts = {
        "shape": list(case.grid.shape),
        "spacing_mm": list(case.spacing_mm or []),
        "sheared": case.grid.is_sheared,
        "settings": fingerprint(settings.model_dump(mode="json")),
    }
    return case.with_(
        image=None if case.image is None else _image_on(case, case.image, target, settings),
        mask=None if case.mask is None else _mask_on(case, case.mask, target),
        confidence=None
        if case.confidence is None
        else resample(case.confidence, case.grid, target, fill=0.0).clip(0, 1),
        affine=target.affine,
        provenance={**case.provenance, "prepared_from": facts},
    )


def _check(case: Case, settings: PrepareSettings) -> None:
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


def _target_grid(case: Case, settings: PrepareSettings) -> Grid:
    axes = _axes(case, settings)
    spacing = spacing_along(case.grid, axes)
    if settings.spacing_mm is not None:
        spacing = (*settings.spacing_mm, *spacing[len(settings.spacing_mm) :])
    if settings.shape is None:
        target = covering_grid(case.grid, axes, spacing)
    else:
        target = centered_grid(_center_mm(case, settings), settings.shape, spacing, axes)
    return _snapped(target, case.grid)


def _axes(case: Case, settings: PrepareSettings) -> np.ndarray:
    """Return the (3, 3) axes of the grid wanted, and tell what that does to an odd one."""
    own = right_angled_axes(case.grid)
    if case.grid.is_sheared:
        say(f"case {case.case_id}: its affine is sheared; resampled to a straight grid.", case_id=case.case_id)
    if settings.axes == "image" or len(case.grid.shape) == 2:
        return own
    turned = np.abs(own).max(axis=0).min() < np.cos(np.radians(5))
    if turned and max(case.grid.spacing_mm) > THICK * min(case.grid.spacing_mm):
        say(
            f"case {case.case_id}: an oblique scan with thick slices loses detail when it is turned to straight "
            "axes; axes=image keeps its own.",
            case_id=case.case_id,
        )
    return np.eye(3)


def _center_mm(case: Case, settings: PrepareSettings) -> np.ndarray:
    if settings.center == "image":
        return case.grid.center_mm
    wanted = None if case.mask is None else np.isin(case.mask[0], case.labels.target_codes)
    if wanted is None or not wanted.any():
        say(
            f"case {case.case_id}: no target structure to center on; the image's center is taken.", case_id=case.case_id
        )
        return case.grid.center_mm
    middle = np.zeros(3)
    for axis in range(wanted.ndim):
        filled = np.flatnonzero(wanted.any(axis=tuple(i for i in range(wanted.ndim) if i != axis)))
        middle[axis] = (filled[0] + filled[-1]) / 2
    return case.grid.affine[:3, :3] @ middle + case.grid.affine[:3, 3]


def _snapped(target: Grid, source: Grid) -> Grid:
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
    moved = resample(image, case.grid, target, fill, order)
    return rounded_image(moved) if image.dtype == np.int16 else moved


def _mask_on(case: Case, mask: np.ndarray, target: Grid) -> np.ndarray:
    moved = resample_mask(mask, case.grid, target)
    if not moved.any():
        raise InputError(f"case {case.case_id}: none of its mask lies in the prepared field of view; enlarge it.")
    return moved
