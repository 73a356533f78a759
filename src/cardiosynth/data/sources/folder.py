"""A folder of images and label masks as people keep them, NIfTI or NRRD.

Either ``images/CASE.nii.gz`` with ``labels/CASE.nii.gz``, or both side by side: ``CASE.nii.gz`` with
``CASE_label.nii.gz`` (or ``_labels``, ``_mask``, ``_msk``, ``_seg``, ``_gt``, ``.label``). An image without a mask is a
case too, and so is a mask without an image: masks drawn by hand, such as those of LIDC's hearts (DeepCAC,
doi:10.1038/s41467-021-20966-2), are anatomy to condition on. ``labels.json`` beside them names the codes:
``{"left atrium": 1, "aorta": 2}``.
"""

import re
from functools import partial
from pathlib import Path

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable
from cardiosynth.data.description import unit_named
from cardiosynth.data.formats.files import ending, is_image_file, stem
from cardiosynth.data.listing import (
    by_name,
    existing_folder,
    folder_facts,
    given_spacings,
    label_table_of,
    relative_files,
    spacing_of,
)
from cardiosynth.data.splits import patient_of
from cardiosynth.data.stream import CaseStream, Quirks, read_pair

MASK_NAME = re.compile(r"(?i)(.+?)[._-](labels?|mask|msk|seg|segmentation|gt)$")
VOLUMES = (".nii.gz", ".nii", ".nrrd", ".nhdr")


def folder(
    root: Path,
    labels: LabelTable | Path | None = None,
    intensity_unit: str | None = None,
    licence: str = "",
) -> CaseStream:
    """Return the cases of a folder, read one by one.

    Args:
        root: the folder.
        labels: the label table or a JSON file that holds it; None looks for ``labels.json`` in ``root``.
        intensity_unit: ``hu`` (the default) or ``mr``.
        licence: under which terms the images stand; recorded with every case.

    Raises:
        InputError: no folder, no NIfTI or NRRD file in it, no label table, or an unknown unit.
    """
    root = existing_folder(root, "give the folder that holds the images")
    unit = unit_named(intensity_unit or "hu")
    images, masks = _files(root)
    if not images and not masks:
        raise InputError(f"{root} holds no {', '.join(VOLUMES)}; put images into images/ and masks into labels/.")
    table = label_table_of(root, labels, masks.values())
    readers, spacings = {}, given_spacings(root)
    for name in sorted({*images, *masks}):
        image, mask = images.get(name), masks.get(name)
        facts = folder_facts(root, relative_files(root, image, mask), licence, patient_of(name))
        quirks = Quirks(spacing_mm=spacing_of(spacings, name, patient_of(name)))
        readers[name] = partial(read_pair, name, image, mask, table, unit, facts, quirks)
    return CaseStream(readers)


def _files(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the images and the masks by case name."""
    if (root / "images").is_dir() or (root / "labels").is_dir():
        images = by_name({path: stem(path).removesuffix("_0000") for path in _volumes(root / "images")})
        return images, by_name({path: _mask_name(path, images) for path in _volumes(root / "labels")})
    files = _volumes(root)
    masks = {path: match[1] for path in files if (match := MASK_NAME.match(stem(path)))}
    return by_name({p: stem(p).removesuffix("_0000") for p in files if p not in masks}), by_name(masks)


def _volumes(place: Path) -> list[Path]:
    return sorted(
        path for path in (place.iterdir() if place.is_dir() else ()) if is_image_file(path) and ending(path) in VOLUMES
    )


def _mask_name(path: Path, images: dict[str, Path]) -> str:
    """Return the case of a file in ``labels/``: its own name, or that without an ending where an image has it."""
    match = MASK_NAME.match(stem(path))
    return match[1] if match and stem(path) not in images and match[1] in images else stem(path)
