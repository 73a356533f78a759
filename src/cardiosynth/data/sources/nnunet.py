"""nnU-Net's raw folder: ``dataset.json``, ``imagesTr/CASE_0000.nii.gz``, ``labelsTr/CASE.nii.gz``."""

from functools import partial
from pathlib import Path
from typing import Any

from cardiosynth.core.case import Case, IntensityUnit
from cardiosynth.core.errors import InputError
from cardiosynth.data.dataset import Dataset, read_dataset
from cardiosynth.data.description import unit_named
from cardiosynth.data.layout import FOLDERS
from cardiosynth.data.splits import patient_of
from cardiosynth.data.stream import CaseStream


def nnunet(root: Path, intensity_unit: str | None = None) -> CaseStream:
    """Return the training cases of an nnU-Net raw folder, read one by one.

    Args:
        root: the folder, e.g. ``nnUNet_raw/Dataset123_Heart``.
        intensity_unit: ``hu`` or ``mr``; None takes it from ``channel_names``.

    Raises:
        InputError: not such a folder, or the channel's name does not tell the unit.
    """
    dataset = read_dataset(Path(root))
    unit = unit_named(intensity_unit) if intensity_unit else dataset.intensity_unit
    if unit == "unknown" and intensity_unit is None:
        raise InputError(f"{root}/dataset.json: the channel is neither CT nor MR; state the unit hu or mr.")
    return CaseStream(
        {case_id: partial(_read, dataset.subset([case_id]), case_id, unit) for case_id in dataset.case_ids}
    )


def _read(dataset: Dataset, case_id: str, unit: IntensityUnit) -> Case:
    case = dataset.case(case_id)
    facts: dict[str, Any] = {"source": f"nnU-Net folder {dataset.root.name}", "patient": patient_of(case_id)}
    parts = {part: dataset.file(part, case_id) for part in FOLDERS if dataset.has(part, case_id)}
    facts["files"] = {part: path.relative_to(dataset.root).as_posix() for part, path in parts.items()}
    if "licence" in dataset.description.facts:
        facts["licence"] = str(dataset.description.facts["licence"])
    return case.with_(intensity_unit=unit, provenance={**facts, **case.provenance})
