"""Figures of a report: cases looked up in their datasets and drawn. What cannot be found becomes a sentence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import Window
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.picture import (
    CT_WINDOW,
    Picture,
    Plane,
    draw_confidence,
    draw_heat,
    draw_image,
    draw_mask,
    draw_projection,
    draw_surface,
    focus,
    label_legend,
    marked,
    planes_of,
    window_for,
    window_text,
    with_letters,
)
from cardiosynth.data.dataset import Dataset, read_dataset
from cardiosynth.evaluation.results import CaseFigure, CasePointer, Figure, GalleryFigure, ProjectionFigure, Tile
from cardiosynth.metrics.topology import components

PANEL_PX = 300
MASK_OPACITY = 0.72
ERROR_SHARE = 0.25
"""Share of the window's width at which a difference is as bright as can be: 200 HU of 800."""
VESSEL = "coronary_artery"
ORIGINS = {"real": "Real", "phantom": "Phantom", "synthetic": "Synthetic"}


@dataclass(frozen=True)
class Panel:
    """One picture: what it shows in words, and a line under it."""

    picture: Picture
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
        error: what the brightest difference is, in words; empty where none is shown.
        missing: sentences in place of what cannot be shown.
    """

    columns: list[tuple[str, str]] = field(default_factory=list)
    rows: list[tuple[str, list[Panel | None]]] = field(default_factory=list)
    legend: list[tuple[str, tuple[int, int, int]]] = field(default_factory=list)
    facts: str = ""
    confidence: bool = False
    error: str = ""
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


def panels_of(figure: Figure, library: Library) -> PanelGrid | None:
    """Return the pictures of a figure that shows anatomy; None for a chart."""
    match figure:
        case CaseFigure():
            return case_panels(figure, library)
        case ProjectionFigure():
            return projection_panels(figure, library)
        case GalleryFigure():
            return gallery_panels(figure, library)
        case _:
            return None


def case_panels(figure: CaseFigure, library: Library) -> PanelGrid:
    """Return real image, synthetic image, their difference, mask and confidence, one row per plane."""
    missing: list[str] = []
    made = library.find(figure.synthetic, missing)
    real = library.find(figure.real, missing) if figure.real is not None else None
    if made is None:
        return PanelGrid(missing=tuple(missing))
    point, columns = focus(made, VESSEL), []
    same = figure.paired and real is not None and real.grid.same_as(made.grid)
    window = window_for(real) if same and real is not None else None
    if real is not None:
        columns.append(_image_column(real, point if same else focus(real, VESSEL), window))
    columns.append(_image_column(made, point, window))
    if real is not None and window is not None:
        columns.append(_error_column(real, made, point, window))
    columns += _map_columns(made, point)
    rows: list[tuple[str, list[Panel | None]]] = [
        (plane.capitalize(), [_panel(column, plane) for column in columns]) for plane in planes_of(made)
    ]
    return PanelGrid(
        columns=[(column.heading, column.subtitle) for column in columns],
        rows=rows,
        legend=_legend([made]),
        facts=_facts(made, shared=window is not None),
        confidence=made.confidence is not None,
        error="" if window is None else _brightest(made, window),
        missing=tuple(missing),
    )


def gallery_panels(figure: GalleryFigure, library: Library) -> PanelGrid:
    """Return the tiles of a gallery, row by row."""
    missing: list[str] = []
    found = [[None if t is None else (t, library.find(t.case, missing)) for t in row] for row in figure.rows]
    shown = [(tile, case) for row in found for tile, case in filter(None, row) if case is not None]
    if not shown:
        return PanelGrid(missing=tuple(missing))
    panels = [
        [None if x is None or x[1] is None else _tile_panel(x[0], x[1], figure.plane) for x in row] for row in found
    ]
    images = [case for tile, case in shown if tile.layer == "image"]
    return PanelGrid(
        rows=[("", row) for row in panels],
        legend=_legend([_targets(case) for tile, case in shown if tile.layer in ("mask", "surface")]),
        facts=f"Window: {_window_words(images[0])}." if images else "",
        confidence=any(tile.layer == "confidence" for tile, _ in shown),
        missing=tuple(missing),
    )


def _tile_panel(tile: Tile, case: Case, plane: Plane) -> Panel:
    at = focus(case, VESSEL)
    plane = plane if plane in planes_of(case) else "axial"
    draw = {
        "image": lambda: draw_image(case, plane, at, PANEL_PX),
        "mask": lambda: draw_mask(_targets(case), plane, at, PANEL_PX),
        "confidence": lambda: draw_confidence(case, plane, at, PANEL_PX),
        "surface": lambda: draw_surface(case, plane, PANEL_PX),
    }[tile.layer]
    words = f"{tile.layer} of {case.case_id}, {plane}"
    return Panel(marked(with_letters(draw(), plane), case), words, tile.text)


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
        panels.append(Panel(marked(letters, case), words, f"{title}; {_pieces(case, codes[0])}"))
    return PanelGrid(rows=[("", panels)] if panels else [], missing=tuple(missing))


def _image_column(case: Case, point: tuple[int, ...], window: Window | None) -> _Column:
    draw: Draw = lambda plane: draw_image(case, plane, point, PANEL_PX, window)  # noqa: E731
    return _Column(ORIGINS[case.origin], case.case_id, case, draw)


def _error_column(real: Case, made: Case, point: tuple[int, ...], window: Window) -> _Column:
    """Return the column of the absolute difference of two images under one mask."""
    error = np.abs(made.required_image().astype(np.float32) - real.required_image())
    brightness = Window(low=0.0, high=ERROR_SHARE * window.width)
    draw: Draw = lambda plane: draw_heat(made, error, brightness, plane, point, PANEL_PX)  # noqa: E731
    return _Column("Difference", "brighter is larger", made, draw)


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
    return Panel(picture, f"{plane} slice of {column.case.case_id}: {column.heading.lower()}")


def _facts(case: Case, *, shared: bool) -> str:
    window = f"Window: {_window_words(case)}."
    if shared and case.intensity_unit != "hu":
        window = "Window of both: the real image's 1st to 99th percentile."
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


def _window_words(case: Case) -> str:
    if case.intensity_unit != "hu":
        return "each image from its 1st to its 99th percentile"
    return window_text(case, CT_WINDOW)


def _brightest(case: Case, window: Window) -> str:
    if case.intensity_unit == "hu":
        return f"{ERROR_SHARE * window.width:.0f} HU"
    return f"{100 * ERROR_SHARE:.0f} % of the window"


def _targets(case: Case) -> Case:
    return case.with_(mask=case.labels.only_targets(case.required_mask()))


def _legend(cases: Sequence[Case]) -> list[tuple[str, tuple[int, int, int]]]:
    """Return (title, color) of the structures in the masks, each once."""
    tables: dict[LabelTable, set[int]] = {}
    for case in cases:
        codes = set() if case.mask is None else set(np.unique(case.mask).tolist())
        tables.setdefault(case.labels, set()).update(codes)
    return list(dict.fromkeys(entry for labels, codes in tables.items() for entry in label_legend(labels, codes)))


def _pieces(case: Case, code: int) -> str:
    sizes = components(case.required_mask()[0] == code).sizes
    if not len(sizes):
        return "absent"
    return f"{len(sizes)} {'piece' if len(sizes) == 1 else 'pieces'}, largest {100 * sizes[0] / sizes.sum():.0f} %"
