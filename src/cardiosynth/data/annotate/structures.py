"""TotalSegmentator's tasks as far as they concern the heart: what they give, under which name, and what they need.

Names, tasks and folders of weights are those of TotalSegmentator 2.18.0 (Wasserthal et al., Radiology: AI 5(5), 2023,
doi:10.1148/ryai.230024). A structure is known by its name; its number differs between versions and is never used.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cardiosynth.core.labels import Role

ROUGH = "Dataset298_TotalSegmentator_total_6mm_1559subj"
"""Finds the heart, around which the licensed tasks crop."""
OPEN = "masks by TotalSegmentator {task} (weights Apache-2.0)"
LICENSED = "masks by TotalSegmentator {task} (weights under the user's own licence, free for non-commercial use)"


@dataclass(frozen=True)
class Task:
    """One of TotalSegmentator's tasks.

    Attributes:
        names: its structure -> name in the result.
        role: of its structures, where `TARGETS` does not say otherwise.
        weights: folders that it needs.
        fast: folders that it needs with ``--fast``; empty where it cannot.
        others: structures that are left out unless ``rename`` gives them a name.
        licensed: whether it runs with a licence number only.
    """

    names: Mapping[str, str]
    role: Role
    weights: tuple[str, ...]
    fast: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    licensed: bool = False

    @property
    def roles(self) -> dict[str, Role]:
        """Name in the result -> role."""
        return {name: "target" if name in TARGETS else self.role for name in self.names.values()}

    def licence(self, task: str) -> str:
        """Return under which terms masks of this task stand."""
        return (LICENSED if self.licensed else OPEN).format(task=task)


TARGETS = ("aorta",)


def _sides(*names: str) -> list[str]:
    return [f"{name}_{side}" for name in names for side in ("left", "right")]


LOBES = ("upper_lobe_left", "lower_lobe_left", "upper_lobe_right", "middle_lobe_right", "lower_lobe_right")
GROUPS = {
    "lung": [f"lung_{lobe}" for lobe in LOBES],
    "ribs_and_sternum": [
        *(f"rib_{side}_{number}" for side in ("left", "right") for number in range(1, 13)),
        "sternum", "costal_cartilages",
    ],
    "spine": [f"vertebrae_{part}{n}" for part, count in (("C", 7), ("T", 12), ("L", 5)) for n in range(1, count + 1)],
    "shoulder_bones": _sides("scapula", "clavicula", "humerus"),
    "great_veins": [
        "superior_vena_cava", "inferior_vena_cava", "pulmonary_vein", *_sides("brachiocephalic_vein"),
    ],
    "arch_branches": ["brachiocephalic_trunk", *_sides("subclavian_artery", "common_carotid_artery")],
    "back_muscle": _sides("autochthon"),
    **{x: [x] for x in ("spinal_cord", "esophagus", "trachea", "liver", "stomach", "spleen", "heart", "aorta")},
}  # fmt: skip
"""Name in the result -> structures of ``total``. Its ``heart`` is the whole organ, of which the chambers that others
give leave fat, valves and pericardium. Its ``atrial_appendage_left`` is left out: it would be the only piece of an
atrium where nothing else gives one; rename it to left_atrium where something does."""

OTHERS = (
    "atrial_appendage_left", "adrenal_gland_left", "adrenal_gland_right", "colon", "duodenum", "gallbladder",
    "kidney_left", "kidney_right", "pancreas", "portal_vein_and_splenic_vein", "small_bowel", "thyroid_gland",
)  # fmt: skip
"""Further structures of ``total`` that a cardiac field of view may reach."""

TASKS = {
    "total": Task(
        {structure: name for name, structures in GROUPS.items() for structure in structures},
        "surrounding",
        tuple(
            f"Dataset29{number}_TotalSegmentator_part{number}_{what}subj"
            for number, what in enumerate(
                ("organs_1559", "vertebrae_1532", "cardiac_1559", "muscles_1559", "ribs_1559"), start=1
            )
        ),
        ("Dataset297_TotalSegmentator_total_3mm_1559subj",),
        others=OTHERS,
    ),
    "body": Task(
        {"body_trunc": "body_wall", "body_extremities": "body_wall"},
        "surrounding",
        ("Dataset299_body_1559subj",),
        ("Dataset300_body_6mm_1559subj",),
    ),
    "heartchambers_highres": Task(
        {
            "heart_myocardium": "left_ventricular_myocardium",
            "heart_atrium_left": "left_atrium",
            "heart_ventricle_left": "left_ventricle",
            "heart_atrium_right": "right_atrium",
            "heart_ventricle_right": "right_ventricle",
            "aorta": "aorta",
            "pulmonary_artery": "pulmonary_artery",
        },
        "target",
        ("Dataset301_heart_highres_1559subj", ROUGH),
        licensed=True,
    ),
    "coronary_arteries": Task(
        {"coronary_arteries": "coronary_artery"},
        "target",
        ("Dataset509_coronary_arteries_cm_nativ_400subj_SKELETON", ROUGH),
        licensed=True,
    ),
}
