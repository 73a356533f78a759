"""What sets of cases have in common, turned into tables; each says how its numbers were made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter

import numpy as np

from cardiosynth.core.labels import LabelTable
from cardiosynth.core.random import numpy_generator
from cardiosynth.evaluation.comparison import Neighbor, Sample
from cardiosynth.evaluation.extraction import PICTURES, Extractor, SampleSettings
from cardiosynth.evaluation.judge import Seen
from cardiosynth.evaluation.results import Cell, Column, Estimate, Table, spread
from cardiosynth.evaluation.segmentations import finite, finite_mean
from cardiosynth.evaluation.statistics import DRAWS, LEVEL
from cardiosynth.evaluation.tables import in_words
from cardiosynth.metrics.distribution import (
    frechet_distance,
    kernel_distance,
    kernel_distance_draws,
    kernel_sums,
    neighborhoods,
)
from cardiosynth.metrics.memorization import NEAR_PERCENTILE, near_copies

NUM_NEAREST = 8
KID_UNIT = 1000.0


@dataclass(frozen=True)
class Protocol:
    """What every number of a comparison depends on, in words.

    Attributes:
        window: which intensities are [0, 1].
        settings: how sets are compared.
        planes: whose slices are compared.
    """

    window: str
    settings: SampleSettings
    planes: tuple[str, ...]

    @property
    def seen(self) -> str:
        """What the images are."""
        return f"{self.settings.crop_in_words.capitalize()} in [0, 1], which is {self.window}."


def distribution_table(real: Sample, synthetic: Sample, extractor: Extractor, protocol: Protocol) -> Table | None:
    """Return the distances of two sets of features, one row per plane; None where they share no plane."""
    settings = protocol.settings
    columns = (
        Column(title="images"),
        Column(title="KID x 1000", better="lower", digits=3), Column(title="KID, real halves", digits=3),
        Column(title="FID", better="lower", digits=3), Column(title="FID, real halves", digits=3),
        Column(title="precision", better="higher", digits=3), Column(title="recall", better="higher", digits=3),
        Column(title="density", better="higher", digits=3), Column(title="coverage", better="higher", digits=3),
        Column(title="n real", digits=0), Column(title="n synthetic", digits=0),
    )  # fmt: skip
    names = [name for name in real.rows if name != PICTURES and name in synthetic.rows]
    rows = tuple((name, *_distances(real, synthetic, name, settings)) for name in sorted(names))
    if not rows:
        return None
    text = (
        f"Features of {extractor.title}, of {_images(extractor, protocol)}. {_seen_by(extractor, protocol)} "
        "KID: unbiased, kernel (x.y / d + 1)^3, pairs of images of one patient left out; interval: "
        f"{100 * LEVEL:g} % of {DRAWS} bootstrap draws of patients. Real halves: two halves of the real patients, mean "
        f"of {settings.splits} divisions. FID: of such a half with the synthetic images and with the other half, as "
        "many images of each; with fewer images than many times the features (d = "
        f"{real.rows[names[0]].shape[1]}) it is far above 0 between equals, so only the two beside each other mean "
        f"something. Precision, recall, density, coverage: {settings.neighbors} neighbors. Seed {settings.seed}."
    )
    return Table(title=f"Distributions of features: {extractor.name}", protocol=text, columns=columns, rows=rows)


def likeness_table(real: Sequence[float], synthetic: Sequence[float], protocol: Protocol) -> Table | None:
    """Return MS-SSIM among synthetic images and among real ones; None where neither has a pair."""
    rows = (("synthetic", spread(synthetic)), ("real", spread(real)))
    if not any(value for _, value in rows):
        return None
    text = (
        f"MS-SSIM of pairs of different patients, {protocol.settings.pairs} drawn at most (n), in the middle "
        f"{_slices(protocol)}; lower is more diverse, and real images tell how diverse is enough. "
        f"{protocol.seen} As many of five scales as 11 voxels allow, their weights divided by their sum; images of "
        f"different size are cut to their middle, those below 11 voxels left out. Mean ± standard deviation. "
        f"Seed {protocol.settings.seed}."
    )
    columns = (Column(title="images"), Column(title="MS-SSIM among themselves", digits=3))
    return Table(title="Diversity", protocol=text, columns=columns, rows=rows)


def memorization_table(
    real: Mapping[str, Neighbor], synthetic: Mapping[str, Neighbor], extractor: Extractor | None, protocol: Protocol
) -> Table:
    """Return how near synthetic and unseen real images come to training images, one row per kind of distance."""
    columns = (
        Column(title="distance"),
        Column(title="near copies", unit="%", better="lower", digits=1),
        Column(title="by chance up to", unit="%", digits=1),
        Column(title="median over real", better="higher", digits=2),
        Column(title="verdict"), Column(title="n real", digits=0), Column(title="n synthetic", digits=0),
    )  # fmt: skip
    rows = []
    for space, made in synthetic.items():
        found = near_copies(made.distance, real[space].distance)
        verdict = "more than chance explains" if found.suspicious else "no more than chance explains"
        counts = float(len(real[space].distance)), float(len(made.distance))
        rows.append((_space(space, extractor), 100 * found.share, 100 * found.bound, found.ratio, verdict, *counts))
    side = protocol.settings.picture_side
    text = (
        f"Nearest of all training images to each synthetic and each real image that took no part in training. Near "
        f"copies: share of the synthetic images nearer than the {NEAR_PERCENTILE:g}th percentile of the real ones; by "
        "chance up to: what 95 of 100 sets of unseen images of this size stay within; median over real: near 0 for "
        f"copies. {'Slices' if protocol.planes == ('axial',) else 'Volumes'}, as pictures of {side} voxels a side "
        f"(root mean square difference). {protocol.seen} Images that vary less than real ones are nearer to all of "
        "them: copies show in the nearest pairs."
    )
    return Table(title="Memorization", protocol=text, columns=columns, rows=tuple(rows))


def nearest_table(synthetic: Sample, neighbor: Neighbor, parents: Mapping[str, Sequence[str]]) -> Table:
    """Return the synthetic images that come nearest to a training image.

    Args:
        synthetic: the sample.
        neighbor: of its images, by their pictures.
        parents: by synthetic case, the cases that its mask or its image was made from.
    """
    rows = []
    for index in nearest_pairs(neighbor):
        (case_id, _), (training_id, _) = synthetic.places[index], neighbor.place[index]
        parent = "yes" if training_id in parents.get(case_id, ()) else "no"
        named = (_place(*synthetic.places[index]), _place(*neighbor.place[index]))
        rows.append((*named, float(neighbor.distance[index]), parent))
    columns = (
        Column(title="synthetic"), Column(title="training"), Column(title="distance", digits=4),
        Column(title="declared parent"),
    )  # fmt: skip
    text = (
        "The synthetic images that come nearest to a training image, by the distance of the pictures above. An image "
        "made for a training case's own mask, or from its image, names that case as its parent."
    )
    return Table(title="Nearest pairs", protocol=text, columns=columns, rows=tuple(rows))


def nearest_pairs(neighbor: Neighbor) -> list[int]:
    """Return the images that come nearest, the nearest first."""
    return np.argsort(neighbor.distance, kind="stable")[:NUM_NEAREST].tolist()


Findings = Sequence[Mapping[str, Seen]]


def agreement_table(real: Findings, synthetic: Findings, labels: LabelTable, judge: str) -> Table:
    """Return how well a judge finds the masks in synthetic images, and in real ones."""
    columns = (
        Column(title="structure"),
        Column(title="Dice, real", digits=3), Column(title="Dice, synthetic", better="higher", digits=3),
        Column(title="synthetic over real", unit="%", better="higher", digits=0),
        Column(title="clDice, real", digits=3), Column(title="clDice, synthetic", better="higher", digits=3),
        Column(title="clDice, synthetic over real", unit="%", better="higher", digits=0),
        Column(title="Betti error, real", digits=1),
        Column(title="Betti error, synthetic", better="lower", digits=1),
    )  # fmt: skip
    names = [label for label in labels.targets if any(label.name in case for case in (*real, *synthetic))]
    rows: list[tuple[Cell, ...]] = []
    for label in names:
        both = [[case[label.name] for case in cases if label.name in case] for cases in (real, synthetic)]
        ratios = (_ratio([list(map(attrgetter(measure), each)) for each in both]) for measure in ("dice", "cl_dice"))
        rows.append((label.title, *chain(*ratios), *_betti(both)))
    means = [[finite_mean(s.dice for s in case.values()) for case in cases] for cases in (real, synthetic)]
    rows.append(("mean over structures", *_ratio(means), *(None,) * 5))
    text = (
        f"The segmenter {judge}, which took no part in training, on the images; Dice of what it finds with the mask "
        f"that the image has, of {len(real)} real and {len(synthetic)} synthetic cases. clDice: Dice of centerlines, "
        "of vessels alone: whether they can be followed, however wide they are drawn. Betti error: sum of the "
        "differences in the numbers of pieces, tunnels and cavities. Mean ± standard deviation over n cases."
    )
    return Table(title="Agreement with the mask", protocol=text, columns=columns, rows=tuple(rows))


def _distances(real: Sample, synthetic: Sample, name: str, settings: SampleSettings) -> tuple[Cell, ...]:
    x, y = real.rows[name], synthetic.rows[name]
    sums = kernel_sums(x, y, real.groups[name], synthetic.groups[name])
    draws = kernel_distance_draws(sums, DRAWS, numpy_generator(settings.seed, "kid", name))
    halves = _halves(x, real.groups[name], y, name, settings)
    counts = float(len(x)), float(len(y))
    shares: tuple[Cell, ...] = (None,) * 4
    if min(len(x), len(y)) > settings.neighbors:
        found = neighborhoods(x.astype(np.float64), y.astype(np.float64), settings.neighbors)
        shares = (found.precision, found.recall, found.density, found.coverage)
    return (_estimate(KID_UNIT * sums.distance, KID_UNIT * draws), *halves, *shares, *counts)


def _estimate(value: float, draws: np.ndarray) -> Cell:
    known = draws[np.isfinite(draws)]
    if not np.isfinite(value) or not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value=value, low=float(low), high=float(high), level=LEVEL)


def _halves(
    x: np.ndarray, groups: Sequence[str], y: np.ndarray, name: str, settings: SampleSettings
) -> tuple[Cell, Cell, Cell]:
    """Return KID between halves of the real rows, FID of a half with synthetic rows, and with the other half."""
    rng, member = numpy_generator(settings.seed, "halves", name), np.array(groups)
    patients, found = np.unique(member), []
    for _ in range(settings.splits):
        chosen = np.isin(member, rng.permutation(patients)[: len(patients) // 2])
        one, other = np.flatnonzero(chosen), np.flatnonzero(~chosen)
        count = min(len(one), len(other), len(y))
        if count < 2:
            return None, None, None
        kid = KID_UNIT * kernel_distance(x[one], x[other], member[one].tolist(), member[other].tolist())
        a, b = (x[rng.choice(half, count, replace=False)] for half in (one, other))
        c = y[rng.choice(len(y), count, replace=False)]
        found.append((kid, frechet_distance(a, c), frechet_distance(a, b)))
    kid, made, among = np.array(found).mean(0)
    return finite(float(kid)), finite(float(made)), finite(float(among))


def _ratio(both: Sequence[Sequence[float]]) -> tuple[Cell, Cell, Cell]:
    real, synthetic = (spread(values) for values in both)
    if real is None or synthetic is None or not real.mean:
        return real, synthetic, None
    return real, synthetic, 100 * synthetic.mean / real.mean


def _betti(both: Sequence[Sequence[Seen]]) -> tuple[Cell, ...]:
    return tuple(spread(float(seen.betti) for seen in each) for each in both)


def _images(extractor: Extractor, protocol: Protocol) -> str:
    if extractor.spatial_dims == 3:
        return "whole volumes"
    return f"{_slices(protocol)}, {protocol.settings.most_samples} at most, evenly spaced"


def _slices(protocol: Protocol) -> str:
    return f"{', '.join(protocol.planes)} slices"


def _seen_by(extractor: Extractor, protocol: Protocol) -> str:
    seen = protocol.seen
    if extractor.scale is not None:
        seen = f"{protocol.settings.crop_in_words.capitalize()} in [0, 1], which is {in_words(extractor.scale)}."
    return f"{seen} {extractor.reading}".strip()


def _space(space: str, extractor: Extractor | None) -> str:
    return PICTURES if space == PICTURES or extractor is None else f"features of {extractor.title}"


def _place(case_id: str, index: int) -> str:
    return case_id if index < 0 else f"{case_id}, slice {index}"
