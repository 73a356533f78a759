"""HDF5 files with the datasets ``image`` and ``label``, a slice or a volume each: ACDC as WSL4MIS passes it on.

``ACDC_training_slices/patient001_frame01_slice_1.h5`` or ``ACDC_training_volumes/patient001_frame01.h5``; the licence
of what lies in them (ACDC: CC BY-NC-SA 4.0) goes with them. Other datasets (``scribble``) are not read. Expect of ACDC
200 volumes or their 1902 slices. A table names the codes, ``labels.json`` or ``--labels``; of ACDC
``{"right ventricle": 1, "left ventricular myocardium": 2, "left ventricle": 3}``.

Grid: HDF5 carries neither spacing nor orientation; the spacing is unknown unless ``spacing.json`` gives it, the axes
are taken as LPS. Known defect: ACDC's intensities are scaled volume by volume to [0, 1]. Needs the extra ``hdf5``.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cardiosynth.core.case import Case, IntensityUnit
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable
from cardiosynth.data.description import unit_named
from cardiosynth.data.formats.files import ending, stem
from cardiosynth.data.formats.hdf5 import ENDINGS, holds
from cardiosynth.data.listing import (
    LOOKED_AT,
    by_name,
    existing_folder,
    folder_facts,
    given_spacings,
    image_files,
    label_table_of,
    relative_files,
    spacing_of,
)
from cardiosynth.data.splits import patient_of
from cardiosynth.data.stream import CaseStream, Quirks, read_pair

SLICE = re.compile(r"(?i)[_-]slice[_-]?(\d+)$")
WANTED = "give the folder that holds CASE.h5, each with the datasets image and label"


def hdf5(
    root: Path, labels: LabelTable | Path | None = None, intensity_unit: str | None = None, licence: str = ""
) -> CaseStream:
    """Return the cases of a folder of HDF5 files, read one by one.

    Args:
        root: the folder.
        labels: the label table or a JSON file that holds it; None looks for ``labels.json`` in ``root``.
        intensity_unit: ``mr`` (the default) or ``hu``.
        licence: under which terms the images stand; recorded with every case.

    Raises:
        InputError: no such folder, the extra is not installed, or no label table.
    """
    root = existing_folder(root, WANTED)
    files = by_name({p: SLICE.sub(r"_slice\1", stem(p)) for p in image_files(root) if ending(p) in ENDINGS})
    if not files:
        raise InputError(f"{root} holds no .h5 file; {WANTED}.")
    masks = [path for path in list(files.values())[:LOOKED_AT] if holds(path, "mask")]
    table, unit = label_table_of(root, labels, masks), unit_named(intensity_unit or "mr")
    readers, spacings = {}, given_spacings(root)
    for name, path in files.items():
        facts = folder_facts(root, relative_files(root, path, None), licence, patient_of(name), SLICE.sub("", name))
        quirks = Quirks(spacing_mm=spacing_of(spacings, name, patient_of(name)))
        readers[name] = partial(_read, name, path, table, unit, facts, quirks)
    return CaseStream(readers)


def _read(
    name: str, path: Path, labels: LabelTable, unit: IntensityUnit, facts: Mapping[str, Any], quirks: Quirks
) -> Case:
    return read_pair(name, path, path if holds(path, "mask") else None, labels, unit, facts, quirks)
