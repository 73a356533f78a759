"""Pictures of cases: the only place that draws anatomy.

Slices are shown as radiologists look at them. Axial: anterior up, the patient's right on the viewer's left. Coronal:
superior up, the patient's right on the viewer's left. Sagittal: superior up, anterior on the viewer's left. A
picture is (rows, columns, 3) uint8 with square pixels, whatever the voxels' shape.
"""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import Window
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.store import whole_file

Plane = Literal["axial", "coronal", "sagittal"]
Picture = UInt8[np.ndarray, "_ _ 3"]

PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
AXES: dict[Plane, int] = {"axial": 2, "coronal": 1, "sagittal": 0}
"""The voxel axis that a plane cuts."""

LETTERS: dict[Plane, str] = {"axial": "ARPL", "coronal": "SRIL", "sagittal": "SAIP"}
"""What lies at the top, left, bottom and right of the picture."""

CT_WINDOW = Window(low=-200.0, high=600.0)
"""Level 200 HU, width 800 HU: the usual window of coronary CT angiography."""

MR_PERCENTILES = (1.0, 99.0)


def window_for(case: Case) -> Window:
    """Return the display window: level 200, width 800 for HU; the 1st and 99th percentile of this image otherwise."""
    if case.intensity_unit == "hu":
        return CT_WINDOW
    low, high = (float(v) for v in np.percentile(case.required_image(), MR_PERCENTILES))
    return Window(low=low, high=max(high, low + 1e-3))


def window_text(case: Case, window: Window) -> str:
    """Return the window in words, e.g. ``"level 200 HU, width 800 HU"``."""
    unit = " HU" if case.intensity_unit == "hu" else ""
    return f"level {(window.low + window.high) / 2:.0f}{unit}, width {window.width:.0f}{unit}"


def planes_of(case: Case) -> tuple[Plane, ...]:
    """Return the planes that can be shown: all three of a volume, the axial one of a 2D slice."""
    return PLANES if len(case.grid.shape) == 3 else ("axial",)


def focus(case: Case, structure: str = "coronary_artery") -> tuple[int, ...]:
    """Return the voxel that three planes through a case should meet in.

    The centroid of the target structures; its height is that of the slice with most voxels of ``structure``, where
    the case has it. Without a mask, or with an empty one, the middle of the grid.
    """
    middle = tuple(n // 2 for n in case.grid.shape)
    if case.mask is None:
        return middle
    targets = case.labels.only_targets(case.mask[0])
    if not targets.any():
        return middle
    point = [round(float(where.mean())) for where in np.nonzero(targets)]
    codes = [label.code for label in case.labels if label.name == structure]
    if len(point) == 3 and codes:
        area = (targets == codes[0]).sum(axis=(0, 1))
        point[2] = int(area.argmax()) if area.any() else point[2]
    return tuple(point)


def display_slice(volume: Shaped[np.ndarray, "*grid"], plane: Plane, index: int) -> Shaped[np.ndarray, "rows columns"]:
    """Return one slice of an RAS+ volume (X, Y, Z) or (X, Y), turned as it is displayed."""
    cut = volume if volume.ndim == 2 else np.take(volume, index, axis=AXES[plane])
    return cut[::-1, ::-1].T


def picture_size(case: Case, plane: Plane, size_px: int) -> tuple[int, int]:
    """Return (rows, columns) of a picture with square pixels whose longer side is ``size_px``.

    A slice with more voxels than that gets a larger picture, in which every voxel is seen.
    """
    axes = [axis for axis in range(len(case.grid.shape)) if len(case.grid.shape) == 2 or axis != AXES[plane]]
    spacing_mm = [case.grid.spacing_mm[axis] for axis in axes]
    columns_mm, rows_mm = (case.grid.shape[axis] * case.grid.spacing_mm[axis] for axis in axes)
    scale = max(size_px / max(columns_mm, rows_mm), 1 / min(spacing_mm))
    return max(1, round(rows_mm * scale)), max(1, round(columns_mm * scale))


def draw_image(case: Case, plane: Plane, point: Sequence[int], size_px: int, window: Window | None = None) -> Picture:
    """Draw one slice of the image through ``point`` in gray, interpolated to square pixels."""
    window = window or window_for(case)
    cut = display_slice(case.required_image()[0], plane, _index(plane, point))
    gray = Image.fromarray(window.to_model(cut.astype(np.float32)))
    rows, columns = picture_size(case, plane, size_px)
    smooth = np.asarray(gray.resize((columns, rows), Image.Resampling.BICUBIC)).clip(0, 1)
    return np.repeat(np.rint(smooth * 255).astype(np.uint8)[..., None], 3, axis=-1)


def draw_mask(
    case: Case,
    plane: Plane,
    point: Sequence[int],
    size_px: int,
    *,
    over: Picture | None = None,
    style: Literal["fill", "outline"] = "fill",
    opacity: float = 1.0,
) -> Picture:
    """Draw one slice of the mask in the label table's colors; voxels stay visible as they are.

    Args:
        case: a case with a mask.
        plane: which plane.
        point: the voxel the plane goes through.
        size_px: longer side of the picture.
        over: a picture of the same slice to draw on; black for None.
        style: whole structures, or their outlines.
        opacity: of the colors over the picture, 0..1.
    """
    size = picture_size(case, plane, size_px)
    codes = _enlarged(display_slice(case.required_mask()[0], plane, _index(plane, point)), size)
    shown = codes > 0 if style == "fill" else _outlines(codes)
    picture = np.zeros((*size, 3), np.uint8) if over is None else over.copy()
    mixed = (1 - opacity) * picture[shown] + opacity * case.labels.colors()[codes[shown]]
    picture[shown] = np.rint(mixed).astype(np.uint8)
    return picture


def draw_confidence(case: Case, plane: Plane, point: Sequence[int], size_px: int) -> Picture:
    """Draw one slice of the confidence map: dark violet 0, green 0.5, yellow 1 (viridis)."""
    if case.confidence is None:
        raise InputError(f"case {case.case_id} has no confidence map; add confidenceTr/{case.case_id}.nii.gz.")
    cut = display_slice(case.confidence[0], plane, _index(plane, point))
    return confidence_colors(_enlarged(cut, picture_size(case, plane, size_px)))


def draw_heat(
    case: Case, values: Shaped[np.ndarray, "1 *grid"], window: Window, plane: Plane, point: Sequence[int], size_px: int
) -> Picture:
    """Draw one slice of values on the case's grid: black at the window's low end, yellow at its high."""
    cut = window.to_model(display_slice(values[0], plane, _index(plane, point)).astype(np.float32))
    return heat_colors(_enlarged(cut, picture_size(case, plane, size_px)))


def confidence_colors(values: Float[np.ndarray, "rows columns"]) -> Picture:
    """Return the color of each confidence in [0, 1]."""
    return _colors("viridis", values)


def heat_colors(values: Float[np.ndarray, "rows columns"]) -> Picture:
    """Return the color of each value in [0, 1]: black, violet, red, yellow."""
    return _colors("inferno", values)


def _colors(name: str, values: Float[np.ndarray, "rows columns"]) -> Picture:
    from matplotlib import colormaps

    colors: np.ndarray = colormaps[name](values.clip(0, 1), bytes=True)
    return np.ascontiguousarray(colors[..., :3])


def draw_projection(case: Case, plane: Plane, code: int, size_px: int) -> Picture:
    """Draw the maximum-intensity projection of one structure, brighter where it is nearer to the viewer.

    The other target structures show as a faint shadow behind it. The viewer looks as at a slice of that plane: from
    the feet, from the front, from the patient's left.
    """
    mask = case.required_mask()[0]
    shadow = _projected(np.isin(mask, case.labels.target_codes), plane) > 0
    depth = _projected(mask == code, plane)
    shade = np.where(shadow, 0.16, 0.0)[..., None] * np.array([200, 210, 230])
    bright = np.where(depth > 0, 0.35 + 0.65 * depth, 0.0)[..., None] * np.array(case.labels.colors()[code], float)
    bright = np.where(depth[..., None] > 0, bright + 255 * 0.25 * depth[..., None], shade)
    rows, columns = picture_size(case, plane, size_px)
    small = Image.fromarray(np.rint(bright.clip(0, 255)).astype(np.uint8))
    return np.asarray(small.resize((columns, rows), Image.Resampling.BILINEAR))


def draw_surface(case: Case, plane: Plane, size_px: int) -> Picture:
    """Draw the surfaces of the target structures as a viewer of that plane sees them, lit from where one looks.

    The viewer stands as in :func:`draw_projection`. Slices have no surface and are drawn as masks.
    """
    mask = case.labels.only_targets(case.required_mask()[0])
    if mask.ndim == 2:
        return draw_mask(case, plane, (0, 0), size_px)
    axis = AXES[plane]
    toward = np.flip(mask, axis) if plane == "coronal" else mask
    first, hit = (toward > 0).argmax(axis), (toward > 0).any(axis)
    codes = np.take_along_axis(toward, np.expand_dims(first, axis), axis).squeeze(axis)
    spacing_mm = case.grid.spacing_mm
    depth_mm = np.where(hit, first * spacing_mm[axis], 0.0)
    # Voxels are steps; the light would show nothing else.
    smooth_mm = ndimage.gaussian_filter(depth_mm, 1.0) / np.maximum(ndimage.gaussian_filter(hit * 1.0, 1.0), 1e-6)
    slopes = np.gradient(smooth_mm, *(s for i, s in enumerate(spacing_mm) if i != axis))
    light = 0.3 + 0.7 / np.sqrt(1 + sum(slope**2 for slope in slopes))
    far = 1 - 0.4 * depth_mm / max(float(depth_mm.max()), 1e-6)
    shaded = case.labels.colors()[codes] * (hit * light * far)[..., None]
    rows, columns = picture_size(case, plane, size_px)
    small = Image.fromarray(np.rint(shaded[::-1, ::-1].swapaxes(0, 1)).astype(np.uint8))
    return np.asarray(small.resize((columns, rows), Image.Resampling.BILINEAR))


def with_letters(picture: Picture, plane: Plane) -> Picture:
    """Return the picture with A, P, R, L, S or I at the middle of its four sides."""
    canvas = Image.fromarray(picture)
    height, width = picture.shape[:2]
    size = max(9, round(max(height, width) / 22))
    gap = size // 4
    places = (
        ((width / 2, gap), "mt"), ((gap, height / 2), "lm"), ((width / 2, height - gap), "mb"),
        ((width - gap, height / 2), "rm"),
    )  # fmt: skip
    for letter, (place, anchor) in zip(LETTERS[plane], places, strict=True):
        _write(canvas, place, letter, size, anchor)
    return np.asarray(canvas)


def with_mark(picture: Picture, text: str) -> Picture:
    """Return the picture with a text burnt into its lower left corner."""
    canvas = Image.fromarray(picture)
    height, width = picture.shape[:2]
    size = max(9, round(max(height, width) / 26))
    while size > 6 and ImageFont.load_default(size).getlength(text) > width - size:
        size -= 1
    _write(canvas, (size / 2, height - size / 2), text, size, "lb", (255, 214, 102))
    return np.asarray(canvas)


def mark_of(case: Case) -> str:
    """Return what must be burnt into every picture of this case: nothing for a real scan."""
    return {"real": "", "phantom": "SYNTHETIC (PHANTOM)", "synthetic": "SYNTHETIC"}[case.origin]


def marked(picture: Picture, case: Case) -> Picture:
    """Return the picture with the mark that its case calls for."""
    return with_mark(picture, mark_of(case)) if mark_of(case) else picture


def draw_case(case: Case, size_px: int = 320, window: Window | None = None) -> list[list[Picture]]:
    """Draw a case: one row per plane; image, image with the mask's outlines, mask and confidence, where there are."""
    point, rows = focus(case), []
    for plane in planes_of(case):
        row = []
        if case.image is not None:
            row.append(draw_image(case, plane, point, size_px, window))
        if case.image is not None and case.mask is not None:
            row.append(draw_mask(case, plane, point, size_px, over=row[0], style="outline"))
        if case.mask is not None:
            row.append(draw_mask(case, plane, point, size_px))
        if case.confidence is not None:
            row.append(draw_confidence(case, plane, point, size_px))
        rows.append([marked(with_letters(picture, plane), case) for picture in row])
    return rows


def contact_sheet(
    rows: Sequence[Sequence[Picture | None]], row_titles: Sequence[str] = (), column_titles: Sequence[str] = ()
) -> Picture:
    """Return pictures side by side on black, with titles; None leaves a place empty."""
    shown = [picture for row in rows for picture in row if picture is not None]
    assert shown, "a contact sheet needs a picture"
    height, width = max(p.shape[0] for p in shown), max(p.shape[1] for p in shown)
    text = max(11, height // 18)
    left = round(max((ImageFont.load_default(text).getlength(t) for t in row_titles), default=0)) + text
    top, gap = (2 * text if column_titles else 0), 4
    columns = max(len(row) for row in rows)
    canvas = Image.new("RGB", (left + columns * (width + gap), top + len(rows) * (height + gap)))
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            if picture is not None:
                x = left + j * (width + gap) + (width - picture.shape[1]) // 2
                canvas.paste(Image.fromarray(picture), (x, top + i * (height + gap) + (height - picture.shape[0]) // 2))
    for i, title in enumerate(row_titles):
        _write(canvas, (text / 2, top + i * (height + gap) + height / 2), title, text, "lm")
    for j, title in enumerate(column_titles):
        _write(canvas, (left + j * (width + gap) + width / 2, top / 2), title, text, "mm")
    return np.asarray(canvas)


def label_legend(labels: LabelTable, codes: Iterable[int]) -> list[tuple[str, tuple[int, int, int]]]:
    """Return (title, color) of the structures among ``codes``, by ascending code."""
    wanted = set(codes)
    return [(x.title, x.color) for x in sorted(labels, key=lambda x: x.code) if x.code in wanted]


def png_bytes(picture: Picture) -> bytes:
    """Return the picture as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def save_png(picture: Picture, path: Path) -> None:
    """Write the picture as PNG, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_bytes(png_bytes(picture))


def _index(plane: Plane, point: Sequence[int]) -> int:
    return point[AXES[plane]] if len(point) == 3 else 0


def _enlarged(
    cut: Shaped[np.ndarray, "rows columns"], size: tuple[int, int]
) -> Shaped[np.ndarray, "more_rows more_columns"]:
    """Return the slice with every voxel as a block of equal pixels."""
    picks = [np.minimum(np.arange(new) * old // new, old - 1) for old, new in zip(cut.shape, size, strict=True)]
    return cut[np.ix_(*picks)]


def _outlines(codes: UInt8[np.ndarray, "rows columns"]) -> Bool[np.ndarray, "rows columns"]:
    """Return the pixels of a structure that touch another code, so that neighbors each keep their own line."""
    low = ndimage.grey_erosion(codes, size=(3, 3), mode="nearest")
    high = ndimage.grey_dilation(codes, size=(3, 3), mode="nearest")
    return (codes > 0) & (low != high)


def _projected(inside: Bool[np.ndarray, "*grid"], plane: Plane) -> Float[np.ndarray, "rows columns"]:
    """Return, along the line of sight, how near the first voxel inside is: 1 nearest, towards 0 farthest, 0 none."""
    if inside.ndim == 2:
        return display_slice(inside.astype(np.float64), plane, 0)
    axis = AXES[plane]
    toward = np.flip(inside, axis) if plane == "coronal" else inside
    depth = 1 - toward.argmax(axis) / inside.shape[axis]
    return np.where(toward.any(axis), depth, 0.0)[::-1, ::-1].T


def _write(
    canvas: Image.Image,
    place: tuple[float, float],
    text: str,
    size: int,
    anchor: str,
    color: tuple[int, int, int] = (225, 230, 235),
) -> None:
    """Write light text with a dark rim, readable on any tissue."""
    ImageDraw.Draw(canvas).text(
        place, text, color, ImageFont.load_default(size), anchor, stroke_width=max(1, size // 10), stroke_fill=(0, 0, 0)
    )
