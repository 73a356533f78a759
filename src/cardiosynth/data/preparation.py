"""What every case of a prepared dataset has in common, whichever cases they are, and what trained networks rely on."""

import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic

from cardiosynth.core.case import IntensityUnit
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import PERCENTILES, IntensityScale, Window
from cardiosynth.core.store import fingerprint
from cardiosynth.data.dataset import Dataset

KEY = "preparation"
"""Under which datasets and checkpoints record it."""
SAME_SPACING = 1e-3
"""Relative difference of voxel sizes that is none."""


class Preparation(Settings):
    """A dataset's preparation. None stands for what is not the same in every case, or not said.

    Attributes:
        kind: ``volumes``, or the plane of slices.
        axes: ``patient`` for straight RAS, ``image`` for each scan's own.
        shape: voxels per axis.
        spacing_mm: voxel size per axis.
        intensity_unit: of every image.
        window: HU that networks are to see, or where volumes of MR were normalized to; nothing stored is cut to it.
        labels: name -> code of the label table; None where no case has a mask.
    """

    kind: Literal["volumes", "axial", "short-axis"] = "volumes"
    axes: Literal["patient", "image"] = "patient"
    shape: tuple[pydantic.PositiveInt, ...] | None = None
    spacing_mm: tuple[pydantic.PositiveFloat, ...] | None = None
    intensity_unit: IntensityUnit
    window: Window | None = None
    labels: dict[str, int] | None = None

    @property
    def fingerprint(self) -> str:
        """What identifies it in a word."""
        return fingerprint(self.model_dump(mode="json"))

    def recorded(self) -> dict[str, Any]:
        """Return it as datasets and checkpoints keep it."""
        return {**self.model_dump(mode="json"), "fingerprint": self.fingerprint}

    def differing(self, other: "Preparation") -> list[str]:
        """Return the names of the fields in which the two contradict each other."""
        return [name for name in type(self).model_fields if _contradict(getattr(self, name), getattr(other, name))]

    def options(self, origin: str) -> list[str]:
        """Return the options of ``cardiosynth prepare`` that lead to it; the label table is read from ``origin``."""
        words: list[object] = []
        if self.kind != "volumes":
            words += ["--slices", self.kind, "--size", *(self.shape or ())[:1]]
        elif self.shape:
            words += ["--shape", *self.shape]
        words += ["--spacing-mm", *(f"{v:g}" for v in self.spacing_mm)] if self.spacing_mm else []
        words += ["--axes", self.axes] if self.axes != "patient" and self.kind != "short-axis" else []
        words += self._intensities()
        words += ["--to-labels", origin] if self.labels else []
        return [str(word) for word in words]

    def _intensities(self) -> list[str]:
        if self.window is None:
            return []
        if self.intensity_unit == "mr":
            return ["--normalize"]
        return ["--window", f"{self.window.low:g}", f"{self.window.high:g}"]


def _contradict(one: Any, two: Any) -> bool:
    if one is None or two is None:
        return False
    if isinstance(one, tuple) and isinstance(one[0], float):
        return len(one) != len(two) or not np.allclose(one, two, rtol=SAME_SPACING, atol=0)
    return one != two


def read_preparation(facts: Mapping[str, Any]) -> Preparation | None:
    """Return what a dataset's facts or a checkpoint's record say of the preparation; None where they say nothing."""
    content = facts.get(KEY)
    if not isinstance(content, Mapping) or "intensity_unit" not in content:
        return None
    return Preparation.model_validate({key: value for key, value in content.items() if key != "fingerprint"})


def preparation_of(cases: object) -> Preparation | None:
    """Return the preparation that a dataset records; None for plain folders, phantoms and lists of cases."""
    found = read_preparation(cases.description.facts) if isinstance(cases, Dataset) else None
    if found is None or not isinstance(cases, Dataset):
        return None
    masks = any(cases.has("mask", case_id) for case_id in cases.case_ids)
    return found if masks else found.model_copy(update={"labels": None})


def recorded_preparation(cases: object) -> dict[str, Any]:
    """Return what a checkpoint trained on ``cases`` adds to its record: the preparation, where there is one."""
    found = preparation_of(cases)
    return {} if found is None else {KEY: found.recorded()}


def check_preparation(cases: object, record: Mapping[str, Any], origin: Path, *, besides: Collection[str] = ()) -> None:
    """Refuse a dataset that was prepared otherwise than the one that a network was trained on.

    What either does not record is not compared.

    Args:
        cases: a dataset.
        record: of the network's checkpoint.
        origin: the checkpoint or its stage's folder, for the error.
        besides: fields that may differ, such as ``labels`` where structures are matched by name later on.

    Raises:
        InputError: naming the field that differs and the command that mends it.
    """
    theirs, ours = read_preparation(record), preparation_of(cases)
    if theirs is None or ours is None or not isinstance(cases, Dataset):
        return
    fields = [name for name in ours.differing(theirs) if name not in besides]
    if not fields:
        return
    field = fields[0]
    mend = shlex.join(["cardiosynth", "prepare", "nnunet", str(cases.root), "OUT", *theirs.options(str(origin))])
    how = "take scans of that unit" if field == "intensity_unit" else f"run `{mend}`, from the scans themselves best"
    raise InputError(
        f"{cases.root} was prepared otherwise than what {origin} was trained on: {field} is "
        f"{_in_words(getattr(ours, field))}, not {_in_words(getattr(theirs, field))}; {how}."
    )


def check_window(cases: object, scale: IntensityScale) -> None:
    """Refuse a window that a dataset was not prepared for, or a scale that does not suit normalized MR.

    Raises:
        InputError: naming both windows and the ways out.
    """
    found = preparation_of(cases)
    if found is None or found.intensity_unit != scale.unit:
        return
    name = cases.root if isinstance(cases, Dataset) else "the dataset"
    if scale.unit == "mr":
        _check_mr(str(name), found, scale)
        return
    if found.window is None or found.window == scale.window:
        return
    wanted = scale.window
    raise InputError(
        f"{name} was prepared for a window of "
        f"{_in_words(found.window)} HU, not {_in_words(wanted)}; prepare it with --window {wanted.low:g} "
        f"{wanted.high:g}, or set intensity.window.low={found.window.low:g} and .high={found.window.high:g}."
    )


def suited_scale(cases: Dataset) -> IntensityScale:
    """Return how a network may see a dataset: in the window it was prepared for, or by the defaults of its unit.

    Raises:
        InputError: the unit is not known.
    """
    if cases.intensity_unit == "unknown":
        raise InputError(f"{cases.root} does not say what its intensities are; prepare it with --unit hu or mr.")
    found = preparation_of(cases)
    if found is None or found.window is None:
        return IntensityScale(unit=cases.intensity_unit)
    percentiles = None if cases.intensity_unit == "mr" else PERCENTILES
    return IntensityScale(unit=cases.intensity_unit, window=found.window, percentiles=percentiles)


def _check_mr(name: str, found: Preparation, scale: IntensityScale) -> None:
    fixed = scale.window if scale.percentiles is None else None
    if fixed == found.window:
        return
    if found.window is None:
        raise InputError(
            f"{name} has the values of its scanners and the model wants MR of {_in_words(fixed)}; prepare it with "
            "--normalize, or set intensity.percentiles=[0.5,99.5]."
        )
    raise InputError(
        f"{name} was normalized to {_in_words(found.window)} volume by volume; set intensity.percentiles=null, "
        f"intensity.window.low={found.window.low:g} and .high={found.window.high:g}."
    )


def _in_words(value: Any) -> str:
    if isinstance(value, Window):
        return f"{value.low:g} to {value.high:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {code}" for name, code in value.items())
    return " x ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)
