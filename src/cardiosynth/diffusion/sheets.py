"""Sheets of samples: what a network in training draws, beside what it should look like.

Sampling is built on top of this package, so what draws is handed in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cardiosynth.autoencoder.codec import Codec
from cardiosynth.core.case import Case
from cardiosynth.core.picture import (
    Picture,
    Plane,
    contact_sheet,
    draw_image,
    draw_mask,
    focus,
    marked,
    planes_of,
    save_png,
    window_for,
    with_letters,
)
from cardiosynth.core.random import generator
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.loader import CaseCache
from cardiosynth.diffusion.task import ControlTask
from cardiosynth.diffusion.unet import TemplateUNet
from cardiosynth.training.watch import Watch, WatchSettings

SAMPLES = "samples"
"""Folder of a stage that holds the sheets."""
SIZE_PX = 200
MASK_OPACITY = 0.45


@dataclass(frozen=True, eq=False)
class Trainee:
    """The networks as they are in the middle of training.

    Attributes:
        codec: with the latents' statistics.
        network: in eval mode, with the averaged weights.
        record: of the checkpoint that these weights would make, see ``diffusion/stages.py``.
    """

    codec: Codec
    network: TemplateUNet
    record: Mapping[str, Any]


Draw = Callable[[Trainee, Case, Case | None], Case]
"""``(trainee, template, reference)`` -> a synthetic case that shows the reference's mask like the template, or, for a
reference of None, anything on the template's grid. The same cases get the same noise at every call."""


class Row(NamedTuple):
    """A line of a sheet.

    Attributes:
        title: what the case is to the network, and its name.
        reference: a real case with its mask.
        template: a real case.
    """

    title: str
    reference: Case
    template: Case


def control_sheet(trainee: Trainee, draw: Draw, rows: Sequence[Row]) -> Picture:
    """Return mask, template, synthetic and real image of every row, plane by plane.

    The column of templates is left out where every row is its own, as for networks that are told of masks alone.
    """
    pictures, titles = [], []
    columns = ["mask", "synthetic", "real"]
    if any(row.template is not row.reference for row in rows):
        columns.insert(1, "template")
    for row in rows:
        made = draw(trainee, row.template, row.reference)
        lines = [[line[name] for name in columns] for line in _planes(row, made)]
        pictures += lines
        titles += [row.title] + [""] * (len(lines) - 1)
    return contact_sheet(pictures, titles, columns)


def diffusion_sheet(trainee: Trainee, draw: Draw, cases: Sequence[Case]) -> Picture:
    """Return samples without a condition on the grids of these cases, one per row, plane by plane."""
    rows = []
    for case in cases:
        made, window = draw(trainee, case, None), window_for(case)
        planes = planes_of(made)
        rows.append([_finished(draw_image(made, p, focus(made), SIZE_PX, window), p, made) for p in planes])
    return contact_sheet(rows, [f"sample {index}" for index in range(len(rows))], planes_of(cases[0]))


def own_rows(cases: Dataset, held_out: Sequence[int], count: int) -> list[Row]:
    """Return rows of cases with their masks that are nobody's template: held-out ones, or else training cases."""
    chosen, kind = (held_out or range(len(cases)))[:count], "held out" if held_out else "training"
    return [Row(f"{kind}: {case.case_id}", case, case) for case in (cases[index] for index in chosen)]


def rows_of(task: ControlTask, cache: CaseCache, count: int) -> list[Row]:
    """Return the pairs of every sheet: of held-out cases, or of training cases where none is held out."""
    rows, kind = [], "held out" if task.held_out else "training"
    for index in (task.held_out or range(len(cache)))[:count]:
        template = task.mate(index, generator(0, "sheet", cache.case_ids[index]))
        rows.append(Row(f"{kind}: {cache.case_ids[index]}", cache.cases[index], cache.cases[template]))
    return rows


def sheet_watch(stage: Path, settings: WatchSettings, sheet: Callable[[], Picture]) -> Watch:
    """Return what writes a sheet to the stage's folder every few steps."""

    def look(step: int) -> dict[str, float]:
        save_png(sheet(), stage / SAMPLES / f"step-{step:07d}.png")
        return {}

    return Watch(settings.sheet_every, look)


def _planes(row: Row, made: Case) -> list[dict[str, Picture]]:
    """Return the pictures of a row by their column, plane by plane."""
    real, template, window = row.reference, row.template, window_for(row.reference)
    point, other = focus(real), focus(template)
    lines = []
    for plane in planes_of(real):
        below = draw_image(real, plane, point, SIZE_PX, window)
        shown = {
            "mask": (draw_mask(real, plane, point, SIZE_PX, over=below, opacity=MASK_OPACITY), real),
            "template": (draw_image(template, plane, other, SIZE_PX, window_for(template)), template),
            "synthetic": (draw_image(made, plane, point, SIZE_PX, window), made),
            "real": (below, real),
        }
        lines.append({name: _finished(picture, plane, case) for name, (picture, case) in shown.items()})
    return lines


def _finished(picture: Picture, plane: Plane, case: Case) -> Picture:
    return marked(with_letters(picture, plane), case)
