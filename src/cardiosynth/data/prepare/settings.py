"""What scans are brought to: grid, label table, slices."""

from typing import Any, Literal

import pydantic

from cardiosynth.core.case import IntensityUnit
from cardiosynth.core.config import Settings
from cardiosynth.core.intensity import NORMALIZED, Window
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.store import fingerprint
from cardiosynth.data.preparation import Preparation
from cardiosynth.data.prepare.mapping import LabelMapping

FIELD_MM = 192.0
"""Side of a slice where the voxel size is known: a heart with a hand's breadth around it, 1.5 mm at 128 pixels."""


class SliceSettings(Settings):
    """How volumes are cut into slices.

    Attributes:
        plane: ``axial``, or ``short-axis``: across the image's own slice axis, the one of the thickest voxels.
        size: pixels per side.
        scale: ``mm`` brings every slice to one pixel size, ``width`` the longer side of every image to twice ``size``
            (a scanner's field of view is about twice a heart's); ``auto`` is mm where the voxel size is known.
    """

    plane: Literal["axial", "short-axis"] = "axial"
    size: int = pydantic.Field(default=128, ge=8)
    scale: Literal["auto", "mm", "width"] = "auto"


class PrepareSettings(Settings):
    """How scans are brought to one grid and one label table.

    Attributes:
        shape: voxels per axis; None keeps the whole field of view. Slices have their ``size``.
        spacing_mm: voxel size per axis; None keeps each scan's own (of slices: `FIELD_MM` over their size).
        axes: ``patient`` turns oblique scans to straight RAS; ``image`` keeps their own axes, straightened, which
            spares thick slices the turn.
        center: what lies in the middle: the bounding box of the ``targets`` of the mask, or the ``image``'s center.
        interpolation: of images; masks are resampled label by label.
        fill_hu: value of CT outside the scan, air.
        fill_mr: value of MR outside the scan.
        normalize: put the percentiles of every volume of MR at the ends of `NORMALIZED`, in all its slices.
        window: HU that the networks will see; recorded, never applied to what is stored.
        mapping: which structure becomes which.
        slices: None for volumes.
    """

    shape: tuple[pydantic.PositiveInt, ...] | None = pydantic.Field(default=None, min_length=2, max_length=3)
    spacing_mm: tuple[pydantic.PositiveFloat, ...] | None = pydantic.Field(default=None, min_length=2, max_length=3)
    axes: Literal["patient", "image"] = "patient"
    center: Literal["targets", "image"] = "targets"
    interpolation: Literal["linear", "cubic"] = "linear"
    fill_hu: float = -1024.0
    fill_mr: float = 0.0
    normalize: bool = False
    window: Window | None = None
    mapping: LabelMapping = LabelMapping()
    slices: SliceSettings | None = None

    def preparation(self, unit: IntensityUnit, labels: LabelTable) -> Preparation:
        """Return what every case of a dataset prepared like this has in common."""
        cut, spacing = self.slices, self.spacing_mm
        if cut is not None and cut.scale == "mm" and spacing is None:
            spacing = (FIELD_MM / cut.size,) * 2
        return Preparation(
            kind="volumes" if cut is None else cut.plane,
            axes="image" if cut is not None and cut.plane == "short-axis" else self.axes,
            shape=self.shape if cut is None else (cut.size, cut.size),
            spacing_mm=spacing,
            intensity_unit=unit,
            window=self.window if unit == "hu" else NORMALIZED if self.normalize else None,
            labels={label.name: label.code for label in labels},
        )

    def facts(self, unit: IntensityUnit, labels: LabelTable) -> dict[str, Any]:
        """Return what a dataset folder says of its making: the preparation, and a fingerprint of all settings."""
        made = self.preparation(unit, labels)
        # A set begun before there was the choice goes on.
        settings = self.model_dump(mode="json", exclude=None if self.normalize else {"normalize"})
        return {"preparation": made.recorded(), "prepare": fingerprint(settings)}
