"""What an evaluation found: tables whose every number says how it was made, figures, and how to repeat it.

This is the only thing ``report`` reads. Pictures are not in it: a figure names cases of dataset folders, by a path
relative to the results file, so that a results file and its datasets can be moved together.
"""

import math
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pydantic

from cardiosynth.core.config import Settings, parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.store import read_json, write_text

FORMAT_VERSION = 1
PACKAGES = ("cardiosynth", "torch", "monai", "numpy", "scipy", "scikit-image", "nibabel")


class Spread(Settings):
    """A mean over cases.

    Attributes:
        mean: the mean.
        sd: the sample standard deviation over cases, None for a single case.
        n: how many cases the mean is over.
    """

    mean: float
    sd: float | None = None
    n: int = pydantic.Field(ge=1)


class Estimate(Settings):
    """A number of a whole set of cases and how far it can be trusted.

    Attributes:
        value: the number.
        low: lower end of its interval.
        high: upper end.
        level: share of intervals made like this that hold the true number.
    """

    value: float
    low: float
    high: float
    level: float = 0.95


Cell = Spread | Estimate | float | str | None
"""One entry of a table; None is 'nothing to measure'."""


class Column(Settings):
    """A column of a table.

    Attributes:
        title: heading.
        unit: ``HU``, ``mm``, ``mL``, ``%``, ``dB``; empty for plain numbers and text.
        better: which direction is better, where one is.
        digits: decimals shown.
        signed: whether a plus is shown, of differences.
    """

    title: str
    unit: str = ""
    better: Literal["higher", "lower"] | None = None
    digits: int = pydantic.Field(default=2, ge=0)
    signed: bool = False


class Table(Settings):
    """Numbers and how they were made.

    Attributes:
        title: what it tells.
        protocol: how every number was made: cases, window, region, definition.
        columns: headings; the first column names the row.
        rows: one cell per column.
        bars: titles of the columns to draw as bars beside their numbers.
        best: (row, column) of the cells that are better than all they are compared with, beyond chance; the protocol
            says by which test.
        command: that makes it, where it is not that of the last stage.
    """

    title: str
    protocol: str
    columns: tuple[Column, ...] = pydantic.Field(min_length=1)
    rows: tuple[tuple[Cell, ...], ...]
    bars: tuple[str, ...] = ()
    best: tuple[tuple[int, int], ...] = ()
    command: str = ""

    @pydantic.model_validator(mode="after")
    def _rectangular(self) -> "Table":
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"the table '{self.title}' has rows that are not {len(self.columns)} cells long")
        if any(not (0 <= i < len(self.rows) and 0 <= j < len(self.columns)) for i, j in self.best):
            raise ValueError(f"the table '{self.title}' marks a cell that it does not have")
        unknown = set(self.bars) - {column.title for column in self.columns}
        if unknown:
            raise ValueError(f"the table '{self.title}' has no column '{min(unknown)}' to draw as bars")
        return self


class CasePointer(Settings):
    """Where a case lies: a dataset folder, relative to the results file, and the case's name in it."""

    dataset: str
    case_id: str


class _Shown(Settings):
    """What all figures have.

    Attributes:
        title: heading.
        caption: what one should know when looking at it: protocol, cases, definition.
        command: that makes it, where it is not that of the last stage.
    """

    title: str
    caption: str = ""
    command: str = ""


class CaseFigure(_Shown):
    """Real image, synthetic image, their difference, mask and confidence of one synthetic case in three planes.

    Attributes:
        synthetic: the synthetic case.
        real: the real case beside it; None where there is none.
        paired: whether the real image has the very mask that the synthetic image was made from, so that both are
            cut at the same place and their difference is shown.
    """

    kind: Literal["case"] = "case"
    synthetic: CasePointer
    real: CasePointer | None = None
    paired: bool = False


class ProjectionFigure(_Shown):
    """Maximum-intensity projections of one structure in the masks of several cases.

    Attributes:
        structure: name of the structure in the label tables.
        cases: a title for each case, and the case.
    """

    kind: Literal["projection"] = "projection"
    structure: str
    cases: tuple[tuple[str, CasePointer], ...]


class Arm(Settings):
    """One way of doing a thing, with its value per structure and case (None: nothing to measure)."""

    name: str
    values: dict[str, tuple[float | None, ...]]


class _Measured(_Shown):
    """What figures of one measure have.

    Attributes:
        measure: what the values are, e.g. ``Dice``.
        unit: of the values, empty for plain numbers.
        better: which direction is better.
    """

    measure: str
    unit: str = ""
    better: Literal["higher", "lower"] = "higher"


class ArmsFigure(_Measured):
    """Several arms side by side: every case, and box plots where there are enough.

    Attributes:
        arms: the arms, in the order to be shown.
    """

    kind: Literal["arms"] = "arms"
    arms: tuple[Arm, ...] = pydantic.Field(min_length=1)


class BarGroup(Settings):
    """One number of every arm, such as that of one data set."""

    name: str
    values: dict[str, Estimate | Spread | float | None]


class BarsFigure(_Measured):
    """Groups of bars, one bar per arm (FCaS Fig. 6).

    Attributes:
        groups: of bars, in the order to be shown.
    """

    kind: Literal["bars"] = "bars"
    groups: tuple[BarGroup, ...] = pydantic.Field(min_length=1)


class PointGroup(Settings):
    """Points in the plane that belong together."""

    name: str
    points: tuple[tuple[float, float], ...]


class PointsFigure(_Shown):
    """Groups of points in a plane whose axes mean nothing, such as t-SNE of features (FCaS Fig. 7)."""

    kind: Literal["points"] = "points"
    groups: tuple[PointGroup, ...] = pydantic.Field(min_length=1)


class Curve(Settings):
    """A line through points."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]

    @pydantic.model_validator(mode="after")
    def _paired(self) -> "Curve":
        if len(self.x) != len(self.y):
            raise ValueError(f"the curve '{self.name}' has {len(self.x)} x and {len(self.y)} y")
        return self


class CurvesFigure(_Shown):
    """Several curves over one axis, such as sparsification curves.

    Attributes:
        x_title: what x is, with its unit.
        y_title: what y is, with its unit.
        curves: in the order to be shown.
    """

    kind: Literal["curves"] = "curves"
    x_title: str
    y_title: str
    curves: tuple[Curve, ...] = pydantic.Field(min_length=1)


class RadarFigure(_Shown):
    """Several criteria scored for several arms, one spoke per criterion (FCaS Fig. 9 c).

    Attributes:
        criteria: names of the spokes; outward is better on each.
        ends: score in the middle and at the rim.
        scores: arm -> score by criterion.
    """

    kind: Literal["radar"] = "radar"
    criteria: tuple[str, ...] = pydantic.Field(min_length=3)
    ends: tuple[float, float]
    scores: dict[str, tuple[float, ...]]

    @pydantic.model_validator(mode="after")
    def _complete(self) -> "RadarFigure":
        short = [name for name, scores in self.scores.items() if len(scores) != len(self.criteria)]
        if short:
            raise ValueError(f"'{short[0]}' has not as many scores as there are criteria")
        return self


class Tile(Settings):
    """One case of a gallery, a line under it, and what of the case is shown."""

    case: CasePointer
    text: str = ""
    layer: Literal["image", "mask", "confidence", "surface"]


class GalleryFigure(_Shown):
    """Many cases at a glance: masks and their offspring (FCaS Fig. 8), one mask under templates (StructDiff Fig. 5).

    Attributes:
        plane: that is cut, or that one looks at surfaces along.
        rows: of tiles, each cut through its own heart; None leaves a place empty.
    """

    kind: Literal["gallery"] = "gallery"
    plane: Literal["axial", "coronal", "sagittal"] = "axial"
    rows: tuple[tuple[Tile | None, ...], ...] = pydantic.Field(min_length=1)


Figure = Annotated[
    CaseFigure | ProjectionFigure | GalleryFigure | ArmsFigure | BarsFigure | PointsFigure | CurvesFigure | RadarFigure,
    pydantic.Field(discriminator="kind"),
]


class Stage(Settings):
    """One step of the work: what it was, how long it took, and the command that repeats it."""

    name: str
    seconds: float | None = None
    command: str = ""


class Results(Settings):
    """Everything a report shows.

    Attributes:
        title: heading of the report.
        summary: a few sentences under it.
        notes: what must be known before the numbers are read; shown above the tables.
        tables: numbers.
        figures: pictures, by reference.
        stages: how it was made.
        environment: program and package versions, machine.
        format_version: of this file.
    """

    title: str
    summary: str = ""
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    stages: tuple[Stage, ...] = ()
    environment: dict[str, str] = {}  # noqa: RUF012
    format_version: int = FORMAT_VERSION


def with_stage(results: Results, stage: Stage) -> Results:
    """Return results that were made by one step more."""
    return results.model_copy(update={"stages": (*results.stages, stage)})


def spread(values: Iterable[float]) -> Spread | None:
    """Return mean and standard deviation of the finite values; None where there is none.

    NaN (nothing to measure) and infinity (no distance) are left out; ``n`` says how many values are in.
    """
    finite = np.array([value for value in values if math.isfinite(value)], np.float64)
    if not len(finite):
        return None
    return Spread(mean=float(finite.mean()), sd=float(finite.std(ddof=1)) if len(finite) > 1 else None, n=len(finite))


def estimate(found: tuple[float, float, float] | None) -> Estimate | None:
    """Return a number and the ends of its interval as a cell; None where nothing is known."""
    if found is None or math.isnan(found[0]):
        return None
    return Estimate(value=found[0], low=found[1], high=found[2])


def pointer(root: Path, case_id: str, relative_to: Path | None) -> CasePointer:
    """Return where a case lies, seen from the folder of the results file (the working folder for None)."""
    base = Path.cwd() if relative_to is None else Path(relative_to)
    try:
        path = os.path.relpath(root.resolve(), base.resolve())
    except ValueError:  # another drive
        path = str(root.resolve())
    return CasePointer(dataset=Path(path).as_posix(), case_id=case_id)


def environment() -> dict[str, str]:
    """Return what the numbers were made with: versions of program and packages, and the machine."""
    facts = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = "not installed"
    return {**facts, "system": f"{platform.system()} {platform.machine()}", "processors": str(os.cpu_count())}


def write_results(results: Results, path: Path) -> None:
    """Write a results file, whole or not at all."""
    write_text(path, results.model_dump_json(indent=2) + "\n")


def read_results(path: Path) -> Results:
    """Read a results file.

    Raises:
        InputError: the file is missing, is not JSON, or is not a results file of this version.
    """
    if Path(path).is_dir():
        raise InputError(f"{path} is a folder; name the results file in it that cardiosynth evaluate wrote.")
    values = read_json(Path(path))
    if not isinstance(values, dict) or "format_version" not in values or "tables" not in values:
        raise InputError(f"{path} is not a results file; give the file that cardiosynth evaluate wrote.")
    if values["format_version"] != FORMAT_VERSION:
        found = values["format_version"]
        raise InputError(f"{path} has results format {found!r}, this program reads {FORMAT_VERSION}; evaluate anew.")
    return parse_settings(Results, values, str(path))
