"""Folders of 2D slices as PNG: ``images/PATIENT_SLICE.png`` with an index mask of the same name.

So come the 2D releases of HVSMR-2.0 (CC BY 4.0), CHD68 and HOCM (Apache 2.0) and many others. Masks lie in a folder
beside or above the images that is called ``labels``, ``masks``, ``index_masks`` or the like; where several are, the one
that holds codes is taken and the one that holds colors passed over. A table names the codes, ``labels.json`` or
``--labels``.

Grid: whatever the pictures have; the spacing is unknown and stays so unless ``spacing.json`` gives it. The unit is
``unknown`` unless it is stated: 8-bit pictures are scaled slice by slice. Rows are taken to run from anterior to
posterior. Slices of one patient share their name before the slice's number, and are never divided between training and
test.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from PIL import Image

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.progress import say
from cardiosynth.data.description import unit_named
from cardiosynth.data.formats.files import ending, stem
from cardiosynth.data.listing import (
    by_name,
    existing_folder,
    folder_facts,
    given_spacings,
    image_files,
    label_table_of,
    relative_files,
    spacing_of,
)
from cardiosynth.data.stream import CaseStream, Quirks, read_pair

IMAGES = re.compile(r"(?i)(image|img)s?")
MASKS = re.compile(r"(?i)(.*[_-])?(label|mask|seg|segmentation|gt)s?")
SLICE = re.compile(r"(?i)(.+?)[_-](?:slice[_-]?)?(\d+)")
WANTED = "give the folder that holds images/ and masks/ with PNG files of the same names"


def slices(
    root: Path, labels: LabelTable | Path | None = None, intensity_unit: str | None = None, licence: str = ""
) -> CaseStream:
    """Return the slices of a folder, read one by one: ``PATIENT_sliceN``.

    Args:
        root: the folder.
        labels: the label table or a JSON file that holds it; None looks for ``labels.json`` in ``root``.
        intensity_unit: ``mr`` or ``hu``, where it is known.
        licence: under which terms the images stand; recorded with every case.

    Raises:
        InputError: no such folder, masks without an image's name, or no label table.
    """
    root = existing_folder(root, WANTED)
    images = by_name({path: stem(path) for path in _pictures(root, IMAGES)})
    masks = _masks(root, images)
    if not images:
        raise InputError(f"{root} holds no images/ with PNG files; {WANTED}.")
    table, unit = label_table_of(root, labels, masks.values()), unit_named(intensity_unit or "unknown")
    readers, spacings = {}, given_spacings(root)
    for name, image in images.items():
        case_id, patient = _patient(name)
        facts = folder_facts(root, relative_files(root, image, masks.get(name)), licence, patient, patient)
        quirks = Quirks(spacing_mm=spacing_of(spacings, case_id, patient))
        readers[case_id] = partial(read_pair, case_id, image, masks.get(name), table, unit, facts, quirks)
    return CaseStream(readers)


def _pictures(root: Path, folder: re.Pattern[str]) -> list[Path]:
    pictures = (path for path in image_files(root) if ending(path) == ".png" and path.parent != root)
    return [path for path in pictures if folder.fullmatch(path.parent.name)]


def _masks(root: Path, images: Mapping[str, Path]) -> dict[str, Path]:
    """Return the masks by the name of their image, of the one folder that holds codes."""
    folders: dict[Path, list[Path]] = {}
    for path in _pictures(root, MASKS):
        folders.setdefault(path.parent, []).append(path)
    indexed = {folder: paths for folder, paths in folders.items() if not _is_colored(paths[0])}
    if folders and not indexed:
        first = next(iter(folders.values()))[0]
        raise InputError(f"{first} holds colors; export one gray value per structure instead.")
    if len(indexed) > 1:
        raise InputError(f"{root} holds masks in {' and in '.join(map(str, indexed))}; leave one of the folders.")
    for folder in folders.keys() - indexed.keys():
        say(f"{folder} is passed over; its masks are colors and those of {next(iter(indexed))} are codes.")
    found = by_name({path: stem(path) for paths in indexed.values() for path in paths})
    missing = sorted(images.keys() - found.keys())
    if found and missing:
        raise InputError(f"{images[missing[0]]} has no mask in {next(iter(indexed))}; add it or take the image away.")
    return found


def _is_colored(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            return picture.mode in ("RGB", "RGBA")
    except OSError:
        return False  # a broken file is named when its case is read


def _patient(name: str) -> tuple[str, str]:
    """Return the case's name, which `splits.patient_of` understands, and the patient's."""
    match = SLICE.fullmatch(name)
    return (f"{match[1]}_slice{match[2]}", match[1]) if match else (name, name)
