"""MAISI's label codes, in which released ControlNets know masks: 1..132 for structures and 200 for the rest of a body.

Names are matched whatever the order of their words, so that "right kidney" (MAISI) is "kidney_right"
(TotalSegmentator). What MAISI has no label for keeps the tissue that its training masks show there: all of a heart is
"heart", and a pulmonary artery, whatever else is inside the skin, is "body". Nothing else is guessed.
"""

from typing import Literal

import numpy as np
from jaxtyping import UInt8

from cardiosynth.anatomy.envelope import body_envelope
from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT, PALETTE, Label, LabelTable, normalized_name

BODY = 200
"""MAISI's code of what is inside the skin and has no label of its own."""

_SIDES = ("left", "right")
_STRUCTURES: tuple[str | None, ...] = (
    "liver", None, "spleen", "pancreas", "right kidney", "aorta", "inferior vena cava", "right adrenal gland",
    "left adrenal gland", "gallbladder", "esophagus", "stomach", "duodenum", "left kidney", "bladder", None,
    "portal vein and splenic vein", None, "small bowel", None, None, "brain", "lung tumor", "pancreatic tumor",
    "hepatic vessel", "hepatic tumor", "colon cancer primaries", "left lung upper lobe", "left lung lower lobe",
    "right lung upper lobe", "right lung middle lobe", "right lung lower lobe",
    *(f"vertebrae {part}{n}" for part, count in (("l", 5), ("t", 12), ("c", 7)) for n in range(count, 0, -1)),
    "trachea", "left iliac artery", "right iliac artery", "left iliac vena", "right iliac vena", "colon",
    *(f"{side} rib {n}" for side in _SIDES for n in range(1, 13)),
    *(f"{side} {bone}" for bone in ("humerus", "scapula", "clavicula", "femur", "hip") for side in _SIDES),
    "sacrum",
    *(f"{side} gluteus {which}" for which in ("maximus", "medius", "minimus") for side in _SIDES),
    *(f"{side} {muscle}" for muscle in ("autochthon", "iliopsoas") for side in _SIDES),
    "left atrial appendage", "brachiocephalic trunk", "left brachiocephalic vein", "right brachiocephalic vein",
    "left common carotid artery", "right common carotid artery", "costal cartilages", "heart", "left kidney cyst",
    "right kidney cyst", "prostate", "pulmonary vein", "skull", "spinal cord", "sternum", "left subclavian artery",
    "right subclavian artery", "superior vena cava", "thyroid gland", "vertebrae s1", "bone lesion", None, None, None,
    "airway",
)  # fmt: skip
"""Codes 1..132 in order; None where MAISI keeps a place free."""

MAISI_CODES: dict[str, int] = {
    **{normalized_name(name): code for code, name in enumerate(_STRUCTURES, start=1) if name is not None},
    "body": BODY,
}
"""Name, as in a label table -> code."""

_PARTS = {
    "heart": (
        "left_atrium", "right_atrium", "left_ventricle", "right_ventricle", "heart_atrium_left", "heart_atrium_right",
        "heart_ventricle_left", "heart_ventricle_right", "left_ventricular_myocardium", "myocardium",
        "heart_myocardium", "coronary_artery", "coronary_arteries",
    ),
    "aorta": ("ascending_aorta", "descending_aorta", "aortic_arch"),
    "bladder": ("urinary_bladder",),
    "body": ("pulmonary_artery", "body_wall", "mediastinal_fat", "body_trunc"),
}  # fmt: skip
"""MAISI's name -> names of what it does not tell apart from it."""


def _words(name: str) -> tuple[str, ...]:
    return tuple(sorted(normalized_name(name).split("_")))


_BY_WORDS = {_words(name): code for name, code in MAISI_CODES.items()} | {
    _words(part): MAISI_CODES[whole] for whole, parts in _PARTS.items() for part in parts
}


def maisi_code(name: str) -> int | None:
    """Return MAISI's code of a structure, None where it has none."""
    return _BY_WORDS.get(_words(name))


def code_table(labels: LabelTable) -> UInt8[np.ndarray, "256"]:
    """Return MAISI's code of every code of a label table; 0 for those without a label.

    Raises:
        InputError: structures that MAISI has no code for, all of them.
    """
    codes = {label: maisi_code(label.name) for label in labels}
    missing = [label.name for label, code in codes.items() if code is None]
    if missing:
        raise InputError(
            f"MAISI has no code for {', '.join(missing)}; give these labels the names of MAISI's structures (lungs are "
            "told lobe by lobe), remove them from the masks, or set control.condition.codes=own."
        )
    table = np.zeros(256, np.uint8)
    for label, code in codes.items():
        table[label.code] = code or 0
    return table


def told_mask(case: Case, codes: Literal["own", "maisi"]) -> UInt8[np.ndarray, "1 *grid"]:
    """Return a template's mask in the codes in which the network is told it.

    Raises:
        InputError: a structure without a code, or no body in the mask and no HU image to find it in.
    """
    mask = np.ascontiguousarray(case.required_mask())
    if codes == "own":
        return mask
    told = code_table(case.labels)[mask]
    if lacks_body(case):
        if case.intensity_unit != "hu" or case.image is None:
            raise InputError(
                f"case {case.case_id} has no label 'body', which MAISI's networks must be told, and no image "
                "in HU to find it in; add the label to the mask."
            )
        told[body_envelope(case.image[0])[None] & (told == 0)] = BODY
    return told


def lacks_body(case: Case) -> bool:
    """Return whether a mask does not tell where the body is, so that :func:`told_mask` adds it."""
    codes = [label.code for label in case.labels if label.name in ("body", "body_trunc")]
    return not np.isin(case.required_mask(), codes).any()


def released_labels() -> LabelTable:
    """Return a label table for released weights: MAISI's structures in its codes, and FCaS's targets from 201 on."""
    targets = [label.model_copy(update={"code": code}) for code, label in enumerate(CARDIAC_CT.targets, start=BODY + 1)]
    surroundings = [
        Label(name=name, code=code, role="surrounding", color=PALETTE[code % len(PALETTE)])
        for name, code in MAISI_CODES.items()
    ]
    return LabelTable(labels=(*targets, *surroundings))
