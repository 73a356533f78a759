"""Which image-mask pair shows the network what the synthetic image should look like (FCaS 3.1.1)."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from cardiosynth.anatomy.alignment import Align
from cardiosynth.anatomy.library import Library, outline_of, overlap
from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.data.dataset import Dataset

Choice = Literal["random", "nearest", "same_acquisition", "self"]
CHOICES: tuple[str, ...] = get_args(Choice)


class TemplateSettings(Settings):
    """How templates are chosen, and where they are laid.

    Attributes:
        choice: ``random`` takes any of the library (published); ``nearest`` the one whose target structures overlap
            best with the mask's once it is aligned (with ``align: none``, once their centers are brought together);
            ``same_acquisition`` one that was scanned as the mask's source was, where the provenance tells; ``self`` the
            case that the mask was made from or is, which no other choice ever takes: the model then sees the answer.
        case: the template of every mask, whatever ``choice`` says; null lets ``choice`` decide.
        align: ``none`` leaves a template where its scan put it (published); ``centroid`` and ``affine`` move it onto
            the mask in physical space, see ``anatomy/alignment.py``.
    """

    choice: Choice = "random"
    case: str | None = None
    align: Align = "none"

    def facts(self) -> dict[str, Any]:
        """Return what tells one way of choosing from another, for a dataset's facts."""
        changed = {"template_case": self.case, "template_align": self.align if self.align != "none" else None}
        return {"template_choice": self.choice, **{key: value for key, value in changed.items() if value}}


def template_settings(word: str, library: Sequence[Case], base: TemplateSettings) -> TemplateSettings:
    """Return ``base`` with the choice, or the case of the library, that ``word`` names.

    Raises:
        InputError: it names neither.
    """
    if word in CHOICES:
        return base.model_copy(update={"choice": word, "case": None})
    names = [entry.case_id for entry in Library(library).entries]
    if word not in names:
        raise InputError(
            f"there is no template '{word}' with image and mask, nor such a choice" + suggest(word, [*CHOICES, *names])
        )
    return base.model_copy(update={"case": word})


def choose_template(
    mask_case: Case, library: Sequence[Case], settings: TemplateSettings, rng: np.random.Generator
) -> Case:
    """Return a template for a mask: never the case itself nor one that it was made from, but on request.

    Args:
        mask_case: holds the reference mask; its provenance tells ``parents`` and ``acquisition``.
        library: cases with image and mask; a ``Dataset`` is read for the chosen case only, or once for ``nearest``,
            which remembers outlines if it is given a ``Library``.
        settings: how to choose.
        rng: what decides among those allowed. Their order in the library does not matter.

    Raises:
        InputError: the library has no other case with image and mask, none of the same acquisition, none with a
            structure of the mask, not the case that is asked for, or that case is what the mask was made from.
    """
    library = library if isinstance(library, Library) else Library(library)
    if settings.case is not None:
        return library[_named(mask_case, library, settings.case)]
    if settings.choice == "self":
        return library[_own(mask_case, library)]
    forbidden = _ancestors(mask_case, library)
    allowed = [index for index, entry in enumerate(library.entries) if entry.case_id not in forbidden]
    if not allowed:
        raise InputError(
            f"the templates hold nothing but {mask_case.case_id} and the cases it was made from; a template must be "
            "another case with image and mask: add one, or set templates.choice=self."
        )
    if settings.choice == "nearest":
        return library[_nearest(mask_case, library, allowed, settings.align)]
    if settings.choice == "same_acquisition":
        wanted = mask_case.provenance.get("acquisition")
        alike = [index for index in allowed if library.entries[index].provenance.get("acquisition") == wanted]
        allowed = alike if wanted else []
        if not allowed:
            raise InputError(
                f"no template has the acquisition '{wanted}' of {mask_case.case_id}; add one or choose at random."
            )
    return library[allowed[int(rng.integers(len(allowed)))]]


def without_descendants(masks: Sequence[Case], library: Sequence[Case], case_id: str | None) -> Sequence[Case]:
    """Return the masks that were not made from a case and are not it, so that it can be the template of all.

    Args:
        masks: a ``Dataset`` is not read.
        library: where the parents of the masks' parents are looked for.
        case_id: None keeps all masks.
    """
    if case_id is None:
        return masks
    known = library if isinstance(library, Library) else Library(library)
    if isinstance(masks, Dataset):
        rows = {name: masks.row(name).get("provenance", {}).get("parents", ()) for name in masks.case_ids}
        return masks.subset(name for name, parents in rows.items() if case_id not in known.lineage(name, parents))
    return [mask for mask in masks if case_id not in _ancestors(mask, known)]


def _named(mask_case: Case, library: Library, name: str) -> int:
    names = [entry.case_id for entry in library.entries]
    if name not in names:
        raise InputError(f"there is no template '{name}' with image and mask" + suggest(name, names))
    if name in _ancestors(mask_case, library):
        raise InputError(
            f"mask {mask_case.case_id} was made from {name} or is it, so that {name} would show the model the answer; "
            "leave this mask out, name another template, or set templates.choice=self."
        )
    return names.index(name)


def _own(mask_case: Case, library: Library) -> int:
    """Return the mask's own case, or the first of its parents that is there."""
    places = {entry.case_id: index for index, entry in enumerate(library.entries)}
    wanted = [mask_case.case_id, *mask_case.provenance.get("parents", ())]
    found = [places[name] for name in wanted if name in places]
    if not found:
        raise InputError(
            f"templates.choice is self and the templates hold none of {', '.join(wanted)} with image and mask, which "
            "the mask is or was made from; add it or choose otherwise."
        )
    return found[0]


def _nearest(mask_case: Case, library: Library, allowed: Sequence[int], align: Align) -> int:
    """Return the template that overlaps best; of equals the first by name."""
    outline, how = outline_of(mask_case), "centroid" if align == "none" else align
    overlaps = [overlap(library.outline(library.entries[index]), outline, how) for index in allowed]
    best = int(np.argmax(overlaps))
    if overlaps[best] == 0:
        names = ", ".join(sorted(outline.moments)) or "none"
        raise InputError(
            f"no template overlaps with mask {mask_case.case_id}, whose target structures are: {names}; give templates "
            "with structures of the same names, or choose at random."
        )
    return allowed[best]


def _ancestors(mask_case: Case, library: Library) -> set[str]:
    return library.lineage(mask_case.case_id, mask_case.provenance.get("parents", ()))
