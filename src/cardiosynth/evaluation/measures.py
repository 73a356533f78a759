"""What is measured on one case, and on one image beside another; numbers only, no words.

NaN is 'nothing to measure': the structure is absent, there is no image, no confidence map or no known voxel size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from scipy import ndimage

from cardiosynth.core.case import Case
from cardiosynth.core.intensity import Window
from cardiosynth.core.labels import Label
from cardiosynth.evaluation.lpips import Lpips, slice_lpips
from cardiosynth.metrics.fidelity import (
    contrast_kept,
    mean_hu_error,
    psnr,
    rmse,
    slice_step,
    ssim_map,
    structure_contrast,
)
from cardiosynth.metrics.multiscale import ms_ssim
from cardiosynth.metrics.topology import betti_numbers, components
from cardiosynth.metrics.uncertainty import sparsification_curve

NAN = float("nan")
BY_CONFIDENCE, BY_ERROR = "confidence map", "the error itself: no map is better"
KEPT_SHARES = tuple(i / 20 for i in range(1, 21))
"""Of the heart's voxels, at which sparsification curves are kept."""


@dataclass(frozen=True, kw_only=True)
class StructureMeasures:
    """One structure of one case.

    Attributes:
        mean: mean intensity inside, in the case's unit.
        sd: standard deviation of the intensity inside.
        contrast: ``mean`` minus that of the shell of 2 voxels around it; targets only.
        pieces: number of connected pieces.
        largest: share of the largest piece, in (0, 1].
        tunnels: number of tunnels through it (Betti number 1); targets of volumes only.
        cavities: number of cavities that it encloses, in a slice of holes; targets only.
        volume_ml: in mL.
        confidence: mean confidence inside, in [0, 1].
    """

    mean: float = NAN
    sd: float = NAN
    contrast: float = NAN
    pieces: int
    largest: float
    tunnels: float = NAN
    cavities: float = NAN
    volume_ml: float = NAN
    confidence: float = NAN


@dataclass(frozen=True)
class CaseMeasures:
    """One case.

    Attributes:
        case_id: its name.
        structures: those it has, by name.
        confidence_inside: mean confidence inside the targets.
        confidence_outside: mean confidence outside.
        steps: by axis of the image, the mean absolute difference of neighboring slices, in the case's unit.
    """

    case_id: str
    structures: dict[str, StructureMeasures]
    confidence_inside: float = NAN
    confidence_outside: float = NAN
    steps: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PairMeasures:
    """An image beside the real image of the same mask.

    Attributes:
        ssim: in [0, 1] units of the window, whole image.
        ssim_heart: mean of the SSIM map in the heart.
        ms_ssim: in [0, 1] units of the window, whole image, with as many scales as fit.
        psnr_db: dB, data range 1.
        rmse: in the case's unit (HU), as stored.
        rmse_model: in [0, 1] units of the window.
        error: by structure, mean inside minus the real one's mean.
        kept: by target, contrast over the real one's contrast.
        lpips: over the slices of all planes, in [0, 1] units of the window; NaN without its weights.
        sparsification: from :func:`measure_sparsification`; empty without a confidence map.
    """

    ssim: float
    ssim_heart: float
    ms_ssim: float
    psnr_db: float
    rmse: float
    rmse_model: float
    error: dict[str, float]
    kept: dict[str, float]
    lpips: float = NAN
    sparsification: dict[str, tuple[float, ...]] = field(default_factory=dict)


def measure_case(case: Case, names: Sequence[str]) -> CaseMeasures:
    """Measure the structures called ``names`` that this case has: none where it has no mask."""
    present = set() if case.mask is None else set(np.unique(case.mask).tolist())
    labels = [label for label in case.labels if label.name in names and label.code in present]
    structures = {label.name: _measure_structure(case, label) for label in labels}
    image = case.image
    steps = () if image is None else tuple(slice_step(image[0], axis) for axis in range(image.ndim - 1))
    if case.confidence is None or case.mask is None:
        return CaseMeasures(case.case_id, structures, steps=steps)
    target = np.isin(case.mask, case.labels.target_codes)
    inside, outside = _mean(case.confidence[target]), _mean(case.confidence[~target])
    return CaseMeasures(case.case_id, structures, inside, outside, steps)


def measure_pair(
    real: Case,
    image: Shaped[np.ndarray, "1 *grid"],
    window: Window,
    labels: Sequence[Label],
    lpips: Lpips | None = None,
) -> PairMeasures:
    """Measure ``image`` against the image of ``real``, whose mask both share.

    Args:
        real: the real case, with image and mask.
        image: the other image on the same grid, in the same unit.
        window: what becomes [0, 1] for SSIM, PSNR and ``rmse_model``; values outside are clipped.
        labels: the structures looked at, of the table of ``real``.
        lpips: with its weights, where there are any.
    """
    truth, mask = real.required_image()[0], real.required_mask()[0]
    x, y = (window.to_model(array.astype(np.float32)) for array in (image[0], truth))
    local, inside = ssim_map(x, y, 1.0), heart(real)
    targets = [label for label in labels if label.role == "target"]
    return PairMeasures(
        ssim=_mean(local), ssim_heart=_mean(local[inside]), ms_ssim=ms_ssim(x, y, 1.0),
        psnr_db=psnr(x, y, 1.0), rmse=rmse(image[0], truth), rmse_model=rmse(x, y),
        error=mean_hu_error(image[0], truth, mask, labels), kept=contrast_kept(image[0], truth, mask, targets),
        lpips=NAN if lpips is None else slice_lpips(lpips, x, y),
    )  # fmt: skip


def measure_sparsification(real: Case, made: Case) -> dict[str, tuple[float, ...]]:
    """Return the mean error of the most confident voxels of the heart over that of all, by what orders the voxels.

    One value per share of ``KEPT_SHARES``: ordered by the confidence map, and by the error itself, which no map beats.
    Empty where the synthetic case has no confidence map or its images are equal there.
    """
    if made.confidence is None:
        return {}
    inside = heart(real)
    error = np.abs(made.required_image()[0].astype(np.float32) - real.required_image()[0])[inside]
    if not error.any():
        return {}
    orders = {BY_CONFIDENCE: -made.confidence[0][inside], BY_ERROR: error}
    last = [max(int(np.ceil(share * error.size)), 1) - 1 for share in KEPT_SHARES]
    curves = {name: sparsification_curve(order, error)[last] for name, order in orders.items()}
    return {name: tuple(float(value) for value in curve) for name, curve in curves.items()}


def shared_targets(case: Case, other: Case) -> tuple[UInt8[np.ndarray, "1 *grid"], UInt8[np.ndarray, "1 *grid"]]:
    """Return both masks with nothing but the target structures that both tables name, numbered alike."""
    names = [label.name for label in case.labels.targets if label.name in {x.name for x in other.labels.targets}]
    masks = []
    for each in (case, other):
        number = np.zeros(256, np.uint8)
        for index, name in enumerate(names, start=1):
            number[each.labels.named(name).code] = index
        masks.append(number[each.required_mask()])
    return masks[0], masks[1]


def heart(case: Case) -> Bool[np.ndarray, "*grid"]:
    """Return the region called heart: the target structures, one voxel wider."""
    inside = case.labels.only_targets(case.required_mask()[0]) > 0
    return ndimage.binary_dilation(inside, np.ones((3,) * inside.ndim))


def _measure_structure(case: Case, label: Label) -> StructureMeasures:
    mask = case.required_mask()[0]
    inside = mask == label.code
    sizes = components(inside).sizes
    mean = sd = contrast = NAN
    if case.image is not None:
        values = case.image[0][inside].astype(np.float64)
        mean, sd = float(values.mean()), float(values.std())
        contrast = structure_contrast(case.image[0], mask, label.code) if label.role == "target" else NAN
    return StructureMeasures(
        mean=mean, sd=sd, contrast=contrast, pieces=len(sizes), largest=float(sizes[0] / sizes.sum()),
        **(_openings(inside) if label.role == "target" else {}), volume_ml=_volume_ml(case, int(sizes.sum())),
        confidence=NAN if case.confidence is None else _mean(case.confidence[0][inside]),
    )  # fmt: skip


def _openings(inside: Bool[np.ndarray, "*grid"]) -> dict[str, float]:
    """Return the Betti numbers but the first, by what they count; ``inside`` is not empty."""
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    _, *tunnels, cavities = betti_numbers(inside[box])
    return {"tunnels": float(tunnels[0]) if tunnels else NAN, "cavities": float(cavities)}


def _volume_ml(case: Case, voxels: int) -> float:
    """Return the volume in mL; NaN for a slice, or where the voxel size is not known."""
    if case.spacing_mm is None or len(case.spacing_mm) != 3:
        return NAN
    return voxels * float(np.prod(case.spacing_mm)) / 1000


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else NAN
