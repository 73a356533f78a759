"""Figures of a report: cases looked up in their datasets and drawn. What cannot be found becomes a sentence."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.picture import (
    CT_WINDOW,
    Picture,
    Plane,
    draw_confidence,
    draw_image,
    draw_mask,
    draw_projection,
    focus,
    label_legend,
    marked,
    planes_of,
    png_bytes,
    window_text,
    with_letters,
)
from cardiosynth.data.dataset import Dataset, read_dataset
from cardiosynth.evaluation.results import CaseFigure, CasePointer, ProjectionFigure
from cardiosynth.metrics.topology import components

PANEL_PX = 300
MASK_OPACITY = 0.72
VESSEL = "coronary_artery"
ORIGINS = {"real": "Real", "phantom": "Phantom", "synthetic": "Synthetic"}


@dataclass(frozen=True)
class Panel:
    """One picture: PNG, what it shows in words, and a line under it."""

    png: bytes
    description: str
    caption: str = ""


@dataclass(frozen=True)
class PanelGrid:
    """Pictures in rows and columns.

    Attributes:
        columns: (heading, line under it) of each column.
        rows: (heading, pictures) of each row; None leaves a place empty.
        legend: (title, color) of the structures shown.
        facts: what to know of the pictures: window, slices.
        confidence: whether a color scale of confidence belongs to it.
        missing: sentences in place of what cannot be shown.
    """

    columns: list[tuple[str, str]] = field(default_factory=list)
    rows: list[tuple[str, list[Panel | None]]] = field(default_factory=list)
    legend: list[tuple[str, tuple[int, int, int]]] = field(default_factory=list)
    facts: str = ""
    confidence: bool = False
    missing: tuple[str, ...] = ()


class Library:
    """Finds cases by pointer. Datasets are opened once.

    Args:
        root: the folder that pointers are relative to: that of the results file.
    """

    def __init__(self, root: Path):
        self._root = root
        self._datasets: dict[str, Dataset] = {}

    def case(self, pointer: CasePointer) -> Case:
        """Read a case.

        Raises:
            InputError: the dataset or the case is not there.
        """
        if pointer.dataset not in self._datasets:
            self._datasets[pointer.dataset] = read_dataset(self._root / pointer.dataset)
        return self._datasets[pointer.dataset].case(pointer.case_id)

    def find(self, pointer: CasePointer, missing: list[str]) -> Case | None:
        """Read a case, or add a sentence to ``missing``."""
        try:
            return self.case(pointer)
        except InputError as error:
            missing.append(f"{pointer.case_id} cannot be shown: {error}")
            return None


Draw = Callable[[Plane], Picture]


@dataclass(frozen=True)
class _Column:
    """A column of a case's figure: heading, line under it, whose it is, and how a plane of it is drawn."""

    heading: str
    subtitle: str
    case: Case
    draw: Draw


def case_panels(figure: CaseFigure, library: Library) -> PanelGrid:
    """Return real image, synthetic image, mask and confidence, one row per plane."""
    missing: list[str] = []
    made = library.find(figure.synthetic, missing)
    real = library.find(figure.real, missing) if figure.real is not None else None
    if made is None:
        return PanelGrid(missing=tuple(missing))
    point = focus(made, VESSEL)
    columns = [] if real is None else [_image_column(real, point if figure.paired else focus(real, VESSEL))]
    columns += [_image_column(made, point), *_map_columns(made, point)]
    rows: list[tuple[str, list[Panel | None]]] = [
        (plane.capitalize(), [_panel(column, plane) for column in columns]) for plane in planes_of(made)
    ]
    codes = [] if made.mask is None else np.unique(made.mask).tolist()
    return PanelGrid(
        columns=[(column.heading, column.subtitle) for column in columns],
        rows=rows,
        legend=label_legend(made.labels, codes),
        facts=_facts(made),
        confidence=made.confidence is not None,
        missing=tuple(missing),
    )


def projection_panels(figure: ProjectionFigure, library: Library) -> PanelGrid:
    """Return one picture per case, in one row: the structure seen from the front."""
    missing: list[str] = []
    panels: list[Panel | None] = []
    for title, place in figure.cases:
        case = library.find(place, missing)
        codes = [] if case is None else [label.code for label in case.labels if label.name == figure.structure]
        if case is None or not codes:
            continue
        picture = draw_projection(case, "coronal", codes[0], PANEL_PX)
        letters = with_letters(picture, "coronal") if len(case.grid.shape) == 3 else picture
        words = f"projection of {figure.structure.replace('_', ' ')} of {place.case_id}"
        panels.append(Panel(png_bytes(marked(letters, case)), words, f"{title}; {_pieces(case, codes[0])}"))
    return PanelGrid(rows=[("", panels)] if panels else [], missing=tuple(missing))


def _image_column(case: Case, point: tuple[int, ...]) -> _Column:
    return _Column(ORIGINS[case.origin], case.case_id, case, lambda plane: draw_image(case, plane, point, PANEL_PX))


def _map_columns(case: Case, point: tuple[int, ...]) -> list[_Column]:
    """Return the columns of mask and confidence, where there are."""

    def mask(plane: Plane) -> Picture:
        under = draw_image(case, plane, point, PANEL_PX)
        return draw_mask(case, plane, point, PANEL_PX, over=under, opacity=MASK_OPACITY)

    columns = []
    if case.mask is not None:
        columns.append(_Column("Mask", "on the synthetic image", case, mask))
    if case.confidence is not None:
        draw: Draw = lambda plane: draw_confidence(case, plane, point, PANEL_PX)  # noqa: E731
        columns.append(_Column("Confidence", "lighter is more reliable", case, draw))
    return columns


def _panel(column: _Column, plane: Plane) -> Panel | None:
    """Return one picture; None where the column's case does not have this plane."""
    if plane not in planes_of(column.case):
        return None
    picture = marked(with_letters(column.draw(plane), plane), column.case)
    return Panel(png_bytes(picture), f"{plane} slice of {column.case.case_id}: {column.heading.lower()}")


def _facts(case: Case) -> str:
    window = f"Window: {window_text(case, CT_WINDOW)}."
    if case.intensity_unit != "hu":
        window = "Window: each image from its 1st to its 99th percentile."
    if len(case.grid.shape) == 2:
        return window
    vessel = [label.code for label in case.labels if label.name == VESSEL]
    rich = case.mask is not None and bool(vessel) and bool((case.mask == vessel[0]).any())
    where = (
        "Axial: the slice with most coronary artery; others: the heart's center."
        if rich
        else "Cut through the heart's center."
    )
    return f"{window} {where} Planes are the grid's own; the patient's right is on the left."


def _pieces(case: Case, code: int) -> str:
    sizes = components(case.required_mask()[0] == code).sizes
    if not len(sizes):
        return "absent"
    return f"{len(sizes)} {'piece' if len(sizes) == 1 else 'pieces'}, largest {100 * sizes[0] / sizes.sum():.0f} %"
