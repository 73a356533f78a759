"""ImageCHD and CHD68: CT angiographies of children and adults with congenital heart disease, seven structures.

ImageCHD: Xu et al., MICCAI 2020, doi:10.1007/978-3-030-59719-1_8, expect 110 cases. CHD68: Xu et al., MICCAI 2019,
doi:10.1007/978-3-030-32245-8_53, expect 68 cases. Both on Kaggle under Apache 2.0, with the same names:
``ct_NNNN_image.nii.gz`` and ``ct_NNNN_label.nii.gz`` (rename ``.change2zip`` to ``.zip`` and unpack). A case keeps its
name whichever of the two it comes from.

Grid: 512 x 512 in the slice. Labels: 1 left ventricle, 2 right ventricle, 3 left atrium with the pulmonary veins, 4
right atrium with the caval veins, 5 myocardium, 6 aorta, 7 pulmonary artery. Known defects:

- Values are stored as HU + 1024 (0..4095); 1024 is taken away.
- The headers state voxels of 1 x 1 x 1 mm, which is a placeholder: the spacing is unknown. ImageCHD's
  ``imagechd_dataset_image_info.xlsx`` lists voxel sizes by a number that seems to be the file's less 1000; its authors
  do not say so. Whoever trusts them writes ``spacing.json``.
- Codes above 7 are airways and the like, which the authors say to ignore; they become background, and it is said.
- 63 of CHD68's files are files of ImageCHD: never train on one and test on the other.
- Myocardium is missing in some cases, as users report; hearts may lie on the right.
"""

import re
from pathlib import Path

from cardiosynth.core.labels import label_table
from cardiosynth.data.formats.files import stem
from cardiosynth.data.listing import Pair, Release, add_pair, existing_folder, image_files, mask_beside, stream_release
from cardiosynth.data.stream import CaseStream, Quirks

NAMES = (
    "left_ventricle", "right_ventricle", "left_atrium", "right_atrium", "left_ventricular_myocardium", "aorta",
    "pulmonary_artery",
)  # fmt: skip
OTHERS = range(len(NAMES) + 1, 256)
RELEASE = Release(
    name="ImageCHD or CHD68, doi:10.1007/978-3-030-59719-1_8, doi:10.1007/978-3-030-32245-8_53",
    licence="Apache-2.0",
    labels=label_table({name: code for code, name in enumerate(NAMES, start=1)}),
    unit="hu",
    wanted="give the folder that holds ct_1001_image.nii.gz, ..., unpacked from the archive",
    quirks=Quirks(
        codes={code: code if code <= len(NAMES) else 0 for code in range(256)},
        strays=dict.fromkeys(OTHERS, "left out, it is none of the heart's structures"),
        stored_offset=1024,
        placeholder_spacing=True,
    ),
)
IMAGE = re.compile(r"(?i)(ct_\d+)_image")


def imagechd(root: Path) -> CaseStream:
    """Return the cases of a download of ImageCHD or CHD68, read one by one: ``ct_1001``, ...

    Raises:
        InputError: not such a folder.
    """
    root = existing_folder(root, RELEASE.wanted)
    pairs: dict[str, Pair] = {}
    for path in image_files(root):
        if match := IMAGE.fullmatch(stem(path)):
            name = match[1]
            add_pair(
                pairs, name, Pair(path, mask_beside(path, f"{name}_label"), {"patient": name, "acquisition": name})
            )
    return stream_release(root, RELEASE, pairs)
