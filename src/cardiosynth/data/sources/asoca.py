"""ASOCA: coronary CT angiographies of 40 patients, 20 without and 20 with disease, with the coronary arteries.

Gharleghi et al., Scientific Data 10, 2023, doi:10.1038/s41597-023-02016-2, and Computerized Medical Imaging and
Graphics 97, 2022, doi:10.1016/j.compmedimag.2022.102049. On request from the challenge's page; its terms go with the
data. ``Normal/CTCA/Normal_1.nrrd`` with ``Normal/Annotations/Normal_1.nrrd``, and ``Diseased`` likewise: expect 40
cases (of another 20 the challenge keeps the masks).

Grid: NRRD in HU, 512 x 512 in the slice, 0.3..0.4 mm there and 0.625 mm between slices, one phase at the end of
diastole. Label: 1 the lumen of the coronary arteries, left and right together, by vote of three annotators. Centerlines
and meshes that come with the data are not read.
"""

from pathlib import Path

from cardiosynth.core.labels import label_table
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

IMAGES, MASKS = "CTCA", "Annotations"
RELEASE = Release(
    name="ASOCA, doi:10.1038/s41597-023-02016-2",
    licence="ASOCA's own terms",
    labels=label_table({"coronary_artery": 1}),
    unit="hu",
    wanted="give the folder that holds Normal and Diseased, each with CTCA and Annotations",
)


def asoca(root: Path) -> CaseStream:
    """Return the cases of a download, read one by one: ``Normal_1``, ..., ``Diseased_1``, ...

    Raises:
        InputError: not such a folder.
    """
    root = existing_folder(root, RELEASE.wanted)
    pairs: dict[str, Pair] = {}
    for path in image_files(root):
        if path.parent.name != IMAGES:
            continue
        name = case_name(stem(path))
        mask = mask_beside(path.parents[1] / MASKS / path.name, stem(path))
        group = "normal" if name.lower().startswith("normal") else "diseased"
        add_pair(pairs, name, Pair(path, mask, {"patient": name, "acquisition": name, "group": group}))
    return stream_release(root, RELEASE, pairs)
