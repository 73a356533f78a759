"""What structures should look like: their usual attenuation in contrast CT, their order in MR, what they are called.

A median outside its range is no proof of an error, but the commonest errors show there: a mask moved against its
image, two swapped codes, a missing rescale intercept, a scan without contrast among scans with it.
"""

from typing import NamedTuple

ALIASES: dict[str, tuple[str, ...]] = {
    "left_ventricle": ("lv", "lv_blood_pool", "left_ventricle_blood_cavity", "heart_ventricle_left", "lv_cavity"),
    "right_ventricle": ("rv", "rv_blood_pool", "right_ventricle_blood_cavity", "heart_ventricle_right", "rv_cavity"),
    "left_atrium": ("la", "left_atrium_blood_cavity", "heart_atrium_left"),
    "right_atrium": ("ra", "right_atrium_blood_cavity", "heart_atrium_right"),
    "left_ventricular_myocardium": (
        "myocardium", "myo", "lv_myocardium", "left_ventricle_myocardium", "heart_myocardium",
        "myocardium_of_the_left_ventricle",
    ),
    "ascending_aorta": ("aa", "aorta_ascending"),
    "aorta": ("ao",),
    "pulmonary_artery": ("pa", "pulmonary_trunk"),
    "coronary_artery": ("coronary_arteries", "coronaries", "coronary"),
    "superior_vena_cava": ("svc",),
    "inferior_vena_cava": ("ivc",),
    "spine": ("vertebrae", "vertebra"),
    "lung": ("lungs", "lung_left", "lung_right"),
}  # fmt: skip
"""Our name of a structure -> what data sets call it, in lower case with underscores."""

_CANONICAL = {alias: name for name, aliases in ALIASES.items() for alias in aliases}


def structure_of(name: str) -> str:
    """Return our name of the structure that a label table calls ``name``; an unknown one stays as it is."""
    return _CANONICAL.get(name, name)


class Tissue(NamedTuple):
    """What the median voxel of some structures measures in contrast-enhanced CT.

    Attributes:
        names: the structures, by our names.
        low_hu: lowest usual median.
        high_hu: highest usual median.
        basis: what the range is based on.
    """

    names: tuple[str, ...]
    low_hu: float
    high_hu: float
    basis: str


TISSUES = (
    Tissue(
        ("left_ventricle", "left_atrium", "ascending_aorta", "aorta", "descending_aorta"), 200, 700,
        "arterial phase: protocols aim at 250 HU or more in the aortic root, 400 to 500 are usual at 100 to 120 kV, "
        "700 are reached at 70 to 80 kV",
    ),
    Tissue(
        ("right_ventricle", "right_atrium", "pulmonary_artery"), 40, 800,
        "from blood that saline has washed out (unenhanced blood 40 to 55 HU) to an early phase",
    ),
    Tissue(("superior_vena_cava", "inferior_vena_cava", "great_veins"), 30, 1500, "from blood to undiluted contrast"),
    Tissue(("coronary_artery",), 0, 700, "as the aortic root, less what voxels as wide as the vessel mix with fat"),
    Tissue(
        ("left_ventricular_myocardium",), 60, 180,
        "muscle 40 to 60 HU and its early enhancement; where the septum meets blood, voxels mix",
    ),
    Tissue(("heart",), 50, 550, "chambers and muscle together"),
    Tissue(("lung",), -950, -600, "inflated lung with its vessels; about -850"),
    Tissue(("mediastinal_fat", "fat", "epicardial_fat", "pericardial_fat"), -140, -30, "fat -120 to -80 HU and thin "
           "layers of it beside muscle and blood"),
    Tissue(("liver",), 40, 200, "55 to 65 HU unenhanced, 60 to 80 arterial, up to 130 portal venous"),
    Tissue(("spine", "ribs_and_sternum"), 80, 800, "spongy bone 30 to 300 HU, compact bone above 250"),
    Tissue(("esophagus",), -150, 120, "muscle, and the air or fluid within"),
)  # fmt: skip
"""Usual attenuation. Tissues without contrast: Kalender, Computed Tomography, 3rd ed. 2011, figure 1.7 (lung, fat,
muscle, blood, liver, bone); enhancement: the aims of coronary CT angiography (SCCT guidelines, Abbara et al., J
Cardiovasc Comput Tomogr 10, 2016). Ranges are widened to what low tube voltage and timing do; they are ours."""

EXPECTED_HU: dict[str, Tissue] = {name: tissue for tissue in TISSUES for name in tissue.names}

BLOOD = ("left_ventricle", "left_atrium", "ascending_aorta", "aorta", "descending_aorta")
"""What contrast must reach in an arterial phase."""

BRIGHTER_IN_MR = (
    ("left_ventricle", "left_ventricular_myocardium"),
    ("right_ventricle", "left_ventricular_myocardium"),
    ("left_ventricular_myocardium", "lung"),
)
"""Bright-blood MR (steady-state cine, contrast angiography) has no unit, but an order: the first is brighter."""

CHAMBERS = ("left_atrium", "right_atrium", "left_ventricle", "right_ventricle")
SOLID = (*CHAMBERS, "ascending_aorta", "aorta", "pulmonary_artery", "descending_aorta")
"""Structures without a hole: no cavity, no tunnel."""
