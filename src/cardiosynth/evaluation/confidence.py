"""How well confidence maps tell where a synthetic image is wrong, region by region; numbers only, no words."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from cardiosynth.core.case import Case
from cardiosynth.metrics.overlap import dilated
from cardiosynth.metrics.uncertainty import auroc, partial_spearman, sparsification_error, spearman

MARGIN_MM = 5.0
HEART, EVERYWHERE = "heart", "everywhere"
STRIDE = 2
"""In the two large regions voxels are taken along each axis in steps of this size: an eighth tells the order too."""


@dataclass(frozen=True)
class Truth:
    """What is wrong with one synthetic image.

    Attributes:
        error_hu: distance from the real image of the same mask and acquisition, in the images' unit.
        wrong: voxels where a segmenter that learned from other, real cases disagrees with the mask.
        control: what a map must beat, such as the gradient's magnitude; of any scale, higher is less certain.
    """

    error_hu: Float[np.ndarray, "1 *grid"]
    wrong: Bool[np.ndarray, "1 *grid"]
    control: Float[np.ndarray, "1 *grid"]


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How well uncertainty ranks the errors in one region; NaN where there is nothing to rank.

    Attributes:
        spearman: with the error in intensity, in [-1, 1].
        partial: the same given the control.
        sparsification: area between the sparsification curves of the map and of the error in intensity; 0 is perfect.
        auroc: wrong labels against right ones, 0.5 by chance.
        sparsification_labels: as ``sparsification``, for wrong labels.
    """

    spearman: float
    partial: float
    sparsification: float
    auroc: float
    sparsification_labels: float


def rank_errors(
    uncertainty: Float[np.ndarray, "1 *grid"], truth: Truth, regions: Mapping[str, Bool[np.ndarray, "*grid"]]
) -> dict[str, Ranking]:
    """Return how well a map ranks the errors, by region.

    Args:
        uncertainty: of any scale, higher is less certain: 1 - confidence.
        truth: on the same grid.
        regions: from :func:`regions_of`.
    """
    found = {}
    for name, inside in regions.items():
        doubt, error, control = (array[0][inside] for array in (uncertainty, truth.error_hu, truth.control))
        wrong = truth.wrong[0][inside]
        found[name] = Ranking(
            spearman=spearman(doubt, error), partial=partial_spearman(doubt, error, control),
            sparsification=sparsification_error(doubt, error), auroc=auroc(doubt, wrong),
            sparsification_labels=sparsification_error(doubt, wrong),
        )  # fmt: skip
    return found


def regions_of(case: Case, margin_mm: float = MARGIN_MM) -> dict[str, Bool[np.ndarray, "*grid"]]:
    """Return the regions in which maps are judged: heart, everywhere, and every target structure that there is.

    Args:
        case: with its mask and a known voxel size.
        margin_mm: by which the target structures are widened to be called heart.
    """
    assert case.spacing_mm is not None, f"case {case.case_id}: a margin in mm needs the voxel size"
    mask = case.required_mask()[0]
    targets = case.labels.only_targets(mask)
    lattice = np.zeros(mask.shape, bool)
    lattice[(slice(None, None, STRIDE),) * mask.ndim] = True
    structures = {label.name: mask == label.code for label in case.labels.targets if (mask == label.code).any()}
    return {HEART: dilated(targets, margin_mm, case.spacing_mm) & lattice, EVERYWHERE: lattice, **structures}


def gradient_magnitude(image: Float[np.ndarray, "1 *grid"], box: int) -> Float[np.ndarray, "1 *grid"]:
    """Return the magnitude of the central differences, averaged over a cube of ``box`` voxels: the trivial map."""
    parts = np.gradient(image[0].astype(np.float32))
    return ndimage.uniform_filter(np.sqrt(sum(part**2 for part in parts)), box, mode="nearest")[None]


def border_nearness(case: Case) -> Float[np.ndarray, "1 *grid"]:
    """Return minus the distance in mm to the nearest voxel of another structure: what the mask alone tells.

    Borders are where segmenters disagree, whatever the image shows; no generation is needed to know that.
    """
    targets = case.labels.only_targets(case.required_mask()[0])
    nearness = np.full(targets.shape, -np.inf, np.float32)
    for code in np.unique(targets):
        inside = targets == code
        distance_mm = ndimage.distance_transform_edt(inside, sampling=case.spacing_mm)
        nearness[inside] = -np.asarray(distance_mm)[inside]
    return nearness[None]
