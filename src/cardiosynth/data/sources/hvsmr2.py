"""HVSMR-2.0: 3D cardiovascular MR of 60 patients with congenital heart disease, eight structures.

Pace et al., Scientific Data 11, 2024, doi:10.1038/s41597-024-03469-9; figshare, doi:10.6084/m9.figshare.c.7074755.v2,
CC BY 4.0. Three downloads of the same patients, ``orig``, ``cropped`` and ``cropped_norm``; take one of them.
``patN_cropped_norm.nii.gz`` with ``patN_cropped_norm_seg.nii.gz`` or ``patN_cropped_seg.nii.gz``: expect 60 cases.
``..._seg_endpoints.nii.gz`` marks where vessels may end and is not read.

Grid: 83..273 x 95..322 x 77..220 voxels of the cropped scans, 0.5..1.1 x 0.5..1.1 x 0.4..1.6 mm. Labels: 1 left
ventricle, 2 right ventricle, 3 left atrium, 4 right atrium, 5 aorta, 6 pulmonary artery, 7 superior and 8 inferior
caval vein. Right ventricle (6 patients) and right atrium (10) are absent where the anatomy has none; hearts may lie on
the right.
"""

import re
from pathlib import Path

from cardiosynth.core.labels import label_table
from cardiosynth.data.formats.files import stem
from cardiosynth.data.listing import Pair, Release, add_pair, existing_folder, image_files, mask_beside, stream_release
from cardiosynth.data.stream import CaseStream

NAMES = (
    "left_ventricle", "right_ventricle", "left_atrium", "right_atrium", "aorta", "pulmonary_artery",
    "superior_vena_cava", "inferior_vena_cava",
)  # fmt: skip
RELEASE = Release(
    name="HVSMR-2.0, doi:10.1038/s41597-024-03469-9",
    licence="CC BY 4.0",
    labels=label_table({name: code for code, name in enumerate(NAMES, start=1)}),
    unit="mr",
    wanted="give the folder that holds pat0_cropped_norm.nii.gz, ... (or cropped, or orig)",
)
IMAGE = re.compile(r"(?i)(pat\d+)_(orig|cropped|cropped_norm)")


def hvsmr2(root: Path) -> CaseStream:
    """Return the cases of a download, read one by one: ``pat0``, ...

    Raises:
        InputError: not such a folder, or one that holds a patient in two forms.
    """
    root = existing_folder(root, RELEASE.wanted)
    pairs: dict[str, Pair] = {}
    for path in image_files(root):
        match = IMAGE.fullmatch(stem(path))
        if not match:
            continue
        facts = {"patient": match[1], "acquisition": match[1], "form": match[2]}
        add_pair(pairs, match[1], Pair(path, _mask(path, match[1]), facts))
    return stream_release(root, RELEASE, pairs)


def _mask(image: Path, patient: str) -> Path:
    """Return the mask beside an image: normalizing changed no mask, which may keep the name of the cropped one."""
    own = mask_beside(image, f"{stem(image)}_seg")
    return own if own.exists() else mask_beside(image, f"{patient}_cropped_seg")
