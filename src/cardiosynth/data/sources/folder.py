"""A folder of images and label masks as people keep them.

Either ``images/CASE.nii.gz`` with ``labels/CASE.nii.gz``, or both side by side: ``CASE.nii.gz`` with
``CASE_label.nii.gz`` (or ``_labels``, ``_mask``, ``_seg``, ``_gt``, ``.label``). An image without a mask is a case too,
and so is a mask without an image. ``labels.json`` beside them names the codes: ``{"left atrium": 1, "aorta": 2}``.
"""

import re
from functools import partial
from pathlib import Path

import numpy as np

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT, LabelTable
from cardiosynth.data.description import read_label_table, unit_named
from cardiosynth.data.formats.files import read_mask, stem
from cardiosynth.data.formats.nifti import is_nifti
from cardiosynth.data.stream import CaseStream, read_pair

MASK_NAME = re.compile(r"(?i)(.+?)[._-](labels?|mask|seg|segmentation|gt)$")
TABLE = "labels.json"
LOOKED_AT = 20
"""So many masks are read to tell which codes a label table must name."""


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
        InputError: no folder, no NIfTI file in it, no label table, or an unknown unit.
    """
    root = Path(root)
    unit = unit_named(intensity_unit or "hu")
    images, masks = _files(root)
    if not images and not masks:
        raise InputError(f"{root} holds no .nii.gz or .nii file; put images into images/ and masks into labels/.")
    table = labels if isinstance(labels, LabelTable) else _table(root, labels, masks)
    readers = {}
    for name in sorted({*images, *masks}):
        image, mask = images.get(name), masks.get(name)
        files = {part: p.relative_to(root).as_posix() for part, p in (("image", image), ("mask", mask)) if p}
        facts = {"source": f"folder {root.name}", "files": files, **({"licence": licence} if licence else {})}
        readers[name] = partial(read_pair, name, image, mask, table, unit, facts)
    return CaseStream(readers)


def _files(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the images and the masks by case name."""
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give the folder that holds the images.")
    if (root / "images").is_dir() or (root / "labels").is_dir():
        images = _by_name({path: stem(path).removesuffix("_0000") for path in _niftis(root / "images")})
        return images, _by_name({path: _mask_name(path, images) for path in _niftis(root / "labels")})
    files = _niftis(root)
    masks = {path: match[1] for path in files if (match := MASK_NAME.match(stem(path)))}
    return _by_name({p: stem(p).removesuffix("_0000") for p in files if p not in masks}), _by_name(masks)


def _niftis(place: Path) -> list[Path]:
    return sorted(filter(is_nifti, place.iterdir())) if place.is_dir() else []


def _mask_name(path: Path, images: dict[str, Path]) -> str:
    """Return the case of a file in ``labels/``: its own name, or that without an ending where an image has it."""
    match = MASK_NAME.match(stem(path))
    return match[1] if match and stem(path) not in images and match[1] in images else stem(path)


def _by_name(names: dict[Path, str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path, wish in names.items():
        name = re.sub(r"[^\w.-]+", "-", wish)
        if name in found:
            raise InputError(f"{found[name]} and {path} would both be the case '{name}'; rename one of them.")
        found[name] = path
    return found


def _table(root: Path, given: Path | None, masks: dict[str, Path]) -> LabelTable:
    path = given or root / TABLE
    if given or path.exists():
        return read_label_table(path)
    if not masks:
        return CARDIAC_CT
    codes = sorted({int(c) for p in list(masks.values())[:LOOKED_AT] for c in np.unique(read_mask(p).array)} - {0})
    example = ", ".join(f'"structure {code}": {code}' for code in codes)
    found = f"its masks hold the codes {', '.join(map(str, codes))}" if codes else "its masks are empty"
    raise InputError(f"{root} has no {TABLE}: {found}; write {path} as {{{example}}} with the structures' names.")
