"""The demo's one picture: a phantom, the volume made for its mask, the mask and the confidence map."""

from pathlib import Path

from cardiosynth.core.case import Case
from cardiosynth.core.picture import (
    contact_sheet,
    draw_confidence,
    draw_image,
    draw_mask,
    focus,
    marked,
    save_png,
    with_letters,
)

COLUMNS = ("phantom", "synthetic", "mask", "confidence")
PLANES = ("axial", "coronal")
PANEL_PX = 260


def write_cover(real: Case, synthetic: Case, out: Path) -> None:
    """Write a PNG of two cases with the same mask, axial and coronal, at level 200 HU and width 800 HU."""
    point, rows = focus(synthetic), []
    for plane in PLANES:
        pictures = [
            (real, draw_image(real, plane, point, PANEL_PX)),
            (synthetic, draw_image(synthetic, plane, point, PANEL_PX)),
            (synthetic, draw_mask(synthetic, plane, point, PANEL_PX)),
            (synthetic, draw_confidence(synthetic, plane, point, PANEL_PX)),
        ]
        rows.append([marked(with_letters(picture, plane), case) for case, picture in pictures])
    save_png(contact_sheet(rows, PLANES, COLUMNS), out)
