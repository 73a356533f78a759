"""Slices of one volume put together again, as `prepare --slices` cut them."""

from collections.abc import Iterable, Sequence

import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError


def by_volume(slices: Iterable[Case]) -> dict[str, list[Case]]:
    """Return the slices of every volume, in their order along its axis.

    Raises:
        InputError: a case that is no slice of a volume.
    """
    found: dict[str, list[Case]] = {}
    for case in slices:
        if len(case.grid.shape) != 2 or not {"volume", "slice"} <= case.provenance.keys():
            raise InputError(f"case {case.case_id} is no slice of a volume; cut volumes with prepare --slices.")
        found.setdefault(str(case.provenance["volume"]), []).append(case)
    return {volume: sorted(some, key=_position) for volume, some in found.items()}


def stacked(slices: Sequence[Case]) -> Case:
    """Return slices of one volume as a volume; one that is missing between them is 0 in image and mask.

    Args:
        slices: from :func:`by_volume`, with or without images, all with masks.

    Raises:
        InputError: two slices at one place, or of different sizes.
    """
    first, start = slices[0], _position(slices[0])
    places = [_position(case) - start for case in slices]
    if len(set(places)) < len(places) or len({case.grid.shape for case in slices}) > 1:
        raise InputError(f"the slices of {first.provenance['volume']} do not fit together; prepare them anew.")
    has_images = all(case.image is not None for case in slices)
    return first.with_(
        case_id=str(first.provenance["volume"]),
        image=_filled([case.required_image() for case in slices], places) if has_images else None,
        mask=_filled([case.required_mask() for case in slices], places),
        confidence=None,
        provenance={key: value for key, value in first.provenance.items() if key not in ("slice", "volume")},
    )


def _filled(arrays: Sequence[np.ndarray], places: Sequence[int]) -> np.ndarray:
    volume = np.zeros((*arrays[0].shape, places[-1] + 1), arrays[0].dtype)
    volume[..., list(places)] = np.stack(arrays, axis=-1)
    return volume


def _position(case: Case) -> int:
    return int(case.provenance["slice"])
