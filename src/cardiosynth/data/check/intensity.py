"""Whether images measure what their structures should measure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.core.intensity import why_not_hu
from cardiosynth.core.picture import MR_PERCENTILES
from cardiosynth.data.check.finding import Finding, of_case
from cardiosynth.data.check.tissues import BLOOD, BRIGHTER_IN_MR, EXPECTED_HU, structure_of

BINS = 64
HU_RANGE = (-1024.0, 1024.0)
"""Histograms of CT span this; what lies beyond is counted in the outermost bins."""
CLIPPED_SHARE = 0.002
"""Share of voxels at an image's highest value above which somebody has cut off what was higher."""


@dataclass(frozen=True)
class Brightness:
    """The image's values within one structure.

    Attributes:
        median: in the image's unit.
        low: 5th percentile.
        high: 95th percentile.
        counts: voxels per bin of ``histogram_range``, ``BINS`` numbers.
    """

    median: float
    low: float
    high: float
    counts: tuple[int, ...]


def histogram_range(case: Case) -> tuple[float, float]:
    """Return what histograms span: fixed for HU; from the 1st to the 99th percentile of the image otherwise."""
    if case.intensity_unit == "hu":
        return HU_RANGE
    low, high = (float(v) for v in np.percentile(case.required_image(), MR_PERCENTILES))
    return low, max(high, low + 1e-3)


def brightness(values: np.ndarray, span: tuple[float, float]) -> Brightness:
    """Return what ``values`` (n,) of one structure measure."""
    low, median, high = (float(v) for v in np.percentile(values, (5, 50, 95)))
    counts = np.histogram(values.clip(*span), BINS, span)[0]
    return Brightness(median, low, high, tuple(counts.tolist()))


def image_findings(case: Case, image: np.ndarray) -> list[Finding]:
    """Return what is odd about an image as a whole."""
    low, high = float(image.min()), float(image.max())
    if low == high:
        text = f"its image holds the one value {low:g}; export it again."
        return [of_case(case, "error", "constant_image", text, value=low)]
    if case.intensity_unit != "hu":
        return []
    if reason := why_not_hu(image):
        text = f"{reason}; prepare it with the unit mr, or apply the rescale intercept."
        return [of_case(case, "error", "not_hu", text, low=low, high=high)]
    share = float((image == high).mean())
    if share > CLIPPED_SHARE:
        text = (
            f"{100 * share:.1f} % of its voxels hold its highest value, {high:g} HU: the image was cut off there; go "
            "back to the scan without a window."
        )
        return [of_case(case, "warning", "clipped", text, high_hu=high, share=round(share, 5))]
    return []


def brightness_findings(case: Case, found: Mapping[str, Brightness]) -> list[Finding]:
    """Return which structures are brighter or darker than they should be.

    Args:
        case: the case.
        found: what each structure measures, by the label table's name.
    """
    medians = {name: round(each.median, 1) for name, each in found.items()}
    return _attenuation(case, medians) if case.intensity_unit == "hu" else _order(case, medians)


def _attenuation(case: Case, medians: Mapping[str, float]) -> list[Finding]:
    odd = [
        name for name, median in medians.items()
        if (tissue := EXPECTED_HU.get(structure_of(name))) and not tissue.low_hu <= median <= tissue.high_hu
    ]  # fmt: skip
    if not odd:
        return []
    facts = {name: {"median_hu": medians[name], "expected_hu": list(_range(name))} for name in odd}
    blood = [name for name in medians if structure_of(name) in BLOOD]
    if blood and set(blood) <= set(odd) and all(medians[name] < 200 for name in blood):
        text = (
            f"its blood is hardly enhanced ({_listed(odd, medians)}); a scan without contrast, or a mask that lies "
            "beside its image."
        )
        return [of_case(case, "warning", "unusual_hu", text, **facts)]
    text = f"unusual in contrast CT: {_listed(odd, medians)}; look whether the mask fits the image and its names."
    return [of_case(case, "warning", "unusual_hu", text, **facts)]


def _order(case: Case, medians: Mapping[str, float]) -> list[Finding]:
    known = {structure_of(name): name for name in medians}
    findings = []
    for bright, dark in BRIGHTER_IN_MR:
        if bright in known and dark in known and medians[known[bright]] <= medians[known[dark]]:
            one, two = known[bright], known[dark]
            text = (
                f"{one} (median {medians[one]:g}) is not brighter than {two} ({medians[two]:g}), as in bright-blood "
                "MR; look whether the mask fits the image and its names."
            )
            findings.append(of_case(case, "warning", "unusual_order", text, **{one: medians[one], two: medians[two]}))
    return findings


def _range(name: str) -> tuple[float, float]:
    tissue = EXPECTED_HU[structure_of(name)]
    return tissue.low_hu, tissue.high_hu


def _listed(names: Sequence[str], medians: Mapping[str, float]) -> str:
    words = []
    for name in names:
        low, high = _range(name)
        words.append(f"{name} median {medians[name]:.0f} HU, usual {low:g} to {high:g}")
    return "; ".join(words)
