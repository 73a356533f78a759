"""Cases read one by one as a source finds them; a broken one does not end the stream."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cardiosynth.core.case import Case, IntensityUnit
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import why_not_hu
from cardiosynth.core.labels import LabelTable
from cardiosynth.data.formats.files import read_image, read_mask
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


def read_pair(
    case_id: str,
    image_path: Path | None,
    mask_path: Path | None,
    labels: LabelTable,
    unit: IntensityUnit,
    provenance: Mapping[str, Any],
) -> Case:
    """Read an image and its mask as a real case; either may be absent.

    Raises:
        InputError: a file cannot be used, the two stand on different grids, the mask holds a code that ``labels`` does
            not name, or the image cannot be in HU though ``unit`` says so.
    """
    image = read_image(image_path) if image_path else None
    mask = read_mask(mask_path) if mask_path else None
    if image is not None and unit == "hu" and (reason := why_not_hu(image.array)):
        raise InputError(
            f"{image_path}: {reason}; for MR state the unit mr, for CT apply the rescale intercept (often -1024)."
        )
    if mask is not None and mask_path is not None:
        check_codes(mask.array, labels, mask_path)
        if image is not None and image_path is not None:
            check_same_grid({image_path: image, mask_path: mask})
    first = image or mask
    assert first is not None, case_id
    return Case(
        case_id=case_id,
        image=None if image is None else image.array,
        affine=first.affine,
        mask=None if mask is None else mask.array,
        labels=labels,
        intensity_unit=unit,
        spacing_known=first.spacing_known,
        provenance={**provenance, "stored_as": {k: first.facts[k] for k in ("axis_codes", "affine_from", "sheared")}},
    )
