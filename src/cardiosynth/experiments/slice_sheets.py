"""Sheets of slices: what was made for a mask, in every way, beside the real slice of that mask.

Each slice twice: as it is, and with the outlines of the mask. Does the ventricle lie in its outline?

Run: ``python -m cardiosynth.experiments.slice_sheets SHEET.png --data DATASET --made NOISE IMAGE RECONSTRUCTION``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import Window
from cardiosynth.core.lettering import legend, stacked
from cardiosynth.core.picture import (
    Picture,
    contact_sheet,
    draw_image,
    draw_mask,
    focus,
    label_legend,
    marked,
    save_png,
    window_for,
)
from cardiosynth.data.dataset import Dataset, read_dataset

SIZE_PX = 192
SLICES = 6


def draw_sheet(real: Dataset, made: Mapping[str, Dataset], count: int = SLICES) -> Picture:
    """Draw real slices from the first to the last, evenly spaced, with what was made for their masks.

    Args:
        real: slices with masks.
        made: title of a column -> slices that name the real ones as their ``reference``.
        count: how many slices at most.

    Raises:
        InputError: no real slice whose mask all of ``made`` show.
    """
    by_reference = {title: _by_reference(dataset) for title, dataset in made.items()}
    shown = [name for name in real.case_ids if all(name in found for found in by_reference.values())]
    if not shown:
        raise InputError(f"no mask of {real.root} has an image in all of {', '.join(made)}; make them for its masks.")
    chosen = [shown[index * len(shown) // count] for index in range(count)] if len(shown) > count else shown
    rows, titles = [], []
    for name in chosen:
        case = real.case(name)
        images = [made[title].case(found[name]) for title, found in by_reference.items()]
        rows += _lines(case, images)
        titles += [name, ""]
    sheet = contact_sheet(rows, titles, ("mask", *made, "real"))
    return stacked([sheet, legend(label_legend(real.labels, real.labels.target_codes), sheet.shape[1])])


def _lines(case: Case, images: Sequence[Case]) -> list[list[Picture | None]]:
    """Return the images of a mask, all in the real one's window: mask and images, and below them with outlines."""
    window, targets = window_for(case), case.with_(mask=case.labels.only_targets(case.required_mask()))
    shown = [*images, case]
    plain: list[Picture | None] = [draw_mask(targets, "axial", focus(case), SIZE_PX)]
    plain += [marked(_image(image, window), image) for image in shown]
    outlined: list[Picture | None] = [None]
    outlined += [
        marked(draw_mask(targets, "axial", focus(case), SIZE_PX, over=_image(image, window), style="outline"), image)
        for image in shown
    ]
    return [plain, outlined]


def _image(case: Case, window: Window) -> Picture:
    return draw_image(case, "axial", focus(case), SIZE_PX, window)


def _by_reference(dataset: Dataset) -> dict[str, str]:
    """Return, by the name of the real case, the first case that was made for its mask."""
    found: dict[str, str] = {}
    for case_id, row in dataset.rows.items():
        found.setdefault(str(row["provenance"].get("reference", case_id)), case_id)
    return found


app = App(help=__doc__)


@app.default
def main(
    sheet: Path,
    /,
    *,
    data: Path,
    made: Annotated[list[Path], Parameter(consume_multiple=True)],
    count: int = SLICES,
) -> None:
    """Write a sheet.

    Args:
        sheet: PNG file to write.
        data: real slices, or phantoms', with masks.
        made: datasets of slices for these masks; their folders' names head the columns.
        count: how many slices.
    """
    sheet.parent.mkdir(parents=True, exist_ok=True)
    save_png(draw_sheet(read_dataset(data), {folder.name: read_dataset(folder) for folder in made}, count), sheet)
    print(sheet)  # noqa: T201


if __name__ == "__main__":
    app()
