"""FQCDM's Tables 1 to 3 and 5 in Markdown, of the rows that there are, with the published numbers beside ours."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cardiosynth.evaluation.statistics import Interval, holm, mean_interval, paired_p_value
from cardiosynth.experiments.fqcdm_rows import CODECS, FQCDM, OPPONENTS, STARTS
from cardiosynth.experiments.markdown import head, in_brackets, line, mean_of
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
Pair = tuple[tuple[str, str], tuple[str, str]]
"""Two rows; what the first has beyond the second is asked."""


def tables(found: Found, real: Measures, strength: float) -> str:
    """Return everything as Markdown.

    Args:
        found: what was measured.
        real: of the real test slices.
        strength: of the image starts.
    """
    parts = [_protocol(real, strength), "## Tables 1 to 3", quality_table(found, real), published_table()]
    ablation = ablation_table(found)
    if ablation:
        parts += ["## Table 5", ablation, effect_table(found), ABLATION_NOTE]
    return "\n\n".join(part for part in parts if part) + "\n"


def _protocol(real: Measures, strength: float) -> str:
    rows = real["agreement"]
    patients = len({row["patient"] for row in rows})
    return (
        f"{len(rows)} real test slices of {patients} patients whom no method has seen, and slices made for their "
        f"masks. In [0, 1] is {real['window']}; MR that was normalized when it was prepared has the 0.5 and the 99.5 "
        "percentile of its volume at 0 and 1000. PSNR (range 1) and MS-SSIM: beside the real slice of the mask. "
        "Reconstruction: that slice, encoded and decoded. Image start: that slice, noised to "
        f"{strength:g} of the process and sampled back. Noise start: sampled from noise; another patient with this "
        "mask, whose PSNR tells of likeness and not of quality. KID x 1000, and FID of as many slices as half of the "
        f"test patients have, beside that of the other half: features of {real['features']}, trained on the "
        "validation patients. MS-SSIM among themselves: of pairs of different patients. Dice: of the masks with what "
        "segmenters find that learned from the validation patients and the other half of the test patients. Near "
        "copies: nearer to a training slice, by their pictures, than the 5th percentile of test slices are. Brackets: "
        "95 % bootstrap intervals over seeds and patients; of KID, from "
        "the lowest to the highest end that a seed has."
    )


# ---------------------------------------------------------------------------------------------------------------
# Tables 1 to 3.


def quality_table(found: Found, real: Measures) -> str:
    """Return the three rows of FQCDM, and of every method that is no ablation of it, below real slices."""
    ablations = {f"{codec}-{opponent}" for codec, opponent in product(CODECS, OPPONENTS)} - {FQCDM}
    shown = {key: by_seed for key, by_seed in found.items() if key[0] not in ablations}
    lines = head(
        "slices", "seeds", "PSNR, dB", "MS-SSIM", "KID x 1000", "FID", "FID, real halves", "MS-SSIM among themselves",
        "Dice", "over real", "near copies, %", "codes met",
    )  # fmt: skip
    dice = agreement([real])
    lines.append(line("real", "-", "-", "-", *_real_sets(found), f"{mean_of(real['likeness']):.3f}", dice, *["-"] * 3))
    for (method, start), by_seed in shown.items():
        title = f"{'FQCDM' if method == FQCDM else method}, {TITLES[start]}"
        lines.append(line(title, str(len(by_seed)), *_quality(list(by_seed.values()), real)))
    return "\n".join(lines)


def _quality(measures: Sequence[Measures], real: Measures) -> list[str]:
    ratio = np.mean([over_real(one["agreement"], real["agreement"]) for one in measures])
    sets = [one["sets"] for one in measures]
    return [
        in_brackets(mean_of_pairs(measures, "psnr_db"), 2), in_brackets(mean_of_pairs(measures, "ms_ssim"), 3),
        kernel_distance(sets), _mean(one["FID"] for one in sets), _mean(one["FID, real halves"] for one in sets),
        f"{mean_of(value for one in measures for value in one['likeness']):.3f}",
        agreement(measures), f"{ratio:.3f}", near_copies(measures), codes(measures),
    ]  # fmt: skip


def _real_sets(found: Found) -> list[str]:
    """Return KID and FID between halves of the real slices, which every row has measured alike."""
    sets = [one["sets"] for by_seed in found.values() for one in by_seed.values()]
    distance = _mean(one["FID, real halves"] for one in sets)
    return [_mean(one["KID, real halves"] for one in sets), distance, distance]


def mean_of_pairs(measures: Sequence[Measures], key: str) -> Interval:
    """Return the mean over seeds and slices with its interval over seeds and patients."""
    patients = [row["patient"] for row in measures[0]["pairs"]]
    return mean_interval(_values(measures, key), patients)


def agreement(measures: Sequence[Measures]) -> str:
    """Return the mean over structures of the judges' Dice, with its interval over seeds and patients."""
    rows = [sorted(one["agreement"], key=lambda row: row["reference"]) for one in measures]
    values = np.array([[mean_of(row["dice"].values()) for row in of_seed] for of_seed in rows])
    return in_brackets(mean_interval(values, [row["patient"] for row in rows[0]]), 3)


def kernel_distance(sets: Sequence[Mapping[str, Any]]) -> str:
    """Return the mean over seeds, from the lowest to the highest end of their intervals."""
    known = [one["KID x 1000"] for one in sets if one["KID x 1000"] is not None]
    if not known:
        return "-"
    value, low, high = zip(*known, strict=True)
    return in_brackets(Interval(float(np.mean(value)), min(low), max(high)), 2)


def near_copies(measures: Sequence[Measures]) -> str:
    """Return the share of near copies, and beside it the share up to which chance explains them."""
    found = [one["copies"]["pictures"] for one in measures]
    share, bound = (100 * mean_of(one[key] for one in found) for key in ("share", "bound"))
    return f"{share:.1f} (chance: up to {bound:.1f})"


def codes(measures: Sequence[Measures]) -> str:
    """Return how many codes the test slices meet, of how many, and the perplexity; the means over seeds."""
    found = [one["codes"]["codes"] for one in measures if one["codes"]]
    if not found:
        return "-"
    met, count, perplexity = (mean_of(one[key] for one in found) for key in ("met", "count", "perplexity"))
    return f"{met:.0f} of {count:.0f}, as many as {perplexity:.0f} met alike"


def published_table() -> str:
    """Return what the paper says; of which images, it does not say."""
    lines = head("published, ACDC", "PSNR, dB", "MS-SSIM", "FID (Inception)")
    for name, one in PUBLISHED.items():
        lines.append(line(name, f"{one.psnr_db:.2f}", f"{one.ms_ssim_percent / 100:.4f}", f"{one.fid:.2f}"))
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------------
# Table 5.

ABLATION_NOTE = (
    "Each line of the second table is the mean of the differences of all pairs of rows that differ in nothing else, "
    "paired by seed and slice; intervals draw seeds and patients. p: Wilcoxon's signed-rank test over patients, each "
    "the mean over slices, seeds and pairs, after Holm for the lines and both measures. The published numbers of "
    "denoised latents stand with the image start, which Algorithm 1 describes."
)


def ablation_table(found: Found) -> str:
    """Return codec, latents and discriminator, each in both kinds, denoised ones by where they start."""
    lines = head(
        "codec", "latents", "discriminator", "seeds", "PSNR, dB", "MS-SSIM", "KID x 1000", "Dice",
        "published PSNR, dB", "published MS-SSIM",
    )  # fmt: skip
    for opponent, start, codec in product(OPPONENTS, STARTS, CODECS):
        by_seed = found.get((f"{codec}-{opponent}", start))
        if by_seed:
            measures, one = list(by_seed.values()), PUBLISHED_ABLATION[f"{codec}-{opponent}", LATENTS[start]]
            told = [f"{one.psnr_db:.2f}", f"{one.ms_ssim_percent / 100:.4f}"] if start != "noise" else ["-", "-"]
            latents = ENCODED if start == "reconstruction" else f"{DENOISED}, {TITLES[start]}"
            pairs = (in_brackets(mean_of_pairs(measures, key), n) for key, n in (("psnr_db", 2), ("ms_ssim", 3)))
            sets = kernel_distance([one["sets"] for one in measures])
            lines.append(line(codec, latents, opponent, str(len(measures)), *pairs, sets, agreement(measures), *told))
    return "\n".join(lines) if len(lines) > 2 else ""


def effects() -> list[tuple[str, list[Pair]]]:
    """Return what Table 5 asks: what quantizing, the edge branch and denoising change, all else alike."""
    found: list[tuple[str, list[Pair]]] = []
    for start in STARTS:
        pairs = [((f"quantized-{o}", start), (f"continuous-{o}", start)) for o in OPPONENTS]
        found.append((f"quantized less continuous, {TITLES[start]}", pairs))
        pairs = [((f"{c}-dual", start), (f"{c}-patch", start)) for c in CODECS]
        found.append((f"dual less patch, {TITLES[start]}", pairs))
    for start in ("image", "noise"):
        methods = [f"{c}-{o}" for c, o in product(CODECS, OPPONENTS)]
        found.append((f"{TITLES[start]} less reconstruction", [((m, start), (m, "reconstruction")) for m in methods]))
    return found


def effect_table(found: Found) -> str:
    """Return the effects in PSNR and MS-SSIM, with intervals and p-values after Holm; of the pairs that there are."""
    asked = [(title, there) for title, pairs in effects() if (there := comparable(found, pairs))]
    if not asked:
        return ""
    compared = [[difference(found, pairs, key) for key in ("psnr_db", "ms_ssim")] for _, pairs in asked]
    p_values = iter(holm([p for both in compared for _, p in both]))
    lines = head("difference", "pairs", "PSNR, dB", "p", "MS-SSIM", "p")
    for (title, pairs), both in zip(asked, compared, strict=True):
        cells = [
            cell
            for (interval, _), digits in zip(both, (2, 4), strict=True)
            for cell in (in_brackets(interval, digits, sign=True), f"{next(p_values):.3g}")
        ]
        lines.append(line(title, str(len(pairs)), *cells))
    return "\n".join(lines)


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


def _mean(values: Any) -> str:
    found = mean_of(values)
    return "-" if np.isnan(found) else f"{found:.2f}"
