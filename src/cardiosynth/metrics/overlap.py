"""How much two masks overlap.

A structure that neither mask holds says nothing about their agreement: every function here returns NaN for it, and
means over cases leave NaN out. A structure that only one of them holds is missed or invented entirely: 0.

| P (predicted) | Q (ground truth) | value |
| --- | --- | --- |
| empty | empty | NaN |
| empty | present | 0 |
| present | empty | 0 |
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Shaped
from scipy import ndimage


def dice(p: Shaped[np.ndarray, "*grid"], q: Shaped[np.ndarray, "*grid"]) -> float:
    """Return Dice, 2|P and Q| / (|P| + |Q|), in [0, 1] (FCaS Eq. 14).

    Args:
        p: predicted mask, bool or anything that is non-zero inside.
        q: ground truth on the same grid.
    """
    inside_p, inside_q = p != 0, q != 0
    total = int(inside_p.sum()) + int(inside_q.sum())
    return 2 * int((inside_p & inside_q).sum()) / total if total else float("nan")


def dilated(
    mask: Shaped[np.ndarray, "*grid"], radius_mm: float, spacing_mm: Sequence[float]
) -> Bool[np.ndarray, "*grid"]:
    """Return the voxels whose center lies within ``radius_mm`` of a voxel center of ``mask``."""
    inside = mask != 0
    if not inside.any():
        return inside
    distance_mm = ndimage.distance_transform_edt(~inside, sampling=tuple(spacing_mm))
    return np.asarray(distance_mm) <= radius_mm * (1 + 1e-6)


def rdice_literal(
    p: Shaped[np.ndarray, "*grid"], q: Shaped[np.ndarray, "*grid"], radius_mm: float, spacing_mm: Sequence[float]
) -> float:
    """Return RDice as printed: Dice of P' = P and Q' with Q, in [0, 1] (FCaS Eq. 15).

    Q' is the dilated Q, so P' and Q have the same intersection as P and Q: a near miss gets no credit, and what is
    forgiven are false positives far from Q. Report ``rdice_symmetric`` beside it.

    Args:
        p: predicted mask.
        q: ground truth on the same grid.
        radius_mm: dilation of Q; the paper does not give it.
        spacing_mm: voxel size per axis.
    """
    if (p != 0).any() and not (q != 0).any():
        return 0.0
    return dice((p != 0) & dilated(q, radius_mm, spacing_mm), q)


def rdice_symmetric(
    p: Shaped[np.ndarray, "*grid"], q: Shaped[np.ndarray, "*grid"], radius_mm: float, spacing_mm: Sequence[float]
) -> float:
    """Return Dice with a tolerance, in [0, 1]: what the name RDice leads one to expect.

    The harmonic mean of the share of P that lies within ``radius_mm`` of Q and the share of Q that lies within
    ``radius_mm`` of P; at radius 0 it is Dice.

    Args:
        p: predicted mask.
        q: ground truth on the same grid.
        radius_mm: distance that still counts as a hit.
        spacing_mm: voxel size per axis.
    """
    inside_p, inside_q = p != 0, q != 0
    if not inside_p.any() or not inside_q.any():
        return 0.0 if inside_p.any() or inside_q.any() else float("nan")
    precision = float((inside_p & dilated(inside_q, radius_mm, spacing_mm)).sum() / inside_p.sum())
    recall = float((inside_q & dilated(inside_p, radius_mm, spacing_mm)).sum() / inside_q.sum())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
