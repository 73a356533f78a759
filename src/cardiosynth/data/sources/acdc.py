"""ACDC: short-axis cine MR of 150 patients, end-diastole and end-systole.

Bernard et al., IEEE TMI 37(11), 2018, doi:10.1109/TMI.2018.2837502; CC BY-NC-SA 4.0. Each ``patientNNN/`` holds the two
annotated frames ``patientNNN_frameFF.nii.gz`` with ``..._gt.nii.gz``, and as downloaded also ``Info.cfg`` and the 4D
series, which has no annotation and is passed over: expect 200 cases of the 100 training patients, 100 of the 50 others.

Grid: 154..512 voxels across, as published of 1.37..1.68 mm, in six and more slices every 5 or 10 mm. Labels: 1
right ventricle, 2 myocardium, 3 left ventricle; the right ventricle has no wall, and slices beyond base and apex are
not annotated. Known defects: copies that went through HDF5 have lost spacing and orientation and state nominal ones.
"""

import re
from functools import partial
from pathlib import Path
from typing import Any

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import label_table
from cardiosynth.core.progress import say
from cardiosynth.data.formats.files import stem
from cardiosynth.data.listing import by_name, existing_folder, image_files, mask_beside, relative_files
from cardiosynth.data.stream import CaseStream, read_pair

LABELS = label_table({"right_ventricle": 1, "left_ventricular_myocardium": 2, "left_ventricle": 3})
LICENCE = "CC BY-NC-SA 4.0"
FRAME = re.compile(r"(patient\d+)_frame(\d+)$")


def acdc(root: Path) -> CaseStream:
    """Return the annotated frames of a download, read one by one.

    Both frames of a patient share their ``acquisition``. The phase comes from ``Info.cfg``; without it the first of a
    patient's frames is end-diastole, which is how ACDC numbers them.

    Raises:
        InputError: not such a folder.
    """
    root = existing_folder(root, "give the folder that holds patient001, patient002, ...")
    files = by_name({path: stem(path) for path in image_files(root) if path.name.startswith("patient")})
    frames = {name: path for name, path in files.items() if FRAME.match(name)}
    if not frames:
        raise InputError(f"{root} holds no patientNNN_frameFF.nii.gz; give the folder that holds patient001, ...")
    series = [name for name in files if name.endswith("_4d")]
    if series:
        say(f"{root}: {len(series)} 4D series are passed over; they have no annotation.")
    annotated = any(name.endswith("_gt") for name in files)
    readers = {}
    for name, path in frames.items():
        mask = mask_beside(path, f"{name}_gt") if annotated else None
        facts = {**_facts(name, path, frames), "files": relative_files(root, path, mask)}
        readers[name] = partial(read_pair, name, path, mask, LABELS, "mr", facts)
    return CaseStream(readers)


def _facts(name: str, path: Path, frames: dict[str, Path]) -> dict[str, Any]:
    patient, number = _parts(name)
    info = _info(path.parent / "Info.cfg")
    first = min(_parts(other)[1] for other in frames if _parts(other)[0] == patient)
    is_diastole = number == int(info.get("ED", first))
    facts = {
        "source": "ACDC (MICCAI 2017), doi:10.1109/TMI.2018.2837502",
        "licence": LICENCE,
        "patient": patient,
        "acquisition": patient,
        "frame": number,
        "phase": "end-diastole" if is_diastole else "end-systole",
    }
    return {**facts, "group": info["Group"]} if "Group" in info else facts


def _parts(name: str) -> tuple[str, int]:
    match = FRAME.match(name)
    assert match is not None, name
    return match[1], int(match[2])


def _info(path: Path) -> dict[str, str]:
    """Return the ``key: value`` lines of ``Info.cfg``; none where there is no such file."""
    if not path.exists():
        return {}
    lines = (line.partition(":") for line in path.read_text(encoding="utf-8").splitlines())
    return {key.strip(): value.strip() for key, colon, value in lines if colon}
