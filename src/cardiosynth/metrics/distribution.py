"""How alike two sets of features are: pure functions of one row of features per image, whatever made them.

The Fréchet distance of few samples is far above zero even between halves of one set, and more so the more features
there are; the kernel distance has no such bias. Report the latter first, and the former only beside what real cases
have among themselves. Images of one case are not independent: ``groups`` say which case a row belongs to.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

ROWS_AT_ONCE = 512

Groups = Sequence[Hashable] | None


def frechet_distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """Return the Fréchet distance of two normal distributions fitted to features, 0 or more (FID, Heusel et al. 2017).

    ``|mu_x - mu_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2))``, the trace of the root being the sum of the singular values
    of ``C_x^(1/2) C_y^(1/2)``. With samples not many times the number of features it is biased upwards; compare it
    only between sets of equal sizes.

    Args:
        x: two rows at least.
        y: likewise.
    """
    assert min(len(x), len(y)) > 1, "a covariance needs two samples"
    shift = x.mean(0, dtype=np.float64) - y.mean(0, dtype=np.float64)
    of_x, of_y = (np.cov(features.astype(np.float64), rowvar=False).reshape(len(shift), -1) for features in (x, y))
    values, vectors = np.linalg.eigh(of_x)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ of_y @ root).clip(0)).sum()
    return max(float(shift @ shift + np.trace(of_x) + np.trace(of_y) - 2 * shared), 0.0)


@dataclass(frozen=True)
class KernelSums:
    """Sums of a kernel between all pairs of groups, from which the kernel distance and its bootstrap follow.

    Attributes:
        within_x: sum over the pairs of rows of every two groups of ``x``.
        within_y: likewise of ``y``.
        between: of a group of ``x`` and one of ``y``.
        sizes_x: rows per group of ``x``.
        sizes_y: likewise of ``y``.
    """

    within_x: Float[np.ndarray, "g g"]
    within_y: Float[np.ndarray, "h h"]
    between: Float[np.ndarray, "g h"]
    sizes_x: Float[np.ndarray, "g"]
    sizes_y: Float[np.ndarray, "h"]

    @property
    def distance(self) -> float:
        """The kernel distance; NaN where a set has fewer than two groups."""
        return float(self.distances(np.ones((1, len(self.sizes_x))), np.ones((1, len(self.sizes_y))))[0])

    def distances(
        self, weights_x: Float[np.ndarray, "draws g"], weights_y: Float[np.ndarray, "draws h"]
    ) -> Float[np.ndarray, "draws"]:
        """Return the kernel distances of weighted groups; NaN where fewer than two groups of a set have weight."""
        rows_x, rows_y = weights_x * self.sizes_x, weights_y * self.sizes_y
        total = -2 * ((weights_x @ self.between) * weights_y).sum(1) / (rows_x.sum(1) * rows_y.sum(1))
        for sums, weights, rows in ((self.within_x, weights_x, rows_x), (self.within_y, weights_y, rows_y)):
            pairs = rows.sum(1) ** 2 - (rows**2).sum(1)
            within = ((weights @ sums) * weights).sum(1) - weights**2 @ np.diag(sums)
            total += np.divide(within, pairs, out=np.full_like(within, np.nan), where=pairs > 0)
        return total


def kernel_distance(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], groups_x: Groups = None, groups_y: Groups = None
) -> float:
    """Return the unbiased squared maximum mean discrepancy with the kernel ``(x.y / d + 1)^3`` (KID, Binkowski 2018).

    It is 0 on average for two sets of one distribution, and then falls below 0 as often as above.

    Args:
        x: one row of features per image.
        y: likewise.
        groups_x: the case of each row of ``x``; pairs within one case are left out, since they are not independent
            (every row its own for None, which is the published estimate).
        groups_y: likewise of ``y``.

    Returns:
        The distance; NaN where a set has fewer than two groups.
    """
    return kernel_sums(x, y, groups_x, groups_y).distance


def kernel_distance_draws(sums: KernelSums, draws: int, rng: np.random.Generator) -> Float[np.ndarray, "draws"]:
    """Return the kernel distance of as many groups drawn anew with replacement, ``draws`` times; NaN where undefined.

    A group that is drawn twice is never paired with itself, so the draws lie around the distance itself.
    """
    num_x, num_y = len(sums.sizes_x), len(sums.sizes_y)
    weights = [rng.multinomial(count, np.full(count, 1 / count), draws).astype(np.float64) for count in (num_x, num_y)]
    return sums.distances(*weights)


def kernel_sums(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], groups_x: Groups = None, groups_y: Groups = None
) -> KernelSums:
    """Return the sums of the kernel between groups; see :func:`kernel_distance`."""
    of_x, of_y = _group_numbers(groups_x, len(x)), _group_numbers(groups_y, len(y))
    return KernelSums(
        _block_sums(x, x, of_x, of_x), _block_sums(y, y, of_y, of_y), _block_sums(x, y, of_x, of_y),
        np.bincount(of_x).astype(np.float64), np.bincount(of_y).astype(np.float64),
    )  # fmt: skip


def _group_numbers(groups: Groups, count: int) -> np.ndarray:
    names = range(count) if groups is None else groups
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    assert len(names) == count, "every row needs a group"
    return np.array([number[name] for name in names])


def _block_sums(x: np.ndarray, y: np.ndarray, of_x: np.ndarray, of_y: np.ndarray) -> np.ndarray:
    """Return the kernel summed over the rows of every group of ``x`` and every group of ``y``, some rows at a time."""
    sums = np.zeros((of_x.max() + 1, of_y.max() + 1))
    member = np.zeros((len(y), sums.shape[1]))
    member[np.arange(len(y)), of_y] = 1
    for start in range(0, len(x), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        kernel = (x[rows].astype(np.float64) @ y.astype(np.float64).T / x.shape[1] + 1) ** 3
        np.add.at(sums, of_x[rows], kernel @ member)
    return sums


@dataclass(frozen=True)
class Neighborhoods:
    """Fidelity and diversity apart.

    Attributes:
        precision: share of the synthetic rows within the reach of some real row (Kynkäänniemi et al. 2019).
        recall: share of the real rows within the reach of some synthetic row.
        density: how many real rows reach a synthetic one, over k; may exceed 1 (Naeem et al. 2020).
        coverage: share of the real rows that reach some synthetic row.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighborhoods(real: Float[np.ndarray, "n d"], synthetic: Float[np.ndarray, "m d"], k: int = 5) -> Neighborhoods:
    """Return precision, recall, density and coverage; a row reaches as far as its ``k``-th neighbor in its own set.

    Args:
        real: more than ``k`` rows.
        synthetic: likewise.
        k: 5 in Naeem et al.; precision and recall were published with 3.
    """
    assert min(len(real), len(synthetic)) > k, "a set must have more rows than neighbors are counted"
    distance = cdist(real, synthetic)
    reach_real, reach_synthetic = _reach(real, k), _reach(synthetic, k)
    reached = distance <= reach_real[:, None]
    return Neighborhoods(
        precision=float(reached.any(0).mean()),
        recall=float((distance <= reach_synthetic[None]).any(1).mean()),
        density=float(reached.sum(0).mean() / k),
        coverage=float(reached.any(1).mean()),
    )


def _reach(x: np.ndarray, k: int) -> np.ndarray:
    """Return the distance of every row to its ``k``-th nearest other row."""
    return np.partition(cdist(x, x), k, axis=1)[:, k]
