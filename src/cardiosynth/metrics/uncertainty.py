"""How well a map of uncertainty tells where the errors are: its order matters, its scale does not.

Every function takes values of the same voxels, in any order and unit. Equal values share a rank; where there is nothing
to rank - values that are all the same, errors of one kind - the answer is NaN.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Shaped

Values = Shaped[np.ndarray, "*voxels"]


def ranks(values: Values) -> Float[np.ndarray, "n"]:
    """Return the rank of every value, 1 to n; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place.ravel()]


def spearman(x: Values, y: Values) -> float:
    """Return Spearman's rank correlation of two maps, in [-1, 1]."""
    return _correlation(ranks(x), ranks(y))


def partial_spearman(x: Values, y: Values, control: Values) -> float:
    """Return the rank correlation of ``x`` and ``y`` that ``control`` does not explain, in [-1, 1].

    From the three rank correlations: ``(r_xy - r_xc r_yc) / sqrt((1 - r_xc^2) (1 - r_yc^2))``. NaN also where the
    control has the order of ``x`` or of ``y``: nothing is left to explain.
    """
    a, b, c = ranks(x), ranks(y), ranks(control)
    xy, xc, yc = _correlation(a, b), _correlation(a, c), _correlation(b, c)
    left = (1 - xc**2) * (1 - yc**2)
    return (xy - xc * yc) / math.sqrt(left) if left > 1e-12 else math.nan


def auroc(score: Values, positive: Bool[np.ndarray, "*voxels"]) -> float:
    """Return the area under the ROC curve: how often a positive voxel scores above another, equals counting half."""
    inside = positive.ravel()
    hits, misses = int(inside.sum()), int((~inside).sum())
    if not hits or not misses:
        return math.nan
    return float((ranks(score)[inside].sum() - hits * (hits + 1) / 2) / (hits * misses))


def sparsification_curve(uncertainty: Values, error: Values) -> Float[np.ndarray, "n"]:
    """Return the mean error of the 1, 2, ... n least uncertain voxels over that of all n (Ilg et al. 2018).

    Equally uncertain voxels come in no order: each stands for the mean of theirs, so a constant map gives 1 throughout.

    Args:
        uncertainty: what the voxels are ordered by.
        error: 0 or more; a wrong label is 1.
    """
    errors = error.ravel().astype(np.float64)
    _, place, counts = np.unique(uncertainty.ravel(), return_inverse=True, return_counts=True)
    of_equals = np.bincount(place.ravel(), errors) / counts
    mean = errors.mean()
    with np.errstate(invalid="ignore"):
        return np.cumsum(np.repeat(of_equals, counts)) / np.arange(1, len(errors) + 1) / mean


def sparsification_error(uncertainty: Values, error: Values) -> float:
    """Return the area between the sparsification curves of a map and of the error itself (AUSE), 0 or more.

    0 is a map with the error's own order. Areas are in shares of all voxels times the mean error of all, so that cases
    and kinds of error can be compared. NaN where there is no error at all.
    """
    if not error.any():
        return math.nan
    return float((sparsification_curve(uncertainty, error) - sparsification_curve(error, error)).mean())


def _correlation(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"]) -> float:
    x, y = x - x.mean(), y - y.mean()
    spread = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / spread if spread else math.nan
