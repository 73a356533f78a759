"""Cases read one by one as a source finds them; a broken one does not end the stream."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cardiosynth.core.case import Case, IntensityUnit
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import why_not_hu
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.progress import say
from cardiosynth.data.formats.files import read_image, read_volume
from cardiosynth.data.formats.volume import Volume, as_mask
from cardiosynth.data.layout import check_codes, check_same_grid


class CaseStream(Iterator[Case]):
    """An iterator over cases that goes on after an `InputError`, unlike a generator, and knows what is left.

    Which cases there are is known without reading any; a reader may be handed to another process.

    Args:
        readers: case name -> the function that reads it, a partial of a module's function, called when its turn comes.
    """

    def __init__(self, readers: Mapping[str, Callable[[], Case]]):
        self._readers = dict(readers)
        self._left = list(reversed(self._readers))

    @property
    def case_ids(self) -> tuple[str, ...]:
        """The names of all cases, those already read among them."""
        return tuple(self._readers)

    def reader(self, case_id: str) -> Callable[[], Case]:
        """Return the function that reads the case of this name."""
        return self._readers[case_id]

    def __next__(self) -> Case:
        if not self._left:
            raise StopIteration
        return self._readers[self._left.pop()]()

    def __length_hint__(self) -> int:
        return len(self._left)


@dataclass(frozen=True)
class Quirks:
    """What is known of a data set but not said by its files.

    Attributes:
        codes: code in a mask -> code of the label table, 0 for what is left out; a code that is not listed is refused.
            None keeps the codes as they are.
        strays: codes that should not be there -> what becomes of them; said, and recorded with the case.
        stored_offset: was added to HU before the images were stored; taken away where nothing lies below zero.
        placeholder_spacing: whether voxels of 1 x 1 x 1 mm mean that nobody wrote down their size.
        spacing_mm: voxel size along the axes as stored, for a file that does not carry one; None where nobody knows.
    """

    codes: Mapping[int, int] | None = None
    strays: Mapping[int, str] = field(default_factory=dict)
    stored_offset: int = 0
    placeholder_spacing: bool = False
    spacing_mm: tuple[float, ...] | None = None


PLAIN = Quirks()
"""Files that say what they are."""


def read_pair(
    case_id: str,
    image_path: Path | None,
    mask_path: Path | None,
    labels: LabelTable,
    unit: IntensityUnit,
    provenance: Mapping[str, Any],
    quirks: Quirks = PLAIN,
) -> Case:
    """Read an image and its mask as a real case; either may be absent.

    Raises:
        InputError: a file is missing or cannot be used, the two stand on different grids, the mask holds a code that
            ``labels`` does not name, or the image cannot be in HU though ``unit`` says so.
    """
    mended: list[str] = []
    image = _image(image_path, unit, quirks, mended) if image_path else None
    mask = _mask(mask_path, image_path, labels, quirks, mended) if mask_path else None
    if image is not None and mask is not None and image_path is not None and mask_path is not None:
        of_one_file = Path(f"{mask_path}:mask") if mask_path == image_path else mask_path
        check_same_grid({image_path: image, of_one_file: mask})
    first = image or mask
    assert first is not None, case_id
    first = _spaced(first, quirks, mended)
    for words in mended:
        say(f"{case_id}: {words}")
    return Case(
        case_id=case_id,
        image=None if image is None else image.array,
        affine=first.affine,
        mask=None if mask is None else mask.array,
        labels=labels,
        intensity_unit=unit,
        spacing_known=first.spacing_known,
        provenance={
            **provenance,
            **({"mended": mended} if mended else {}),
            "stored_as": {k: first.facts[k] for k in ("axis_codes", "affine_from", "sheared")},
        },
    )


def _image(path: Path, unit: IntensityUnit, quirks: Quirks, mended: list[str]) -> Volume:
    image = read_image(path)
    if quirks.stored_offset and image.array.min() >= 0:
        image = replace(image, array=image.array - np.array(quirks.stored_offset, image.array.dtype))
        mended.append(f"{quirks.stored_offset} taken away from stored values, so that they are HU")
    if unit == "hu" and (reason := why_not_hu(image.array)):
        raise InputError(
            f"{path}: {reason}; for MR state the unit mr, for CT apply the rescale intercept (often -1024)."
        )
    return image


def _mask(path: Path, image: Path | None, labels: LabelTable, quirks: Quirks, mended: list[str]) -> Volume:
    if image is not None and not path.is_file():
        raise InputError(f"{path} does not exist; add the mask or take {image.name} away.")
    stored = read_volume(path, "mask")
    mask = as_mask(stored, path, quirks.codes)
    found = set(np.unique(stored.array).tolist()) if quirks.strays else set()
    for code in sorted(found & quirks.strays.keys()):
        count = int((stored.array == code).sum())
        mended.append(f"code {code:g} of the mask ({count} voxels) {quirks.strays[code]}")
    check_codes(mask.array, labels, path)
    return mask


def _spaced(volume: Volume, quirks: Quirks, mended: list[str]) -> Volume:
    """Return ``volume`` with the spacing that is known of it: its own, the one given, or none."""
    is_placeholder = quirks.placeholder_spacing and np.allclose(volume.grid.spacing_mm, 1.0)
    if volume.spacing_known and not is_placeholder:
        return volume
    if quirks.spacing_mm is None:
        return replace(volume, spacing_known=False)
    shape, given = volume.grid.shape, quirks.spacing_mm
    if len(given) != len(shape):
        raise InputError(f"{len(given)} voxel sizes are given for a case of {shape} voxels; give one per axis.")
    sizes = dict(zip(("RLAPSI".index(code) // 2 for code in volume.facts["axis_codes"]), given, strict=False))
    ratio = np.ones(4)
    ratio[: len(shape)] = np.array([sizes[axis] for axis in sorted(sizes)]) / volume.grid.spacing_mm
    mended.append(f"voxels of {' x '.join(f'{size:g}' for size in given)} mm, as given")
    return replace(volume, affine=volume.affine * ratio, spacing_known=True)
