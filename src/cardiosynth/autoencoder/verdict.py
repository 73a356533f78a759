"""What an autoencoder keeps: measured on whole cases, in image units, before anything is trained on its latents.

Thin vessels that the autoencoder loses never come back, so this is the ceiling of all that follows.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jaxtyping import Shaped
from scipy import ndimage

from cardiosynth.core.case import Case
from cardiosynth.core.intensity import Window
from cardiosynth.metrics.fidelity import contrast_kept, mean_hu_error, psnr, structure_psnr

Reconstruct = Callable[[Case], np.ndarray]
"""case -> its image after encoding and decoding, (1, *grid), in the case's unit."""


PER_STRUCTURE = ("psnr_structure_db", "hu_bias", "contrast_kept")


def verdict(reconstruct: Reconstruct, window_of: Callable[[Case], Window], cases: Iterable[Case]) -> dict[str, Any]:
    """Return what is left of ``cases`` after the autoencoder, averaged over them.

    The image is compared inside the intensity window, which the autoencoder cannot leave.

    Args:
        reconstruct: the autoencoder, from case to image.
        window_of: the intensity window of a case.
        cases: with images; masks are used where there are any.

    Returns:
        JSON-like: ``cases`` (names), ``psnr_db``, ``psnr_heart_db`` (target structures widened by one voxel),
        ``psnr_structure_db``, ``hu_bias`` and ``contrast_kept`` (each name -> mean over the cases where the structure
        shows). What no case can tell is None. For MR the bias is in the scan's own unit.
    """
    rows = [_judge(case, reconstruct(case), window_of(case)) for case in cases]
    names = {name: None for row in rows for name in row["hu_bias"]}
    return {
        "cases": [row["case"] for row in rows],
        "psnr_db": _mean(row["psnr_db"] for row in rows),
        "psnr_heart_db": _mean(row["psnr_heart_db"] for row in rows),
        **{key: {name: _mean(row[key].get(name) for row in rows) for name in names} for key in PER_STRUCTURE},
    }


def _judge(case: Case, reconstructed: Shaped[np.ndarray, "1 *grid"], window: Window) -> dict[str, Any]:
    original = np.clip(case.required_image()[0].astype(np.float32), window.low, window.high)
    image = np.clip(reconstructed[0], window.low, window.high)
    row = {"case": case.case_id, "psnr_db": psnr(image, original, window.width), "psnr_heart_db": None}
    if case.mask is None:
        return {**row, **{key: {} for key in PER_STRUCTURE}}
    mask = case.mask[0]
    heart = ndimage.binary_dilation(case.labels.only_targets(mask) > 0, np.ones((3,) * mask.ndim))
    if heart.any():
        row["psnr_heart_db"] = psnr(image[heart], original[heart], window.width)
    return {
        **row,
        "psnr_structure_db": structure_psnr(image, original, mask, case.labels.targets, window.width),
        "hu_bias": mean_hu_error(image, original, mask, case.labels.targets),
        "contrast_kept": contrast_kept(image, original, mask, case.labels.targets),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else None
