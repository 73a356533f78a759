"""What a dataset folder says of itself: ``dataset.json``, ours and that of any plain nnU-Net raw folder.

nnU-Net's keys come first, so that it trains on the folder as it is; ours stand under ``cardiosynth``. While shards
are still being made the same content waits in ``.description.json``: a folder with a ``dataset.json`` is complete.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cardiosynth.core.case import IntensityUnit
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.labels import LabelTable, label_table
from cardiosynth.core.store import read_json, write_json
from cardiosynth.data.formats.nifti import ENDINGS

FORMAT_VERSION = 1
COMPLETE, UNFINISHED = "dataset.json", ".description.json"
CHANNEL: dict[IntensityUnit, str] = {"hu": "CT", "mr": "MRI", "unknown": "image"}


@dataclass(frozen=True)
class Description:
    """A dataset's own words.

    Attributes:
        name: what the dataset is called.
        labels: what the codes of every mask mean.
        intensity_unit: of every image.
        facts: JSON-like, e.g. ``{"preparation": {...}}``.
        file_ending: ``.nii.gz`` or ``.nii``.
    """

    name: str
    labels: LabelTable
    intensity_unit: IntensityUnit
    facts: Mapping[str, Any] = field(default_factory=dict)
    file_ending: str = ".nii.gz"


def read_description(root: Path) -> Description:
    """Read ``dataset.json``, or what a run that is still going has written in its place.

    Raises:
        InputError: there is none, or it says what we cannot use: several channels, regions, an ignore label.
    """
    path = root / COMPLETE
    if not path.exists() and (root / UNFINISHED).exists():
        path = root / UNFINISHED
    if not path.exists():
        what = "does not exist" if not root.exists() else f"holds no {COMPLETE}"
        raise InputError(f"{root} {what}; give a dataset folder or a plain nnU-Net raw folder.")
    content = read_json(path)
    if not isinstance(content, dict) or "labels" not in content:
        raise InputError(f"{path} has no 'labels'; write it as nnU-Net version 2 wants it.")
    ours = content.get("cardiosynth")
    if ours is None:
        return _foreign(path, content)
    if ours.get("format_version") != FORMAT_VERSION:
        raise InputError(f"{path} was written by another version of cardiosynth; prepare the dataset again.")
    labels = parse_settings(LabelTable, ours["label_table"], str(path))
    return Description(content.get("name", root.name), labels, ours["intensity_unit"], ours.get("facts", {}))


def write_description(root: Path, description: Description, num_training: int | None) -> None:
    """Write ``dataset.json``, or its stand-in where ``num_training`` is not known yet."""
    content = {
        "name": description.name,
        "channel_names": {"0": CHANNEL[description.intensity_unit]},
        "labels": {"background": 0, **{label.name: label.code for label in description.labels}},
        "numTraining": num_training,
        "file_ending": description.file_ending,
        "cardiosynth": {
            "format_version": FORMAT_VERSION,
            "intensity_unit": description.intensity_unit,
            "label_table": description.labels.model_dump(mode="json"),
            "facts": dict(description.facts),
        },
    }
    write_json(root / (UNFINISHED if num_training is None else COMPLETE), content)


def _foreign(path: Path, content: Mapping[str, Any]) -> Description:
    channels = content.get("channel_names", content.get("modality", {}))
    if len(channels) > 1:
        raise InputError(f"{path} names {len(channels)} channels; give a dataset with one image per case.")
    ending = content.get("file_ending", ".nii.gz")
    if ending not in ENDINGS:
        raise InputError(f"{path}: images end in '{ending}'; convert them to .nii.gz and change file_ending.")
    unit = unit_of_channel(str(next(iter(channels.values()), "")))
    labels = label_table(_codes_of(content["labels"], path))
    facts = {key: content[key] for key in ("licence", "reference") if content.get(key)}
    return Description(content.get("name", path.parent.name), labels, unit, facts, ending)


def read_label_table(path: Path) -> LabelTable:
    """Read a label table from JSON: ``{"left atrium": 1, ...}``, or the full table with roles and colors.

    Raises:
        InputError: the file is missing or says something else.
    """
    content = read_json(path)
    if isinstance(content, dict) and isinstance(content.get("labels"), list):
        return parse_settings(LabelTable, content, str(path))
    if not isinstance(content, dict):
        raise InputError(f'{path} is no label table; write it as {{"left atrium": 1, ...}}.')
    return label_table(_codes_of(content, path))


def unit_named(text: str) -> IntensityUnit:
    """Return the intensity unit that ``text`` names.

    Raises:
        InputError: there is none of this name.
    """
    units: dict[str, IntensityUnit] = {unit: unit for unit in CHANNEL}
    if text not in units:
        raise InputError(f"there is no intensity unit '{text}'" + suggest(text, list(units)))
    return units[text]


def unit_of_channel(name: str) -> IntensityUnit:
    """Return the unit that nnU-Net's channel name stands for: CT is HU, anything with MR in it MR."""
    if name.lower() == "ct":
        return "hu"
    return "mr" if "mr" in name.lower() else "unknown"


def _codes_of(labels: Mapping[str, Any], path: Path) -> dict[str, int]:
    if labels and all(str(key).isdigit() for key in labels):
        labels = {str(name): int(code) for code, name in labels.items()}
    for name, code in labels.items():
        if isinstance(code, list):
            raise InputError(f"{path}: '{name}' is a region of several codes; give one code per structure.")
        if not isinstance(code, int) or not 0 <= code <= 255:
            raise InputError(f"{path}: the code of '{name}' is {code!r}; give a whole number from 0 to 255.")
        if name == "ignore":
            raise InputError(f"{path}: the label 'ignore' has no meaning here; leave cases out that use it.")
    if not any(labels.values()):
        raise InputError(f"{path} names no structure; add its name and code to 'labels'.")
    return dict(labels)
