"""The one record: an image, what is known of it, and where it comes from. Every stage turns Cases into Cases."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT, LabelTable
from cardiosynth.core.volume import Grid

IntensityUnit = Literal["hu", "mr", "unknown"]
Origin = Literal["real", "phantom", "synthetic"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Case:
    """One volume or slice. Checked here, at the door; nothing downstream checks again.

    Attributes:
        case_id: its name in the dataset, letters, digits, ``.``, ``_`` and ``-``.
        image: (1, X, Y, Z) or (1, X, Y), int16 or float32, in ``intensity_unit``, RAS+ axis order; None for a mask
            that waits for its image.
        affine: (4, 4) voxel index to RAS+ millimeters.
        mask: (1, *grid) uint8 label codes, or None where there is no annotation.
        confidence: (1, *grid) float32 in [0, 1], higher is more reliable, or None where every voxel counts alike.
        labels: what the codes of ``mask`` mean.
        intensity_unit: ``hu`` (CT), ``mr`` (arbitrary, positive) or ``unknown``.
        spacing_known: False where the file did not carry a voxel size; whatever measures in mm asks for it.
        origin: ``real`` scan, procedural ``phantom`` or ``synthetic`` (made by a network).
        provenance: JSON-like facts on how the case came to be: parents, seed, parameters, licence, ...
    """

    case_id: str
    image: np.ndarray | None
    affine: np.ndarray
    mask: np.ndarray | None = None
    confidence: np.ndarray | None = None
    labels: LabelTable = CARDIAC_CT
    intensity_unit: IntensityUnit = "hu"
    spacing_known: bool = True
    origin: Origin = "real"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "affine", np.asarray(self.affine, np.float64))
        self._check_name()
        self._check_affine()
        if self.image is None and self.mask is None:
            raise InputError(f"case {self.case_id} has neither image nor mask.")
        if self.image is not None:
            self._check_image(self.image)
        if self.mask is not None:
            self._check_mask(self.mask)
        if self.confidence is not None:
            self._check_confidence(self.confidence)

    @property
    def grid(self) -> Grid:
        """Shape and affine."""
        array = self.image if self.image is not None else self.required_mask()
        return Grid(array.shape[1:], self.affine)

    @property
    def spacing_mm(self) -> tuple[float, ...] | None:
        """Voxel size per axis, None where it is not known."""
        return self.grid.spacing_mm if self.spacing_known else None

    @property
    def is_simulated(self) -> bool:
        """Whether no scanner made this image, so that it must be marked SYNTHETIC wherever it goes."""
        return self.origin != "real"

    def required_image(self) -> np.ndarray:
        """Return the image.

        Raises:
            InputError: the case has none.
        """
        if self.image is None:
            raise InputError(f"case {self.case_id} has no image; add imagesTr/{self.case_id}_0000.nii.gz.")
        return self.image

    def required_mask(self) -> np.ndarray:
        """Return the mask.

        Raises:
            InputError: the case has none.
        """
        if self.mask is None:
            raise InputError(f"case {self.case_id} has no mask; add labelsTr/{self.case_id}.nii.gz.")
        return self.mask

    def with_(self, **changes: Any) -> "Case":
        """Return a copy with some fields replaced, checked again."""
        return replace(self, **changes)

    def _check_name(self) -> None:
        if not self.case_id or not all(c.isalnum() or c in "._-" for c in self.case_id):
            raise InputError(f"'{self.case_id}' cannot name a case; use letters, digits, '.', '_' and '-'.")

    def _check_affine(self) -> None:
        affine = self.affine
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise InputError(f"case {self.case_id}: the affine is not a finite 4x4 matrix; mend the header.")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise InputError(f"case {self.case_id}: the affine is singular (a zero voxel size); mend the header.")

    def _check_image(self, image: np.ndarray) -> None:
        if image.ndim not in (3, 4) or image.shape[0] != 1 or 0 in image.shape:
            raise InputError(f"case {self.case_id}: the image has shape {image.shape}; give (1, X, Y[, Z]).")
        if image.dtype not in (np.int16, np.float32):
            raise InputError(f"case {self.case_id}: the image is {image.dtype}; give int16 or float32.")
        if image.dtype == np.float32 and not np.isfinite(image).all():
            bad = int((~np.isfinite(image)).sum())
            raise InputError(f"case {self.case_id}: {bad} voxels are not finite; replace NaN and infinity first.")

    def _check_mask(self, mask: np.ndarray) -> None:
        if self.image is not None and mask.shape != self.image.shape:
            raise InputError(
                f"case {self.case_id}: image {self.image.shape[1:]} and mask {mask.shape[1:]} have different "
                "grids; resample one onto the other."
            )
        if mask.ndim not in (3, 4) or mask.shape[0] != 1 or 0 in mask.shape:
            raise InputError(f"case {self.case_id}: the mask has shape {mask.shape}; give (1, X, Y[, Z]).")
        if mask.dtype != np.uint8:
            raise InputError(f"case {self.case_id}: the mask is {mask.dtype}; give uint8 codes.")
        unknown = sorted(set(np.unique(mask).tolist()) - {0, *self.labels.codes})
        if unknown:
            raise InputError(
                f"case {self.case_id}: the mask holds {', '.join(map(str, unknown))}, which the label table does "
                "not name; add the structure to the table or remove it from the mask."
            )

    def _check_confidence(self, confidence: np.ndarray) -> None:
        if confidence.shape != (1, *self.grid.shape) or confidence.dtype != np.float32:
            raise InputError(f"case {self.case_id}: the confidence map must be float32 on the image's grid.")
        if not (confidence.min() >= 0 and confidence.max() <= 1):
            raise InputError(f"case {self.case_id}: the confidence map leaves [0, 1].")
