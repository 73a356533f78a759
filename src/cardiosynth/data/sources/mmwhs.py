"""MM-WHS 2017: whole hearts in CT angiography and in MR, seven structures.

Zhuang et al., Medical Image Analysis 58, 2019, doi:10.1016/j.media.2019.101537; Zhuang and Shen, Medical Image Analysis
31, 2016, doi:10.1016/j.media.2016.02.006. On request from the challenge's page, for research; its terms go with the
data. ``ct_train/ct_train_1001_image.nii.gz`` with ``..._label.nii.gz``, ``mr_train/`` likewise: expect 20 annotated
cases of each. ``ct_test_2001_image.nii.gz`` and the like, 40 of each, come without masks and are cases without masks.

Grid: sizes, spacings and orientations differ from case to case, about a millimeter and finer. Labels are written as
intensities beyond uint8: 205 myocardium of the left ventricle, 420 left atrium, 500 left ventricle, 550 right atrium,
600 right ventricle, 820 ascending aorta, 850 pulmonary artery. They are read as the codes that the same structures have
in the default cardiac table. Known defect: some voxels of an MR mask hold 421; they are taken as 420, and it is said.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

from cardiosynth.core.labels import CARDIAC_CT, label_table
from cardiosynth.core.progress import say
from cardiosynth.data.formats.files import stem
from cardiosynth.data.listing import Pair, Release, add_pair, existing_folder, image_files, mask_beside, stream_release
from cardiosynth.data.stream import CaseStream, Quirks

NAMES = {
    205: "left_ventricular_myocardium", 420: "left_atrium", 500: "left_ventricle", 550: "right_atrium",
    600: "right_ventricle", 820: "ascending_aorta", 850: "pulmonary_artery",
}  # fmt: skip
CODES = {value: CARDIAC_CT.named(name).code for value, name in NAMES.items()}
RELEASE = Release(
    name="MM-WHS 2017, doi:10.1016/j.media.2019.101537",
    licence="MM-WHS's own terms, research only",
    labels=label_table({NAMES[value]: code for value, code in CODES.items()}),
    unit="hu",
    wanted="give the folder that holds ct_train and mr_train",
    quirks=Quirks(codes={**CODES, 421: CODES[420]}, strays={421: "taken as 420, the left atrium"}),
)
IMAGE = re.compile(r"(?i)((ct|mr)_(train|test)_\d+)_image")


def mmwhs(root: Path, modality: Literal["ct", "mr"]) -> CaseStream:
    """Return the cases of one modality of a download, read one by one: ``ct_train_1001``, ...

    Args:
        root: the folder.
        modality: which of the two; they are of different patients and have different units.

    Raises:
        InputError: not such a folder, or no case of this modality.
    """
    root = existing_folder(root, RELEASE.wanted)
    pairs: dict[str, Pair] = {}
    others = 0
    for path in image_files(root):
        match = IMAGE.fullmatch(stem(path))
        if match and match[2].lower() == modality:
            name = match[1]
            mask = mask_beside(path, f"{name}_label")
            known = mask if mask.exists() or match[3].lower() == "train" else None
            add_pair(pairs, name, Pair(path, known, {"patient": name, "acquisition": name}))
        others += bool(match and match[2].lower() != modality)
    if others and pairs:
        say(f"{root}: {others} images of the other modality are passed over; prepare them by themselves.")
    release = replace(RELEASE, unit="hu" if modality == "ct" else "mr", name=f"{RELEASE.name}, {modality.upper()}")
    return stream_release(root, release, pairs)
