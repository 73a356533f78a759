"""FQCDM's Tables 1 to 3 and 5 in tables, of the rows that there are, with the published numbers beside ours."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cardiosynth.evaluation.results import Cell, Column, Estimate, Results, Table, estimate
from cardiosynth.evaluation.statistics import Interval, holm, mean_interval, mean_of, paired_p_value
from cardiosynth.experiments.fqcdm_rows import BICUBIC, CODECS, FQCDM, JOINT, OPPONENTS, STARTS
from cardiosynth.experiments.slice_judge import over_real

Measures = Mapping[str, Any]
BySeed = Mapping[int, Measures]
Found = Mapping[tuple[str, str], BySeed]
"""(method, start) -> seed -> what ``fqcdm_measures`` found."""


class Published(NamedTuple):
    """What the paper found on ACDC: PSNR in dB, MS-SSIM in %, and FID where it is told."""

    psnr_db: float
    ms_ssim_percent: float
    fid: float | None = None


PUBLISHED = {
    "VQVAE": Published(23.82, 70.91, 68.23), "DCGAN": Published(29.46, 73.45, 60.24),
    "CycleGAN": Published(34.10, 76.74, 58.83), "VQGAN": Published(35.92, 78.92, 48.08),
    "DDPM": Published(37.61, 81.76, 44.73), "FQCDM": Published(37.89, 87.58, 38.60),
}  # fmt: skip
"""Tables 1 to 3."""

ENCODED, DENOISED = "encoded", "denoised"
PUBLISHED_ABLATION = {
    ("continuous-patch", ENCODED): Published(35.92, 78.92), ("continuous-patch", DENOISED): Published(36.87, 82.06),
    ("quantized-patch", ENCODED): Published(36.46, 81.89), ("continuous-dual", ENCODED): Published(36.07, 81.25),
    ("quantized-patch", DENOISED): Published(37.54, 83.04), ("continuous-dual", DENOISED): Published(37.02, 82.92),
    ("quantized-dual", ENCODED): Published(36.68, 83.45), ("quantized-dual", DENOISED): Published(37.89, 87.58),
}  # fmt: skip
"""Table 5: FQB is the quantized codec, FDGB the denoised latents, DBD the dual discriminator. Its first line equals the
VQGAN of Tables 1 and 2, which is quantized, so that what FQB adds there is not told."""

LATENTS = {"reconstruction": ENCODED, "image": DENOISED, "noise": DENOISED}
TITLES = {"reconstruction": "reconstruction", "image": "image start", "noise": "noise start"}
NAMES = {FQCDM: "FQCDM", JOINT: "FQCDM, joint loss"}
Pair = tuple[tuple[str, str], tuple[str, str]]
"""Two rows; what the first has beyond the second is asked."""


def method_results(found: Found, real: Measures, strength: float) -> Results:
    """Return everything that is shown.

    Args:
        found: what was measured.
        real: of the real test slices.
        strength: of the image starts.
    """
    said = _protocol(real, strength)
    tables = [quality_table(found, real, said), published_table(), ablation_table(found), effect_table(found)]
    return Results(title="FQCDM", summary=_slices(real), tables=tuple(table for table in tables if table))


def _slices(real: Measures) -> str:
    rows = real["agreement"]
    patients = len({row["patient"] for row in rows})
    return (
        f"{len(rows)} real test slices of {patients} patients whom no method has seen, and slices made for their masks."
    )


def _protocol(real: Measures, strength: float) -> str:
    return (
        f"{_slices(real)} In [0, 1] is {real['window']}; MR that was normalized when it was prepared has the 0.5 and "
        "the 99.5 percentile of its volume at 0 and 1000. PSNR (range 1) and MS-SSIM: beside the real slice of the "
        "mask. Reconstruction: that slice, encoded and decoded. Bicubic: that slice, brought to a grid 2 or 4 times as "
        f"coarse and back. Image start: that slice, noised to {strength:g} of the process and sampled back. Noise "
        "start: sampled from noise; another patient with this mask, whose PSNR tells of likeness and not of quality. "
        "KID x 1000, and FID of as many slices as half of the test patients have, beside that of the other half: "
        f"features of {real['features']}, trained on the validation patients. MS-SSIM among themselves: of pairs of "
        "different patients. Dice: of the masks with what segmenters find that learned from the validation patients "
        "and the other half of the test patients. Near copies: nearer to a training slice, by their pictures, than the "
        "5th percentile of test slices are. In parentheses: 95 % bootstrap intervals over seeds and patients; of KID, "
        "from the lowest to the highest end that a seed has."
    )


# ---------------------------------------------------------------------------------------------------------------
# Tables 1 to 3.


PSNR = Column(title="PSNR", unit="dB", better="higher")
MS_SSIM = Column(title="MS-SSIM", better="higher", digits=3)
KID = Column(title="KID x 1000", better="lower")
DICE = Column(title="Dice", better="higher", digits=3)
OF_SETS = (
    KID, Column(title="FID", better="lower"), Column(title="FID, real halves"),
    Column(title="MS-SSIM among themselves", digits=3), DICE, Column(title="over real", better="higher", digits=3),
    Column(title="near copies", unit="%", better="lower", digits=1),
    Column(title="by chance up to", unit="%", digits=1), Column(title="codes met"),
)  # fmt: skip


def quality_table(found: Found, real: Measures, said: str) -> Table:
    """Return the three rows of FQCDM, and of every method that is no ablation of it, below real slices.

    Bicubic interpolation comes last, as what reconstructions are to be compared with.
    """
    ablations = {f"{codec}-{opponent}" for codec, opponent in product(CODECS, OPPONENTS)} - {FQCDM}
    shown = {key: by_seed for key, by_seed in found.items() if key[0] not in ablations}
    of_real = (*_real_sets(found), mean_of(real["likeness"]), agreement([real]), None, None, None, None)
    rows: list[tuple[Cell, ...]] = [("real", None, None, None, *of_real)]
    for (method, start), by_seed in shown.items():
        title = method if method in BICUBIC else f"{NAMES.get(method, method)}, {TITLES[start]}"
        rows.append((title, len(by_seed), *_quality(list(by_seed.values()), real)))
    columns = (Column(title="slices"), Column(title="seeds", digits=0), PSNR, MS_SSIM, *OF_SETS)
    return Table(title="Tables 1 to 3", protocol=said, columns=columns, rows=tuple(rows))


def _quality(measures: Sequence[Measures], real: Measures) -> list[Cell]:
    pairs = [estimate(mean_of_pairs(measures, key)) for key in ("psnr_db", "ms_ssim")]
    return [*pairs, *(_as_a_set(measures, real) if "sets" in measures[0] else [None] * len(OF_SETS))]


def _as_a_set(measures: Sequence[Measures], real: Measures) -> list[Cell]:
    ratio = float(np.mean([over_real(one["agreement"], real["agreement"]) for one in measures]))
    sets = [one["sets"] for one in measures]
    return [
        kernel_distance(sets), _mean(one["FID"] for one in sets), _mean(one["FID, real halves"] for one in sets),
        mean_of(value for one in measures for value in one["likeness"]), agreement(measures), ratio,
        *near_copies(measures), codes(measures),
    ]  # fmt: skip


def _real_sets(found: Found) -> tuple[float | None, ...]:
    """Return KID and FID between halves of the real slices, which every row has measured alike."""
    sets = [one["sets"] for by_seed in found.values() for one in by_seed.values() if "sets" in one]
    distance = _mean(one["FID, real halves"] for one in sets)
    return _mean(one["KID, real halves"] for one in sets), distance, distance


def mean_of_pairs(measures: Sequence[Measures], key: str) -> Interval:
    """Return the mean over seeds and slices with its interval over seeds and patients."""
    patients = [row["patient"] for row in measures[0]["pairs"]]
    return mean_interval(_values(measures, key), patients)


def agreement(measures: Sequence[Measures]) -> Estimate | None:
    """Return the mean over structures of the judges' Dice, with its interval over seeds and patients."""
    rows = [sorted(one["agreement"], key=lambda row: row["reference"]) for one in measures]
    values = np.array([[mean_of(row["dice"].values()) for row in of_seed] for of_seed in rows])
    return estimate(mean_interval(values, [row["patient"] for row in rows[0]]))


def kernel_distance(sets: Sequence[Mapping[str, Any]]) -> Estimate | None:
    """Return the mean over seeds, from the lowest to the highest end of their intervals."""
    known = [one["KID x 1000"] for one in sets if one["KID x 1000"] is not None]
    if not known:
        return None
    value, low, high = zip(*known, strict=True)
    return Estimate(value=float(np.mean(value)), low=min(low), high=max(high))


def near_copies(measures: Sequence[Measures]) -> tuple[float, float]:
    """Return the share of near copies in %, and the share up to which chance explains them."""
    found = [one["copies"]["pictures"] for one in measures]
    share, bound = (100 * mean_of(one[key] for one in found) for key in ("share", "bound"))
    return share, bound


def codes(measures: Sequence[Measures]) -> str | None:
    """Return how many codes the test slices meet, of how many, and the perplexity; the means over seeds."""
    found = [one["codes"]["codes"] for one in measures if one["codes"]]
    if not found:
        return None
    met, count, perplexity = (mean_of(one[key] for one in found) for key in ("met", "count", "perplexity"))
    return f"{met:.0f} of {count:.0f}, as many as {perplexity:.0f} met alike"


def published_table() -> Table:
    """Return what the paper says; of which images, it does not say."""
    rows = tuple((name, one.psnr_db, one.ms_ssim_percent / 100, one.fid) for name, one in PUBLISHED.items())
    columns = (Column(title="method"), PSNR, MS_SSIM.model_copy(update={"digits": 4}), Column(title="FID (Inception)"))
    protocol = "Published, on ACDC: single runs; the paper does not say of which images."
    return Table(title="What the paper says", protocol=protocol, columns=columns, rows=rows)


# ---------------------------------------------------------------------------------------------------------------
# Table 5.


def ablation_table(found: Found) -> Table | None:
    """Return codec, latents and discriminator, each in both kinds, denoised ones by where they start."""
    rows: list[tuple[Cell, ...]] = []
    for opponent, start, codec in product(OPPONENTS, STARTS, CODECS):
        by_seed = found.get((f"{codec}-{opponent}", start))
        if by_seed:
            measures, one = list(by_seed.values()), PUBLISHED_ABLATION[f"{codec}-{opponent}", LATENTS[start]]
            told = (one.psnr_db, one.ms_ssim_percent / 100) if start != "noise" else (None, None)
            latents = ENCODED if start == "reconstruction" else f"{DENOISED}, {TITLES[start]}"
            pairs = (estimate(mean_of_pairs(measures, key)) for key in ("psnr_db", "ms_ssim"))
            sets = kernel_distance([one["sets"] for one in measures])
            rows.append((f"{codec}, {latents}, {opponent}", len(measures), *pairs, sets, agreement(measures), *told))
    columns = (
        Column(title="codec, latents, discriminator"), Column(title="seeds", digits=0), PSNR, MS_SSIM, KID, DICE,
        Column(title="published PSNR", unit="dB"), Column(title="published MS-SSIM", digits=4),
    )  # fmt: skip
    protocol = (
        "Measured as Tables 1 to 3. The published numbers of denoised latents stand with the image start, which "
        "Algorithm 1 describes."
    )
    return Table(title="Table 5", protocol=protocol, columns=columns, rows=tuple(rows)) if rows else None


def effects() -> list[tuple[str, list[Pair]]]:
    """Return what Table 5 asks: what quantizing, the edge branch, denoising and the joint loss change."""
    found: list[tuple[str, list[Pair]]] = []
    for start in STARTS:
        pairs = [((f"quantized-{o}", start), (f"continuous-{o}", start)) for o in OPPONENTS]
        found.append((f"quantized less continuous, {TITLES[start]}", pairs))
        pairs = [((f"{c}-dual", start), (f"{c}-patch", start)) for c in CODECS]
        found.append((f"dual less patch, {TITLES[start]}", pairs))
    for start in ("image", "noise"):
        methods = [f"{c}-{o}" for c, o in product(CODECS, OPPONENTS)]
        found.append((f"{TITLES[start]} less reconstruction", [((m, start), (m, "reconstruction")) for m in methods]))
    found += [(f"joint loss less two stages, {TITLES[start]}", [((JOINT, start), (FQCDM, start))]) for start in STARTS]
    return found


def effect_table(found: Found) -> Table | None:
    """Return the effects in PSNR and MS-SSIM, with intervals and p-values after Holm; of the pairs that there are."""
    asked = [(title, there) for title, pairs in effects() if (there := comparable(found, pairs))]
    if not asked:
        return None
    compared = [[difference(found, pairs, key) for key in ("psnr_db", "ms_ssim")] for _, pairs in asked]
    p_values = iter(holm([p for both in compared for _, p in both]))
    rows: list[tuple[Cell, ...]] = []
    for (title, pairs), both in zip(asked, compared, strict=True):
        cells = (cell for interval, _ in both for cell in (estimate(interval), f"{next(p_values):.3g}"))
        rows.append((title, len(pairs), *cells))
    columns = (
        Column(title="difference"), Column(title="pairs", digits=0), PSNR.model_copy(update={"signed": True}),
        Column(title="p, PSNR"), MS_SSIM.model_copy(update={"signed": True, "digits": 4}), Column(title="p, MS-SSIM"),
    )  # fmt: skip
    protocol = (
        "Mean of the differences of all pairs of rows that differ in nothing else, paired by seed and slice; 95 % "
        "intervals draw seeds and patients. p: Wilcoxon's signed-rank test over patients, each the mean over slices, "
        "seeds and pairs, after Holm for the lines and both measures."
    )
    return Table(title="What each part changes", protocol=protocol, columns=columns, rows=tuple(rows))


def difference(found: Found, pairs: Sequence[Pair], key: str) -> tuple[Interval, float]:
    """Return the mean difference of pairs of rows, of the seeds that all of them have, with its interval and p."""
    seeds = sorted(set.intersection(*(_seeds(found, pair) for pair in pairs)))
    assert seeds, "pairs have a seed in common"
    patients = [row["patient"] for row in found[pairs[0][0]][seeds[0]]["pairs"]]
    each = [
        _values([found[one][s] for s in seeds], key) - _values([found[other][s] for s in seeds], key)
        for one, other in pairs
    ]
    mean = np.mean(each, axis=0)
    by_patient = [mean[:, [p == patient for p in patients]].mean(1) for patient in dict.fromkeys(patients)]
    return mean_interval(mean, patients), paired_p_value(np.stack(by_patient, axis=1))


def comparable(found: Found, pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs of which both rows are there, of one seed in common at least, the first that any pair has."""
    first = min((seed for pair in pairs for seed in _seeds(found, pair)), default=None)
    return [pair for pair in pairs if first in _seeds(found, pair)]


def _seeds(found: Found, pair: Pair) -> set[int]:
    one, other = (found.get(row, {}) for row in pair)
    return set(one) & set(other)


def _values(measures: Sequence[Measures], key: str) -> Float[np.ndarray, "seeds cases"]:
    """Return a measure of every slice; NaN where it is not known."""
    return np.array([[row[key] for row in one["pairs"]] for one in measures], np.float64)


def _mean(values: Iterable[float | None]) -> float | None:
    found = mean_of(values)
    return None if np.isnan(found) else found
