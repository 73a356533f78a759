"""How far a number can be trusted: intervals over training seeds and cases."""

from collections.abc import Hashable, Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from cardiosynth.core.random import numpy_generator

DRAWS = 2000
LEVEL = 0.95
BEYOND_CHANCE = "Wilcoxon's signed-rank test over cases, p < 0.05 after Holm for all pairs of arms and all rows"
"""How :func:`best_beyond_chance` decides, in words."""


class Interval(NamedTuple):
    """A number and the ends of its interval, in the number's unit; NaN where nothing is known."""

    value: float
    low: float
    high: float


def mean_of(values: Iterable[float | None]) -> float:
    """Return the mean of what is known (None and NaN are not); NaN where nothing is."""
    known = [value for value in values if value is not None and not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def mean_over_seeds(values: Float[np.ndarray, "seeds cases"]) -> Float[np.ndarray, "cases"]:
    """Return every case's mean over the seeds for which it is known; NaN where it is for none."""
    return np.array([mean_of(of_case) for of_case in values.T], np.float64)


def mean_interval(
    values: Float[np.ndarray, "seeds cases"], groups: Sequence[Hashable] | None = None, seed: int = 0
) -> Interval:
    """Return the mean of what is known (NaN is not) with its bootstrap interval; see :func:`ratio_interval`."""
    known = ~np.isnan(values)
    return ratio_interval(np.where(known, values, 0.0), known.astype(np.float64), groups, seed)


def ratio_interval(
    numerators: Float[np.ndarray, "seeds cases"],
    denominators: Float[np.ndarray, "seeds cases"],
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Interval:
    """Return the ratio of two sums with its 95 % percentile bootstrap interval (Efron 1979) over seeds and cases.

    Every draw takes as many seeds as there are, with replacement, and as many groups of cases, with replacement: the
    same cases were measured under every seed, so both are drawn independently. With few seeds or groups the interval is
    too narrow rather than too wide.

    Args:
        numerators: one row per training seed, one column per case, in the same order everywhere.
        denominators: likewise.
        groups: what each case belongs to (its protocol, its patient): cases of a group are not independent and are
            drawn together. By default every case is its own group.
        seed: of the draws.
    """
    num_seeds, num_cases = numerators.shape
    assert min(num_seeds, num_cases) > 0, "an interval needs a seed and a case"
    names = list(range(num_cases)) if groups is None else list(groups)
    assert len(names) == num_cases, "every case needs a group"
    order = list(dict.fromkeys(names))
    member = np.array([[name == other for other in names] for name in order], np.float64)
    rng = numpy_generator(seed, "bootstrap")
    rows = rng.multinomial(num_seeds, [1 / num_seeds] * num_seeds, DRAWS)
    columns = rng.multinomial(len(order), [1 / len(order)] * len(order), DRAWS) @ member
    above, below = (((rows @ sums) * columns).sum(1) for sums in (numerators, denominators))
    # A draw can miss every case that holds a rare structure.
    found = above[below > 0] / below[below > 0]
    if not found.size:
        return Interval(float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(numerators.sum() / denominators.sum()), float(low), float(high))


def paired_p_value(differences: Float[np.ndarray, "seeds cases"]) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test (1945) that cases differ alike in both directions.

    A case counts once, with the mean of its differences over the seeds for which it is known: seeds are no patients.
    1 where nothing differs, NaN where nothing is known.

    Args:
        differences: of two arms, one row per training seed, one column per case; cases are independent.
    """
    from scipy.stats import wilcoxon

    known = differences[:, (~np.isnan(differences)).any(0)]
    if not known.size:
        return float("nan")
    by_case = np.nanmean(known, axis=0)
    return float(np.asarray(wilcoxon(by_case))[1]) if by_case.any() else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that hold for all tests of the family together (Holm 1979); NaN is no test and stays.

    The smallest of m is multiplied by m, the next by m - 1, and so on, and none is smaller than the one before.
    """
    adjusted, largest = list(p_values), 0.0
    order = sorted((i for i, p in enumerate(p_values) if not np.isnan(p)), key=lambda i: p_values[i])
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def best_beyond_chance(rows: Sequence[Float[np.ndarray, "arms cases"]]) -> list[int | None]:
    """Return for every row which arm is better than each other one beyond chance; None where no arm is.

    Every pair of arms is tested in every row, and all tests are one family.

    Args:
        rows: values of which higher is better, NaN for unknown; the cases of a row are the same for all its arms.
    """
    pairs = [(row, i, j) for row, values in enumerate(rows) for i, j in combinations(range(len(values)), 2)]
    apart = [rows[row][i] - rows[row][j] for row, i, j in pairs]
    p_values = holm([paired_p_value(values[None]) for values in apart])
    wins = [[0] * len(values) for values in rows]
    for (row, i, j), values, p in zip(pairs, apart, p_values, strict=True):
        if p < 1 - LEVEL:
            wins[row][i if np.nanmean(values) > 0 else j] += 1
    return [next((arm for arm, won in enumerate(each) if won == len(each) - 1 > 0), None) for each in wins]


def mean_ranks(criteria: Sequence[Float[np.ndarray, "methods _"]], seed: int = 0) -> list[Interval]:
    """Return the mean rank of every method over all criteria, 1 being the best, with its bootstrap interval over cases.

    Within a criterion methods are ranked by their means over the cases, equals sharing the mean of their ranks, and all
    criteria count alike. A method that a criterion says nothing of (an unconditional one of fidelity to masks) is not
    ranked there, and its mean is over the others: tell beside the rank how many those are.

    A table of several methods builds one array per column: ``mean_ranks([ssim, -rmse, -distance])``, each of the same
    methods in the same order.

    Args:
        criteria: values of which higher is better (turn the sign of others), NaN for unknown. Criteria of equally many
            cases are of the same cases, which are drawn together. A number of a whole set (KID) is one case: it is
            ranked, and its own uncertainty is not in the interval.
        seed: of the draws.

    Returns:
        One interval per method, in their order; NaN for a method that no criterion ranks.
    """
    assert len({len(values) for values in criteria}) == 1, "every criterion needs the same methods"
    rng, ranks, drawn = numpy_generator(seed, "ranks"), [], {}
    for count in {values.shape[1]: None for values in criteria}:
        drawn[count] = np.vstack([np.ones(count), rng.multinomial(count, [1 / count] * count, DRAWS)])
    for values in criteria:
        known, weights = ~np.isnan(values), drawn[values.shape[1]]
        sums, counts = weights @ np.where(known, values, 0.0).T, weights @ known.T
        ranks.append(_ranks(np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)))
    told = ~np.isnan(ranks)
    total, count = np.where(told, ranks, 0.0).sum(0), told.sum(0)
    means = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return [_with_quantiles(of_method) for of_method in means.T]


def _ranks(values: Float[np.ndarray, "draws methods"]) -> Float[np.ndarray, "draws methods"]:
    """Return the place of every value among those of its row, the largest first; NaN stays."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(-values, axis=1, nan_policy="omit"))


def _with_quantiles(values: Float[np.ndarray, "draws"]) -> Interval:
    """Return the first value, with the ends of the interval that the others lie in."""
    known = values[1:][~np.isnan(values[1:])]
    if np.isnan(values[0]) or not known.size:
        return Interval(float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values[0]), float(low), float(high))
