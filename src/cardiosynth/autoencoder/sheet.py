"""What an autoencoder keeps, as a person sees it: original, reconstruction and their difference."""

from collections.abc import Callable, Sequence

import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.core.intensity import Window
from cardiosynth.core.picture import (
    Picture,
    Plane,
    contact_sheet,
    draw_image,
    focus,
    mark_of,
    planes_of,
    window_for,
    with_letters,
    with_mark,
)

SIZE_PX = 260
DIFFERENCE = 0.5
"""Width of the difference's window, as a share of the images'; gray is no difference."""


def verdict_sheet(reconstruct: Callable[[Case], np.ndarray], cases: Sequence[Case]) -> Picture:
    """Return a line per case and plane, through the first coronary artery where there is one.

    Args:
        reconstruct: case -> its image after encoding and decoding, (1, *grid), in the case's unit.
        cases: with images.
    """
    rows, titles = [], []
    for case in cases:
        planes = planes_of(case)
        made = case.with_(image=reconstruct(case).astype(np.float32))
        rows += [_line(case, made, plane) for plane in planes]
        titles += [case.case_id] + [""] * (len(planes) - 1)
    return contact_sheet(rows, titles, ("original", "reconstruction", "difference"))


def _line(case: Case, made: Case, plane: Plane) -> list[Picture]:
    point, window = focus(case), window_for(case)
    change = made.with_(image=made.required_image() - case.required_image().astype(np.float32))
    half, unit = DIFFERENCE * window.width / 2, " HU" if case.intensity_unit == "hu" else ""
    shown = [
        (draw_image(case, plane, point, SIZE_PX, window), mark_of(case)),
        (draw_image(made, plane, point, SIZE_PX, window), f"RECONSTRUCTION {mark_of(case)}".strip()),
        (draw_image(change, plane, point, SIZE_PX, Window(low=-half, high=half)), f"{-half:.0f} to {half:.0f}{unit}"),
    ]
    return [with_mark(with_letters(picture, plane), text) if text else picture for picture, text in shown]
