"""ImageCAS: coronary CT angiographies of 1000 patients with the coronary arteries.

Zeng et al., Computerized Medical Imaging and Graphics 109, 2023, doi:10.1016/j.compmedimag.2023.102287;
arXiv:2211.01607. On Kaggle under Apache 2.0. Five archives (rename ``.change2zip`` to ``.zip`` and unpack with the
parts beside it) give ``1-200/``, ``201-400/``, ... with ``N.img.nii.gz`` and ``N.label.nii.gz``: expect 1000 cases.
An earlier release has a folder per patient, ``NUMBER/img.nii.gz`` and ``NUMBER/label.nii.gz``.

Grid: 512 x 512 x 206..275 voxels, 0.29..0.43 mm in the slice and 0.25..0.45 mm between slices, in HU. Label: 1 the
coronary arteries, left and right together. Known defects: in the earlier release folders ending in ``(1)`` are
duplicates (the authors' note of April 2023); they are passed over. Numbers of the two releases are not the same.
"""

import re
from pathlib import Path

from cardiosynth.core.labels import label_table
from cardiosynth.core.progress import say
from cardiosynth.data.formats.files import stem
from cardiosynth.data.listing import (
    Pair,
    Release,
    add_pair,
    case_name,
    existing_folder,
    image_files,
    mask_beside,
    stream_release,
)
from cardiosynth.data.stream import CaseStream

RELEASE = Release(
    name="ImageCAS, doi:10.1016/j.compmedimag.2023.102287",
    licence="Apache-2.0",
    labels=label_table({"coronary_artery": 1}),
    unit="hu",
    wanted="give the folder that holds 1-200, 201-400, ..., unpacked from the archives",
)
IMAGE = re.compile(r"(?i)(.+)\.img$|img$")
DUPLICATE = re.compile(r"\(\d+\)$")


def imagecas(root: Path) -> CaseStream:
    """Return the cases of a download, read one by one: ``imagecas_0001``, ...

    Raises:
        InputError: not such a folder.
    """
    root = existing_folder(root, RELEASE.wanted)
    pairs: dict[str, Pair] = {}
    duplicates = 0
    for path in image_files(root):
        match = IMAGE.fullmatch(stem(path))
        if not match:
            continue
        number = match[1] or path.resolve().parent.name
        if DUPLICATE.search(number) or DUPLICATE.search(path.parent.name):
            duplicates += 1
            continue
        name = f"imagecas_{int(number):04d}" if number.isdigit() else f"imagecas_{case_name(number)}"
        mask = mask_beside(path, stem(path)[: -len("img")] + "label")
        add_pair(pairs, name, Pair(path, mask, {"patient": name, "acquisition": name}))
    if duplicates:
        say(f"{root}: {duplicates} duplicates, whose names end in (1), are passed over.")
    return stream_release(root, RELEASE, dict(sorted(pairs.items())))
