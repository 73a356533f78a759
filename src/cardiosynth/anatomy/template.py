"""Which image-mask pair shows the network what the synthetic image should look like (FCaS 3.1.1)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.data.dataset import Dataset


class TemplateSettings(Settings):
    """How templates are chosen.

    Attributes:
        choice: ``random`` takes any of the library (published); ``same_acquisition`` one that was scanned as the mask's
            source was, where the provenance tells.
    """

    choice: Literal["random", "same_acquisition"] = "random"


def choose_template(
    mask_case: Case, library: Sequence[Case], settings: TemplateSettings, rng: np.random.Generator
) -> Case:
    """Return a template for a mask: never the case itself and never one that it was made from.

    Args:
        mask_case: holds the reference mask; its provenance tells ``parents`` and ``acquisition``.
        library: cases with image and mask; a ``Dataset`` is read for the chosen case only.
        settings: how to choose.
        rng: what decides among those allowed. Their order in the library does not matter.

    Raises:
        InputError: the library has no other case with image and mask, or none of the same acquisition.
    """
    forbidden = {mask_case.case_id, *mask_case.provenance.get("parents", ())}
    allowed = [entry for entry in _complete(library) if entry[0] not in forbidden]
    if not allowed:
        raise InputError(
            f"the templates hold nothing but {mask_case.case_id} and the cases it was made from; a template must be "
            "another case with image and mask: add one."
        )
    if settings.choice == "same_acquisition":
        wanted = mask_case.provenance.get("acquisition")
        allowed = [entry for entry in allowed if wanted is not None and entry[1].get("acquisition") == wanted]
        if not allowed:
            raise InputError(
                f"no template has the acquisition '{wanted}' of {mask_case.case_id}; add one or choose at random."
            )
    return library[allowed[int(rng.integers(len(allowed)))][2]]


def _complete(library: Sequence[Case]) -> list[tuple[str, Mapping[str, Any], int]]:
    """Return name, provenance and index of the cases that have image and mask, by name."""
    if isinstance(library, Dataset):
        entries = [
            (name, library.rows[name].get("provenance", {}), index)
            for index, name in enumerate(library.case_ids)
            if library.has("image", name) and library.has("mask", name)
        ]
    else:
        entries = [
            (case.case_id, case.provenance, index)
            for index, case in enumerate(library)
            if case.image is not None and case.mask is not None
        ]
    return sorted(entries, key=lambda entry: entry[0])
