"""What is drawn of measurements: features as points in a plane, curves of confidence and error."""

from collections.abc import Mapping, Sequence

import numpy as np

from cardiosynth.evaluation.comparison import Sample
from cardiosynth.evaluation.comparison_tables import Protocol
from cardiosynth.evaluation.extraction import PICTURES, Extractor
from cardiosynth.evaluation.measures import KEPT_SHARES
from cardiosynth.evaluation.results import Curve, CurvesFigure, PointGroup, PointsFigure
from cardiosynth.metrics.embedding import tsne

MOST_POINTS = 500
"""Of each set: time grows with the square of their number, and more only cover each other."""
PERPLEXITY = 30.0
DIGITS = 3


def feature_map(real: Sample, synthetic: Sample, extractor: Extractor, protocol: Protocol) -> PointsFigure | None:
    """Return t-SNE of both sets' features together (FCaS Fig. 7); None where they share no plane.

    One plane's slices, or the volumes, are shown: at most ``MOST_POINTS`` of each set, evenly spaced over its cases.
    """
    names = sorted(name for name in real.rows if name != PICTURES and name in synthetic.rows)
    if not names:
        return None
    name = names[0]
    shown = [_evenly(sample.rows[name]) for sample in (real, synthetic)]
    points = tsne(np.concatenate(shown).astype(np.float64), PERPLEXITY).round(DIGITS).tolist()
    count = len(shown[0])
    groups = [("real", points[:count]), ("synthetic", points[count:])]
    what = "volumes" if extractor.spatial_dims == 3 else f"{name} slices"
    return PointsFigure(
        title=f"Features of {extractor.name} (t-SNE)",
        caption=(
            f"Features of {extractor.title}, {what}; each point is one. {protocol.seen} t-SNE of both sets together: "
            f"exact, perplexity {PERPLEXITY:g}, from principal components."
        ),
        groups=tuple(PointGroup(name=title, points=tuple((x, y) for x, y in places)) for title, places in groups),
    )


def sparsification_figure(pairs: Sequence[Mapping[str, Sequence[float]]]) -> CurvesFigure | None:
    """Return how the error falls when only confident voxels are kept, mean over pairs; None where none has a map.

    Args:
        pairs: what each was ordered by -> its curve, as `measure_sparsification` returns it.
    """
    known = [pair for pair in pairs if pair]
    if not known:
        return None
    means = {name: np.mean([pair[name] for pair in known], axis=0).tolist() for name in known[0]}
    chance = {"chance": [1.0] * len(KEPT_SHARES)}
    return CurvesFigure(
        title="Confidence and error (sparsification)",
        caption=(
            f"{len(known)} pairs; voxels of the heart. Error: distance from the real image of the same mask, "
            "over its mean over all these voxels; mean over pairs. A map that tells where errors are lies below chance."
        ),
        x_title="share of the heart kept, the most confident voxels first",
        y_title="error of those kept over that of all",
        curves=tuple(Curve(name=n, x=KEPT_SHARES, y=tuple(y)) for n, y in {**means, **chance}.items()),
    )


def _evenly(rows: np.ndarray) -> np.ndarray:
    count = min(len(rows), MOST_POINTS)
    return rows[np.floor((np.arange(count) + 0.5) * len(rows) / count).astype(int)]
