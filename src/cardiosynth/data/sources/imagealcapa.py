"""ImageALCAPA: CT angiographies of 30 patients whose left coronary artery leaves the pulmonary artery.

Zeng et al., IEEE BIBM 2022, pp. 1800-1803, doi:10.1109/BIBM55620.2022.9994951. On Kaggle under Apache 2.0. The archive
(rename ``.change2zip`` to ``.zip``) gives ``N_image.nii.gz`` and ``N_label.nii.gz``: expect 30 cases from one SOMATOM
Definition Flash.

Labels: the authors name seven structures, in this order: myocardium, left ventricle, right ventricle, pulmonary artery,
aorta, left coronary artery, right coronary artery. That they are the codes 1 to 7 is taken from the order and not
written anywhere: look at a case first, and give another table with ``--labels`` where it is wrong. Known defects:
values are stored as HU + 1024 (0..4095), 1024 is taken away; headers state voxels of 1 x 1 x 1 mm, which is taken for a
placeholder, so that the spacing is unknown unless ``spacing.json`` gives it.
"""

import re
from dataclasses import replace
from pathlib import Path

from cardiosynth.core.labels import LabelTable, label_table
from cardiosynth.core.progress import say
from cardiosynth.data.formats.files import stem
from cardiosynth.data.listing import (
    Pair,
    Release,
    add_pair,
    existing_folder,
    image_files,
    label_table_of,
    mask_beside,
    stream_release,
)
from cardiosynth.data.stream import CaseStream, Quirks

NAMES = (
    "left_ventricular_myocardium", "left_ventricle", "right_ventricle", "pulmonary_artery", "aorta",
    "left_coronary_artery", "right_coronary_artery",
)  # fmt: skip
RELEASE = Release(
    name="ImageALCAPA, doi:10.1109/BIBM55620.2022.9994951",
    licence="Apache-2.0",
    labels=label_table({name: code for code, name in enumerate(NAMES, start=1)}),
    unit="hu",
    wanted="give the folder that holds 1_image.nii.gz, 1_label.nii.gz, ..., unpacked from the archive",
    quirks=Quirks(stored_offset=1024, placeholder_spacing=True),
)
IMAGE = re.compile(r"(?i)(\d+)_image")


def imagealcapa(root: Path, labels: LabelTable | Path | None = None) -> CaseStream:
    """Return the cases of a download, read one by one: ``alcapa_01``, ...

    Args:
        root: the folder.
        labels: what the codes mean, where the order of the authors' list is wrong.

    Raises:
        InputError: not such a folder.
    """
    root = existing_folder(root, RELEASE.wanted)
    pairs: dict[str, Pair] = {}
    for path in image_files(root):
        if match := IMAGE.fullmatch(stem(path)):
            name = f"alcapa_{int(match[1]):02d}"
            add_pair(
                pairs, name, Pair(path, mask_beside(path, f"{match[1]}_label"), {"patient": name, "acquisition": name})
            )
    if labels is None:
        say("ImageALCAPA: what its codes mean is taken from the order of its authors' list; look at a case first.")
        return stream_release(root, RELEASE, dict(sorted(pairs.items())))
    release = replace(RELEASE, labels=label_table_of(root, labels, ()))
    return stream_release(root, release, dict(sorted(pairs.items())))
