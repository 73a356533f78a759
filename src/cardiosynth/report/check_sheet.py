"""The sheet of a dataset: one HTML page with a picture of every case, what was found beside it, and histograms.

Cases are drawn while they are in memory and wait in a file; the page is written from it at the end, when what only
shows across cases is known. Neither holds more than one case at a time.
"""

import base64
import hashlib
import io
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from PIL import Image

from cardiosynth import __version__
from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.picture import (
    CT_WINDOW,
    Picture,
    Plane,
    contact_sheet,
    draw_image,
    draw_mask,
    focus,
    label_legend,
    marked,
    planes_of,
    with_letters,
)
from cardiosynth.core.store import whole_file
from cardiosynth.data.check.examination import Examination, Examined
from cardiosynth.data.check.finding import LEVELS, Finding
from cardiosynth.data.check.intensity import BINS, HU_RANGE
from cardiosynth.data.check.tissues import EXPECTED_HU, Tissue, structure_of
from cardiosynth.data.check.totals import Totals
from cardiosynth.data.check.words import counted, verdict
from cardiosynth.report.html import page_environment

PANEL_PX = 290
MOST_BYTES = 45_000
"""Of a picture; written as text into the page it takes a third more."""
QUALITIES = (88, 80, 70, 60, 45, 30)

CHART_PX = (170, 22)


class CheckSheet:
    """Collects cases, then writes the page. Use as a context manager.

    Args:
        out: the page to write, whole or not at all.

    Raises:
        InputError: the folder of ``out`` cannot be written.
    """

    def __init__(self, out: Path):
        self.out = Path(out)

    def __enter__(self) -> "CheckSheet":
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            # Without a name, so that nothing is left behind however the program ends.
            self._cards = tempfile.TemporaryFile("w+", dir=self.out.parent, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{self.out} cannot be written ({error.strerror}); choose another folder.") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._cards.close()

    def add(self, examined: Examined) -> None:
        """Draw a case."""
        self._cards.write(json.dumps(_card(examined)) + "\n")

    def write(self, found: Examination) -> None:
        """Write the page.

        Raises:
            InputError: it cannot be written.
        """
        by_case, whole = _sorted_out(found.findings)
        facts, is_ct = found.facts(), found.dataset.intensity_unit == "hu"
        script = files("cardiosynth.report").joinpath("check.js").read_text(encoding="utf-8").strip()
        parts = _pages().get_template("check.html.j2").generate(
            name=found.dataset.description.name,
            facts=facts,
            verdict=verdict(*(sum(f.level == level for f in found.findings) for level in LEVELS[:2])),
            kinds=sorted({(f.kind, f.kind.replace("_", " ")) for f in found.findings if f.level != "info"}),
            splits=sorted({str(row["split"]) for row in found.dataset.rows.values() if row.get("split")}),
            whole=whole,
            totals=[_total_row(total, len(found.dataset), is_ct) for total in found.structures.values()],
            legend=label_legend(found.dataset.labels, found.dataset.labels.codes),
            cards=self._stored(by_case),
            is_ct=is_ct,
            window=_window(is_ct),
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            version=__version__,
        )  # fmt: skip
        with whole_file(self.out) as partial, partial.open("w", encoding="utf-8") as page:
            page.writelines(parts)

    def _stored(self, by_case: dict[str, list[Finding]]) -> Iterator[dict[str, Any]]:
        """Yield the cards in the order of their cases, one in memory at a time, with what was found of each."""
        self._cards.seek(0)
        drawn: set[str] = set()
        for line in self._cards:
            card = json.loads(line)
            drawn.add(card["case_id"])
            yield _with_findings(card, by_case.get(card["case_id"], []))
        for case_id in sorted(by_case.keys() - drawn):
            unread = {"case_id": case_id, "picture": None, "patient": None, "split": None, "charts": []}
            yield _with_findings(unread, by_case[case_id])


def _sorted_out(findings: Sequence[Finding]) -> tuple[dict[str, list[Finding]], list[Finding]]:
    """Return findings by case, with those that name several cases beside each of them, and those of the whole set."""
    by_case: dict[str, list[Finding]] = defaultdict(list)
    whole = []
    for finding in sorted(findings, key=lambda finding: LEVELS.index(finding.level)):
        if finding.case_id is not None:
            by_case[finding.case_id].append(finding)
            continue
        whole.append(finding)
        named = finding.facts.get("cases")
        for case_id in named if isinstance(named, list) else []:
            if ":" not in case_id:
                by_case[case_id].append(finding)
    return by_case, whole


def _with_findings(card: dict[str, Any], findings: Sequence[Finding]) -> dict[str, Any]:
    count = Counter(finding.level for finding in findings)
    odd = any(row["chart"] is not None and row["chart"]["odd"] for row in card["charts"])
    return {**card, "odd": odd, "findings": findings, "errors": count["error"], "warnings": count["warning"],
            "kinds": " ".join(sorted({f.kind for f in findings if f.level != "info"}))}  # fmt: skip


def _window(is_ct: bool) -> str:
    if is_ct:
        return f"level {(CT_WINDOW.low + CT_WINDOW.high) / 2:.0f} HU, width {CT_WINDOW.width:.0f} HU"
    return "each image from its 1st to its 99th percentile"


# ---------------------------------------------------------------------------------------------------------------
# One case.


def _card(examined: Examined) -> dict[str, Any]:
    case, row = examined.case, examined.row()
    spacing = "voxel size unknown" if row["spacing_mm"] is None else f"{_product(row['spacing_mm'])} mm"
    return {
        **row,
        "picture": thumbnail(case),
        "grid": f"{_product(row['shape'])} voxels, {spacing}, {row['axes']}",
        "charts": [_structure_row(case, each) for each in examined.structures],
    }


def thumbnail(case: Case) -> str:
    """Return the planes through the heart with outlines, side by side, as text that a page can hold (JPEG)."""
    point = focus(case)
    sheet = Image.fromarray(contact_sheet([[_panel(case, plane, point) for plane in planes_of(case)]]))
    if sheet.height > PANEL_PX:
        sheet = sheet.resize((round(sheet.width * PANEL_PX / sheet.height), PANEL_PX), Image.Resampling.LANCZOS)
    return "data:image/jpeg;base64," + base64.b64encode(_small_jpeg(sheet)).decode("ascii")


def _panel(case: Case, plane: Plane, point: Sequence[int]) -> Picture:
    if case.image is None:
        picture = draw_mask(case, plane, point, PANEL_PX)
    else:
        picture = draw_image(case, plane, point, PANEL_PX)
        if case.mask is not None:
            picture = draw_mask(case, plane, point, PANEL_PX, over=picture, style="outline")
    return marked(with_letters(picture, plane), case)


def _small_jpeg(picture: Image.Image) -> bytes:
    """Return the picture in the best quality that fits, smaller where none does."""
    while True:
        for quality in QUALITIES:
            buffer = io.BytesIO()
            # Full color resolution: outlines are one pixel wide.
            picture.save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
            if buffer.tell() <= MOST_BYTES:
                return buffer.getvalue()
        picture = picture.resize((picture.width * 3 // 4, picture.height * 3 // 4), Image.Resampling.LANCZOS)


# ---------------------------------------------------------------------------------------------------------------
# Histograms as numbers: where every mark of an inline SVG goes.


@dataclass(frozen=True)
class Chart:
    """A histogram, in pixels: its outline as an SVG path, the usual range, the median."""

    path: str
    usual: tuple[float, float] | None
    median: float | None
    usual_text: str
    odd: bool


def histogram_chart(counts: Sequence[float], median: float | None, tissue: Tissue | None, is_ct: bool) -> Chart:
    """Return where the marks of a histogram go.

    Args:
        counts: per bin.
        median: in HU; None where it has no place on the axis.
        tissue: what is usual, None where nothing is known.
        is_ct: whether the axis is HU.
    """
    width, height = CHART_PX
    tops = np.asarray(counts, np.float64) / max(float(np.max(counts, initial=0)), 1e-9)
    points = [f"{width * i / BINS:.1f} {height - (height - 2) * top:.1f}" for i, top in enumerate(tops)]
    path = f"M0 {height}L" + "L".join(f"{p}H{width * (i + 1) / BINS:.1f}" for i, p in enumerate(points)) + f"V{height}Z"
    if not is_ct:
        return Chart(path, None, None, "", odd=False)
    usual = (_x(tissue.low_hu), _x(tissue.high_hu)) if tissue else None
    text = f"{tissue.low_hu:g} to {tissue.high_hu:g}".replace("-", "−") if tissue else ""
    odd = tissue is not None and median is not None and not tissue.low_hu <= median <= tissue.high_hu
    return Chart(path, usual, None if median is None else _x(median), text, odd)


def _x(value_hu: float) -> float:
    low, high = HU_RANGE
    return round(CHART_PX[0] * min(max((value_hu - low) / (high - low), 0.0), 1.0), 1)


def _structure_row(case: Case, each: Any) -> dict[str, Any]:
    light, is_ct = each.brightness, case.intensity_unit == "hu"
    pieces = "" if each.pieces is None else str(len(each.pieces))
    chart = None if light is None else histogram_chart(
        light.counts, light.median, EXPECTED_HU.get(structure_of(each.label.name)), is_ct)  # fmt: skip
    return {
        "code": each.label.code,
        "ml_value": "" if each.volume_ml is None else each.volume_ml,
        "median_value": "" if light is None else round(light.median, 2),
        "title": each.label.title,
        "color": each.label.color,
        "ml": "–" if each.volume_ml is None else _short(each.volume_ml),
        "median": "–" if light is None else _short(light.median),
        "range": "" if light is None else f"{_short(light.low)} to {_short(light.high)}",
        "pieces": pieces,
        "chart": None if chart is None else chart.__dict__,
    }


def _total_row(total: Totals, cases: int, is_ct: bool) -> dict[str, Any]:
    row = total.row()
    median = None if row["median"] is None else row["median"][1]
    chart = None
    if median is not None:
        chart = histogram_chart(row["histogram"], median, total.tissue, is_ct)
    return {**row, "title": total.label.title, "color": total.label.color, "chart": chart, "of": cases}


def _short(value: float) -> str:
    return (f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}").replace("-", "−")


def _product(numbers: Sequence[float]) -> str:
    return " × ".join(f"{number:.4g}" for number in numbers)


def _pages() -> Environment:
    environment = page_environment()
    environment.filters.update(short=_short, counted=counted)
    return environment
