"""What stands around pictures: captions, legends and color scales, light on black as the pictures' own letters."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from cardiosynth.core.picture import Picture

Colors = Callable[[Float[np.ndarray, "rows columns"]], UInt8[np.ndarray, "rows columns 3"]]
LIGHT = (225, 230, 235)


def captioned(picture: Picture, lines: Sequence[str], size_px: int = 13) -> Picture:
    """Return the picture with lines of text beneath it, centered."""
    return stacked([picture, *(_line(text, picture.shape[1], size_px) for text in lines)])


def titled(picture: Picture, text: str, size_px: int = 18) -> Picture:
    """Return the picture with a title above it, at the left."""
    strip = Image.new("RGB", (picture.shape[1], round(1.9 * size_px)))
    place = (0.5 * size_px, 0.95 * size_px)
    ImageDraw.Draw(strip).text(place, text, LIGHT, ImageFont.load_default(size_px), "lm")
    return stacked([np.asarray(strip), picture])


def color_scale(colors: Colors, ticks: Sequence[str], width: int, size_px: int = 13) -> Picture:
    """Return a bar of a color map from 0 to 1, with evenly spaced words beneath it, the first at 0 and the last at 1.

    Args:
        colors: value in [0, 1] -> color.
        ticks: two words or more.
        width: of the whole, in pixels.
        size_px: height of the letters.
    """
    strip = Image.new("RGB", (width, 3 * size_px))
    left, right = 0.2 * width, 0.8 * width
    ramp = colors(np.tile(np.linspace(0, 1, round(right - left)), (round(0.7 * size_px), 1)))
    strip.paste(Image.fromarray(ramp), (round(left), round(0.6 * size_px)))
    for i, tick in enumerate(ticks):
        place = (left + (right - left) * i / (len(ticks) - 1), 1.6 * size_px)
        ImageDraw.Draw(strip).text(place, tick, LIGHT, ImageFont.load_default(size_px), "ma")
    return np.asarray(strip)


def legend(entries: Sequence[tuple[str, tuple[int, int, int]]], width: int, size_px: int = 13) -> Picture:
    """Return (title, color) of structures side by side, in as many rows as they need."""
    font, gap, line = ImageFont.load_default(size_px), 1.4 * size_px, round(1.8 * size_px)
    places, x, y = [], gap, 0.5 * line
    for title, _ in entries:
        wide = 1.5 * size_px + font.getlength(title)
        if x + wide > width and places:
            x, y = gap, y + line
        places.append((x, y))
        x += wide + gap
    strip = Image.new("RGB", (width, round(y + 0.5 * line)))
    draw = ImageDraw.Draw(strip)
    for (title, color), (x, y) in zip(entries, places, strict=True):
        draw.rectangle((x, y - 0.45 * size_px, x + 0.9 * size_px, y + 0.45 * size_px), color)
        draw.text((x + 1.5 * size_px, y), title, LIGHT, font, "lm")
    return np.asarray(strip)


def stacked(pictures: Sequence[Picture], gap: int = 0) -> Picture:
    """Return pictures beneath each other on black, each at the left, ``gap`` pixels apart."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([np.pad(p, ((0, gap), (0, width - p.shape[1]), (0, 0))) for p in pictures])


def beside(pictures: Sequence[Picture], gap: int = 4) -> Picture:
    """Return pictures side by side on black, each at the top, ``gap`` pixels apart."""
    height = max(picture.shape[0] for picture in pictures)
    return np.concatenate([np.pad(p, ((0, height - p.shape[0]), (0, gap), (0, 0))) for p in pictures], axis=1)


def _line(text: str, width: int, size_px: int) -> Picture:
    strip = Image.new("RGB", (width, round(1.4 * size_px)))
    place, font = (width / 2, 0.7 * size_px), ImageFont.load_default(size_px)
    ImageDraw.Draw(strip).text(place, text, LIGHT, font, "mm")
    return np.asarray(strip)
