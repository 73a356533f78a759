"""Rows of features as points in a plane, near each other where the features are (t-SNE)."""

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

EXAGGERATION, EXAGGERATED = 12.0, 250
STEPS = 750
HALVINGS = 64
SMALL = 1e-12


def tsne(rows: Float[np.ndarray, "n d"], perplexity: float = 30.0) -> Float[np.ndarray, "n 2"]:
    """Return points whose neighborhoods are those of the rows (van der Maaten and Hinton 2008), exact and repeatable.

    The points start at the first two principal components, so nothing is drawn by chance. Only who lies among whom
    means something: distances between clusters and their sizes do not. Time and memory grow with the square of n.

    Args:
        rows: two rows at least.
        perplexity: how many neighbors count, roughly; at most a third of the others.
    """
    target = affinities(rows, min(perplexity, (len(rows) - 1) / 3))
    points = _principal(rows)
    speed, gain = np.zeros_like(points), np.ones_like(points)
    rate = max(len(rows) / EXAGGERATION / 4, 50.0)
    for step in range(STEPS):
        early = step < EXAGGERATED
        slope = _gradient(points, target * (EXAGGERATION if early else 1.0))
        # Every coordinate goes faster while it keeps its direction, slower after it turns.
        gain = np.where(np.sign(slope) == np.sign(speed), 0.8 * gain, gain + 0.2).clip(0.01)
        speed = (0.5 if early else 0.8) * speed - rate * gain * slope
        points = points + speed
    return points - points.mean(0)


def affinities(rows: Float[np.ndarray, "n d"], perplexity: float) -> Float[np.ndarray, "n n"]:
    """Return how near each pair is, symmetric with sum 1: Gaussians of which each row sees ``perplexity`` others.

    The width of every row's Gaussian is found by halving; 2 to the entropy of what it sees is the perplexity.
    """
    squares = cdist(rows, rows, "sqeuclidean")
    squares /= max(float(squares.mean()), SMALL)
    low, high = np.zeros(len(rows)), np.full(len(rows), np.inf)
    narrow = np.ones(len(rows))
    for _ in range(HALVINGS):
        seen = _conditional(squares, narrow)
        wide = -(seen * np.log(seen.clip(SMALL))).sum(1) > np.log(perplexity)
        low, high = np.where(wide, narrow, low), np.where(wide, high, narrow)
        narrow = np.where(np.isinf(high), 2 * narrow, (low + np.where(np.isinf(high), low, high)) / 2)
    seen = _conditional(squares, narrow)
    return (seen + seen.T) / (2 * len(rows))


def divergence(points: Float[np.ndarray, "n 2"], target: Float[np.ndarray, "n n"]) -> float:
    """Return what t-SNE minimizes: the Kullback-Leibler divergence of the affinities from those of the points."""
    kernel = _kernel(points)
    return float((target * np.log(target.clip(SMALL) / (kernel / kernel.sum()).clip(SMALL))).sum())


def _conditional(squares: np.ndarray, narrow: np.ndarray) -> np.ndarray:
    """Return what each row sees of the others, each row with sum 1."""
    others = squares + np.where(np.eye(len(squares), dtype=bool), np.inf, 0.0)
    weight = np.exp(-narrow[:, None] * (others - others.min(1, keepdims=True)))
    return weight / weight.sum(1, keepdims=True)


def _kernel(points: np.ndarray) -> np.ndarray:
    kernel = 1 / (1 + cdist(points, points, "sqeuclidean"))
    np.fill_diagonal(kernel, 0.0)
    return kernel


def _gradient(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the gradient of :func:`divergence`: 4 sum_j (p_ij - q_ij) k_ij (y_i - y_j)."""
    kernel = _kernel(points)
    force = (target - kernel / kernel.sum()) * kernel
    return 4 * (force.sum(1, keepdims=True) * points - force @ points)


def _principal(rows: np.ndarray) -> np.ndarray:
    """Return the first two principal components, the first with standard deviation 1e-4."""
    centered = rows.astype(np.float64) - rows.mean(0, dtype=np.float64)
    u, s, v = np.linalg.svd(centered, full_matrices=False)
    # The sign of a component is the solver's choice; the largest weight is made positive.
    signs = np.sign(np.take_along_axis(v, np.abs(v).argmax(1)[:, None], 1))[:, 0]
    found = np.zeros((len(rows), 2))
    found[:, : min(2, len(s))] = (u * s * signs)[:, :2]
    return 1e-4 * found / max(float(found[:, 0].std()), SMALL)
