"""What a peer hands back: an image as a synthetic Case that says where it comes from."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.core.intensity import rounded_image

UNKNOWN = "unknown"
"""The licence of data that does not name one."""


def synthetic(
    image: np.ndarray,
    mask: Case,
    template: Case,
    seed: int,
    facts: Mapping[str, Any],
    *,
    shows_mask: bool = True,
    licences: Iterable[str] = (),
) -> Case:
    """Return what a method made as a synthetic Case that says where it comes from.

    Args:
        image: (1, *grid) in the template's unit.
        mask: whose grid it is, and where ``shows_mask`` whose targets it shows.
        template: whose unit it has.
        seed: it was drawn with.
        facts: JSON-like, in any case ``checkpoints`` (stage -> fingerprint) and ``sampler`` (JSON-like or None), alike
            for all cases of one trained method.
        shows_mask: False for a method that is not conditional: the Case has no mask and no parents.
        licences: of the data that the method was trained on, several in a text apart by ``; ``; those of mask and
            template are added.
    """
    told = [str(case.provenance["licence"]) for case in (mask, template) if "licence" in case.provenance]
    whole = sorted({part for text in (*licences, *told) for part in text.split("; ")} - {UNKNOWN})
    shown = {"parents": list(mask.provenance.get("parents", [mask.case_id])), "reference": mask.case_id}
    return Case(
        case_id=f"synthetic-{mask.case_id}",
        image=rounded_image(image) if template.intensity_unit == "hu" else image.astype(np.float32),
        affine=mask.affine,
        mask=mask.labels.only_targets(mask.required_mask()) if shows_mask else None,
        labels=mask.labels,
        intensity_unit=template.intensity_unit,
        spacing_known=mask.spacing_known,
        origin="synthetic",
        provenance={
            **(shown if shows_mask else {"parents": [], "conditional": False}),
            "template": template.case_id,
            "seed": seed,
            "licence": "; ".join(whole) or UNKNOWN,
            **facts,
        },
    )
