"""Whether patients lie as their headers say: a suspicion with its evidence, never an error.

Where structures lie to each other tells right from left, front from back and head from feet. A flipped file and a
patient whose heart is on the other side (dextrocardia, situs inversus, among congenital cases) look alike, so a
person decides. One axis reversed is a mirror image, two are half a turn.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from cardiosynth.core.case import Case
from cardiosynth.data.check.finding import Finding
from cardiosynth.data.check.tissues import structure_of

AXES = ("right-left", "front-back", "head-feet")

LEAST_MM = 5.0
"""Centers nearer to each other than this, along the axis, say nothing on it."""
COMMON_SHARE = 0.8
COMMON_CASES = 3
"""Where so many of the cases, and so large a share, are alike, the whole set was written so: one finding, not many."""
NAMED, TOLD = 5, 3
"""So many cases, and relations of one case, are spelled out."""


class Relation(NamedTuple):
    """Along an axis of RAS+, the center of ``further`` lies beyond that of ``nearer``: right, in front, above."""

    axis: int
    further: str
    nearer: str


RELATIONS = (
    Relation(0, "right_ventricle", "left_ventricle"),
    Relation(0, "right_atrium", "left_atrium"),
    Relation(0, "right_atrium", "left_ventricle"),
    Relation(0, "ascending_aorta", "pulmonary_artery"),
    Relation(0, "ascending_aorta", "descending_aorta"),
    Relation(0, "liver", "left_ventricle"),
    Relation(0, "superior_vena_cava", "left_atrium"),
    Relation(0, "spine", "heart"),
    Relation(1, "right_ventricle", "left_ventricle"),
    Relation(1, "right_ventricle", "left_atrium"),
    Relation(1, "left_ventricle", "left_atrium"),
    Relation(1, "ascending_aorta", "descending_aorta"),
    Relation(1, "left_ventricle", "descending_aorta"),
    Relation(1, "left_ventricle", "spine"),
    Relation(1, "heart", "spine"),
    Relation(2, "left_atrium", "left_ventricle"),
    Relation(2, "right_atrium", "right_ventricle"),
    Relation(2, "ascending_aorta", "left_ventricle"),
    Relation(2, "pulmonary_artery", "left_ventricle"),
    Relation(2, "pulmonary_artery", "right_ventricle"),
    Relation(2, "aorta", "heart"),
    Relation(2, "pulmonary_artery", "heart"),
    Relation(2, "left_ventricle", "liver"),
    # The muscle closes around the apex and is open at the base, so its center lies from the cavity's towards the apex:
    # to the left, to the front and to the feet.
    Relation(0, "left_ventricle", "left_ventricular_myocardium"),
    Relation(1, "left_ventricular_myocardium", "left_ventricle"),
    Relation(2, "left_ventricle", "left_ventricular_myocardium"),
)
"""The usual situs. In single congenital hearts some are otherwise; an axis is suspected by its sum."""


class Lie(NamedTuple):
    """How the structures of a case lie along one axis.

    Attributes:
        sum_mm: distances along all relations, those against the usual situs negative; 0 where nothing tells.
        against: relations that are the other way round, with their distance in mm.
    """

    sum_mm: float
    against: tuple[tuple[Relation, float], ...]

    @property
    def told(self) -> bool:
        """Whether the axis can be judged."""
        return abs(self.sum_mm) >= LEAST_MM

    @property
    def reversed(self) -> bool:
        """Whether the axis seems reversed."""
        return self.told and self.sum_mm < 0 and len(self.against) > 0


Lies = tuple[Lie, ...]
"""Of one case, by axis."""


def lies_of(case: Case) -> Lies:
    """Return how the structures of a case lie; nothing is told without a mask."""
    centers = {} if case.mask is None else _centers_mm(case, case.mask[0])
    lies = []
    for axis in range(len(AXES)):
        found = [(r, float(centers[r.further][axis] - centers[r.nearer][axis])) for r in RELATIONS
                 if r.axis == axis and r.further in centers and r.nearer in centers]  # fmt: skip
        against = tuple((relation, mm) for relation, mm in found if mm <= -LEAST_MM)
        lies.append(Lie(sum(mm for _, mm in found), against))
    return tuple(lies)


def orientation_findings(cases: Mapping[str, Lies]) -> list[Finding]:
    """Return which cases seem flipped: one finding for the whole set where it was written so, else one per case."""
    common = [axis for axis in range(len(AXES)) if _is_common(axis, cases)]
    findings = []
    for case_id, lies in cases.items():
        odd = [axis for axis, lie in enumerate(lies) if lie.reversed and axis not in common]
        # Where the headers of a set are not to be trusted, one relation alone is no news.
        if odd and (not common or any(len(lies[axis].against) > 1 for axis in odd)):
            findings.append(_of_case(case_id, odd, lies))
    if common:
        findings.append(_of_set(common, cases))
    return findings


def _is_common(axis: int, cases: Mapping[str, Lies]) -> bool:
    told = [lies[axis] for lies in cases.values() if lies[axis].told]
    odd = sum(lie.reversed for lie in told)
    return odd >= max(COMMON_CASES, COMMON_SHARE * len(told))


def _of_case(case_id: str, axes: Sequence[int], lies: Lies) -> Finding:
    evidence = _evidence(axes, lies)
    text = (
        f"{_suspicion(axes)}: {_told(evidence)}. A flipped file, or a heart on the other side (congenital); look "
        "at the image before you mend the header."
    )
    return Finding("warning", "orientation", case_id, text, _facts(axes, evidence))


def _of_set(axes: Sequence[int], cases: Mapping[str, Lies]) -> Finding:
    odd = [case_id for case_id, lies in cases.items() if any(lies[axis].reversed for axis in axes)]
    others = [i for i, lies in cases.items() if any(lies[axis].told and not lies[axis].reversed for axis in axes)]
    example = max(odd, key=lambda case_id: sum(-cases[case_id][axis].sum_mm for axis in axes))
    evidence = _evidence(axes, cases[example])
    text = f"{_suspicion(axes)} in {len(odd)} of {len(cases)} cases: in {example}, {_told(evidence)}."
    if others:
        text += f" Not so: {', '.join(others[:NAMED])}{', ...' if len(others) > NAMED else ''}."
    text += (
        " Probably the headers were lost or written so; networks learn from them as they are, but pictures and other "
    )
    text += "tools show them turned."
    return Finding(
        "warning", "orientation", None, text, {**_facts(axes, evidence), "count": len(odd), "others": others}
    )


def _facts(axes: Sequence[int], evidence: Sequence[str]) -> dict[str, Any]:
    return {"reversed": [AXES[axis] for axis in axes], "evidence": list(evidence)}


def _evidence(axes: Sequence[int], lies: Lies) -> list[str]:
    return [_in_words(relation, mm) for axis in axes for relation, mm in lies[axis].against]


def _told(evidence: Sequence[str]) -> str:
    """Return the first of the evidence, and how much there is; all of it stands in the facts."""
    rest = len(evidence) - TOLD
    return "; ".join(evidence[:TOLD]) + (f"; and {rest} more relations" if rest > 0 else "")


def _suspicion(axes: Sequence[int]) -> str:
    kind = "turned by half a turn" if len(axes) == 2 else "a mirror image"
    names = " and ".join(AXES[axis] for axis in axes)
    return f"the {names} {'axes seem' if len(axes) > 1 else 'axis seems'} reversed ({kind})"


def _in_words(relation: Relation, mm: float) -> str:
    usual = (("right", "left"), ("front", "back"), ("head", "feet"))[relation.axis]
    return f"{relation.further} lies {-mm:.0f} mm to the {usual[1]} of {relation.nearer}, usually to the {usual[0]}"


def _centers_mm(case: Case, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Return the center of each structure in patient coordinates, by our names."""
    boxes, centers = ndimage.find_objects(mask), {}
    for label in case.labels:
        box = boxes[label.code - 1] if label.code <= len(boxes) else None
        if box is None:
            continue
        inside, place = mask[box] == label.code, np.zeros(3)
        for axis, part in enumerate(box):
            along = inside.sum(axis=tuple(other for other in range(mask.ndim) if other != axis))
            place[axis] = part.start + along @ np.arange(len(along)) / along.sum()
        centers[structure_of(label.name)] = case.affine[:3, :3] @ place + case.affine[:3, 3]
    return centers
