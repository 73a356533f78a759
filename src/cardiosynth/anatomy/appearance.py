"""Changes of how a scan looks that leave its anatomy alone: contrast of the blood, kernel, noise.

A template helps only where it shares something with its target. Where no two scans of a data set share an acquisition,
both images of a training pair are given the same change: what the template then shows of contrast, sharpness and noise
is true of the target, and the network learns to take it from there. (Beyond the paper.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydantic
from jaxtyping import Float, UInt8
from scipy import ndimage

from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import rounded_image
from cardiosynth.core.labels import LabelTable, normalized_name
from cardiosynth.core.random import numpy_generator

UNENHANCED_BLOOD_HU = 45.0
"""Blood without contrast agent. Iodine adds to it, so that more or less of it is a gain on what lies above."""

AIR_HU = -1024.0
"""What a CT scanner stores at least."""

LEFT_HEART = (
    "left_atrium", "left_ventricle", "ascending_aorta", "aorta", "descending_aorta",
    "coronary_artery", "coronary_arteries", "coronaries",
)  # fmt: skip
RIGHT_HEART = ("right_atrium", "right_ventricle", "pulmonary_artery")


class AppearanceSettings(Settings):
    """In how many looks every training case is encoded, and how far they may lie from the scan.

    Intensities are HU. Images without HU have a range of their own: there, one unit is a thousandth of the range
    between the image's 0.5th and 99.5th percentile, and unenhanced blood is the darker of the two.

    Attributes:
        variants: looks beside the scan's own; each is encoded once and kept on disk with its images. Published 0.
        seed: looks are a function of it and their number.
        gain: range of the factor on the blood's contrast, which lies above unenhanced blood.
        shift_hu: range of what is added to the blood.
        noise_hu: range of the standard deviation of the noise that is added everywhere.
        kernel_mm: range of the kernel: above 0 a Gaussian of this standard deviation smooths; below 0 the image is
            sharpened by what such a Gaussian takes away. Noise goes through the same kernel.
        border_mm: standard deviation of the transition at the border of the blood.
        blood_pools: structures that contrast reaches together, side by side; a gain and a shift is drawn for each
            group. Names that the label table lacks are passed over.
    """

    variants: int = pydantic.Field(default=0, ge=0)
    seed: int = 0
    gain: tuple[float, float] = (0.6, 1.3)
    shift_hu: tuple[float, float] = (-40.0, 40.0)
    noise_hu: tuple[float, float] = (0.0, 30.0)
    kernel_mm: tuple[float, float] = (-0.7, 0.9)
    border_mm: float = pydantic.Field(default=0.5, ge=0)
    blood_pools: tuple[tuple[str, ...], ...] = (LEFT_HEART, RIGHT_HEART)

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> "AppearanceSettings":
        for name in ("gain", "shift_hu", "noise_hu", "kernel_mm"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must be a range, low first")
        if self.gain[0] <= 0 or self.noise_hu[0] < 0:
            raise ValueError("gain must be above 0 and noise_hu not below 0")
        return self


@dataclass(frozen=True)
class Contrast:
    """What happens to the blood of one group of structures.

    Attributes:
        structures: names.
        gain: on what lies above unenhanced blood.
        shift_hu: added.
    """

    structures: tuple[str, ...]
    gain: float
    shift_hu: float


@dataclass(frozen=True)
class Appearance:
    """One look.

    Attributes:
        variant: its number, from 1.
        seed: with number and case, what its noise is a function of.
        contrast: of each group of blood pools.
        noise_hu: standard deviation of the noise.
        kernel_mm: above 0 smooths, below 0 sharpens.
        border_mm: of the blood.
    """

    variant: int
    seed: int
    contrast: tuple[Contrast, ...]
    noise_hu: float
    kernel_mm: float
    border_mm: float

    def facts(self) -> dict[str, Any]:
        """Return everything as JSON-like values."""
        groups = [{**vars(group), "structures": list(group.structures)} for group in self.contrast]
        return {**vars(self), "contrast": groups}


def appearances(settings: AppearanceSettings) -> tuple[Appearance, ...]:
    """Return the looks, each a function of the seed and its number."""
    return tuple(_drawn(settings, variant) for variant in range(1, settings.variants + 1))


def check_blood_pools(settings: AppearanceSettings, labels: LabelTable) -> None:
    """See that there is blood to change.

    Raises:
        InputError: the label table has none of the structures.
    """
    wanted = [normalized_name(name) for group in settings.blood_pools for name in group]
    names = [label.name for label in labels]
    if settings.variants and not set(wanted) & set(names):
        raise InputError(
            "control.appearance.blood_pools names no structure of the label table; name those that hold blood, e.g. "
            f"[[{names[0]}]], out of: {', '.join(names)}."
        )


def changed(case: Case, look: Appearance) -> Case:
    """Return a case with another look: contrast, then kernel, then noise; a function of case and look alone.

    Args:
        case: with image and mask.
        look: what to change.

    Raises:
        InputError: an image or a mask is missing, or a kernel is asked for where the voxel size is not known.
    """
    if look.kernel_mm and not case.spacing_known:
        raise InputError(
            f"case {case.case_id} has no known voxel size and control.appearance.kernel_mm is in mm; prepare the case "
            "with --spacing-mm, or set it to [0, 0]."
        )
    image, spacing_mm = case.required_image().astype(np.float32), case.grid.spacing_mm
    unit, dark = _scale(case)
    offset = _contrast_change(image[0], case.required_mask()[0], case.labels, look, (unit, dark))
    image[0] += ndimage.gaussian_filter(offset, [look.border_mm / mm for mm in spacing_mm])
    image[0] = through_kernel(image[0], look.kernel_mm, spacing_mm)
    rng = numpy_generator(look.seed, "appearance noise", look.variant, case.case_id)
    noise = through_kernel(rng.standard_normal(image[0].shape, dtype=np.float32), look.kernel_mm, spacing_mm)
    image[0] += noise * np.float32(look.noise_hu * unit / noise.std())
    return case.with_(image=_stored(image, case), provenance={**case.provenance, "appearance": look.facts()})


def through_kernel(
    image: Float[np.ndarray, "*grid"], kernel_mm: float, spacing_mm: Sequence[float]
) -> Float[np.ndarray, "*grid"]:
    """Return an image smoothed by a Gaussian (above 0) or sharpened by what it takes away (below 0); means stay."""
    if kernel_mm == 0:
        return image
    smooth = ndimage.gaussian_filter(image, [abs(kernel_mm) / mm for mm in spacing_mm])
    return smooth if kernel_mm > 0 else 2 * image - smooth


def _drawn(settings: AppearanceSettings, variant: int) -> Appearance:
    rng = numpy_generator(settings.seed, "appearance", variant)
    noise_hu, kernel_mm = float(rng.uniform(*settings.noise_hu)), float(rng.uniform(*settings.kernel_mm))
    contrast = tuple(
        Contrast(
            tuple(normalized_name(name) for name in group),
            float(rng.uniform(*settings.gain)),
            float(rng.uniform(*settings.shift_hu)),
        )
        for group in settings.blood_pools
    )
    return Appearance(variant, settings.seed, contrast, noise_hu, kernel_mm, settings.border_mm)


def _contrast_change(
    image: Float[np.ndarray, "*grid"],
    mask: UInt8[np.ndarray, "*grid"],
    labels: LabelTable,
    look: Appearance,
    scale: tuple[float, float],
) -> Float[np.ndarray, "*grid"]:
    """Return what is added to each structure: the same everywhere, so that its texture and noise stay."""
    (unit, dark), table, codes = scale, np.zeros(256, np.float32), {label.name: label.code for label in labels}
    counts = np.bincount(mask.ravel(), minlength=256)
    sums = np.bincount(mask.ravel(), image.ravel(), minlength=256)
    for group in look.contrast:
        for code in (codes[name] for name in group.structures if name in codes):
            if counts[code]:
                table[code] = (group.gain - 1) * (sums[code] / counts[code] - dark) + group.shift_hu * unit
    return table[mask]


def _scale(case: Case) -> tuple[float, float]:
    """Return what one unit of the settings is in this image, and unenhanced blood."""
    if case.intensity_unit == "hu":
        return 1.0, UNENHANCED_BLOOD_HU
    low, high = (float(v) for v in np.percentile(case.required_image(), (0.5, 99.5)))
    return (high - low) / 1000, low


def _stored(image: np.ndarray, case: Case) -> np.ndarray:
    before = case.required_image()
    if case.intensity_unit == "hu":
        image = image.clip(min(AIR_HU, float(before.min())))
    return rounded_image(image) if before.dtype == np.int16 else image
