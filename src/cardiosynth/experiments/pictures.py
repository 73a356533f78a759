"""Pictures for the documentation, of phantoms: masks and their offspring, templates, error and confidence.

Run: ``python -m cardiosynth.experiments.pictures OUT --run RUN``. RUN is a trained model, the demo's for example;
without one only the masks are drawn.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from cyclopts import App

from cardiosynth.anatomy.masks import MaskSettings, make_mask
from cardiosynth.core.case import Case
from cardiosynth.core.intensity import Window
from cardiosynth.core.lettering import beside, captioned, color_scale, legend, stacked, titled
from cardiosynth.core.picture import (
    Picture,
    Plane,
    confidence_colors,
    draw_confidence,
    draw_heat,
    draw_image,
    draw_mask,
    draw_projection,
    focus,
    heat_colors,
    label_legend,
    marked,
    planes_of,
    save_png,
    with_letters,
)
from cardiosynth.data.sources.phantom.source import phantom
from cardiosynth.metrics.fidelity import structure_means
from cardiosynth.metrics.overlap import dice
from cardiosynth.sampling.generator import Generator, load_generator

MASK_SPACING_MM, MASK_VOXELS = 1.0, 128
"""Grid of the masks."""
MASK_PROTOCOL, TEMPLATE_PROTOCOLS = 21, (18, 20, 19, 23)
"""Protocols that are in no training: left-heart contrast at 100 kV for the mask's own image; left heart at 80 kV, left
heart with a sharp kernel at 120 kV, biphasic, and whole heart with a smooth kernel for the templates."""
FIRST_PATIENT = 10_000
"""Index of the first patient that no network has seen."""
LARGEST_ERROR_HU = 200.0
ERROR_TICKS = ("0", "100", "200 HU")
HU_TICKS = ("-200", "200", "600 HU")
"""Of the display window, level 200 and width 800."""


def draw_offspring(source: Case, count: int, seed: int) -> Picture:
    """Draw a mask and masks made from it: an axial slice, the coronary arteries from the front, and facts."""
    offspring = [make_mask(source, index, seed, MaskSettings()) for index in range(count)]
    cells = [_mask_cell(source, source, "source")]
    cells += [_mask_cell(case, source, f"offspring {i}") for i, case in enumerate(offspring, start=1)]
    sheet = stacked([beside(cells[i : i + 3], gap=8) for i in range(0, len(cells), 3)], gap=8)
    title = "A mask and its offspring: four chambers, and the coronary arteries from the front"
    colors = label_legend(source.labels, source.labels.target_codes)
    return stacked([titled(sheet, title), legend(colors, sheet.shape[1])])


def _mask_cell(case: Case, source: Case, title: str) -> Picture:
    """Draw one mask; the facts are the volume of the left ventricle, and its overlap with the source's."""
    label, size = case.labels.named("left_ventricle"), 194
    inside, before = (each.required_mask()[0] == label.code for each in (case, source))
    volume_ml = inside.sum() * np.prod(case.grid.spacing_mm) / 1000
    facts = f"{title}: left ventricle {volume_ml:.0f} ml"
    facts += f", Dice {dice(inside, before):.2f}" if case is not source else ""
    targets = _targets(case)
    axial = draw_mask(targets, "axial", four_chambers(case), size)
    arteries = draw_projection(targets, "coronal", case.labels.named("coronary_artery").code, size)
    lettered = with_letters(axial, "axial"), with_letters(arteries, "coronal")
    # The pictures are small: the mark gets a strip of its own, below the letters.
    pair = [marked(np.pad(x, ((0, 14), (0, 0), (0, 0))), case) for x in lettered]
    return captioned(beside(pair, gap=2), [facts], size_px=12)


def draw_templates(generator: Generator, reference: Case, templates: Sequence[Case], seed: int) -> Picture:
    """Draw one mask under several templates: each template above, and what it makes of the mask below."""
    size, point = 232, four_chambers(reference)
    mask = marked(with_letters(draw_mask(_targets(reference), "axial", point, size), "axial"), reference)
    own = [f"own phantom: {_protocol(reference)}", _means(reference, reference)]
    above = [captioned(_slice(reference, "axial", point, size), own)]
    below = [captioned(mask, ["the mask"])]
    for number, template in enumerate(templates, start=1):
        made = generator.generate(reference, template, seed)
        pictures = _slice(template, "axial", four_chambers(template), size), _slice(made, "axial", point, size)
        above.append(captioned(pictures[0], [f"template {number}: {_protocol(template)}", _means(template, template)]))
        below.append(captioned(pictures[1], [f"synthetic, template {number}", _means(made, reference)]))
    sheet = stacked([beside(above), beside(below)], gap=8)
    return titled(sheet, "One mask, several templates (level 200 HU, width 800 HU)")


def draw_error_and_confidence(real: Case, synthetic: Case) -> Picture:
    """Draw a real image, the synthetic one of its mask, their difference and the confidence map in three planes."""
    size, point = 240, focus(real)
    error_hu = np.abs(synthetic.required_image().astype(np.float32) - real.required_image())
    window = Window(low=0.0, high=LARGEST_ERROR_HU)
    drawn: dict[str, Callable[[Plane], Picture]] = {
        "phantom": lambda plane: draw_image(real, plane, point, size),
        "synthetic": lambda plane: draw_image(synthetic, plane, point, size),
        "absolute error": lambda plane: draw_heat(real, error_hu, window, plane, point, size),
        "confidence": lambda plane: draw_confidence(synthetic, plane, point, size),
    }
    gray = color_scale(lambda x: np.repeat(np.rint(x * 255).astype(np.uint8)[..., None], 3, -1), HU_TICKS, size)
    scales = [gray, gray, color_scale(heat_colors, ERROR_TICKS, size), color_scale(confidence_colors, ("0", "1"), size)]
    columns = []
    for (title, draw), scale in zip(drawn.items(), scales, strict=True):
        case = real if title == "phantom" else synthetic
        pictures = [marked(with_letters(draw(plane), plane), case) for plane in planes_of(real)]
        columns.append(titled(stacked([stacked(pictures, gap=4), scale]), title, size_px=16))
    return beside(columns)


def four_chambers(case: Case) -> tuple[int, ...]:
    """Return a voxel of the axial slice that shows most of the chamber of which it shows least."""
    chambers = ("left_atrium", "left_ventricle", "right_atrium", "right_ventricle")
    mask = case.required_mask()[0]
    areas = [(mask == case.labels.named(name).code).sum(axis=(0, 1)) for name in chambers]
    return (*focus(case)[:2], int(np.min(areas, axis=0).argmax()))


def _slice(case: Case, plane: Plane, point: Sequence[int], size_px: int) -> Picture:
    return marked(with_letters(draw_image(case, plane, point, size_px), plane), case)


def _targets(case: Case) -> Case:
    return case.with_(mask=case.labels.only_targets(case.required_mask()))


def _protocol(case: Case) -> str:
    """Say how a phantom was scanned."""
    facts = case.provenance["protocol"]
    return f"{facts['phase']}, {facts['tube_kv']} kV"


def _means(case: Case, mask: Case) -> str:
    """Say the mean HU of three blood pools, in which contrast phases differ."""
    means = structure_means(case.required_image()[0], mask.required_mask()[0])
    names = {"aorta": "ascending_aorta", "LV": "left_ventricle", "RV": "right_ventricle"}
    return ", ".join(f"{short} {means[mask.labels.named(name).code]:.0f}" for short, name in names.items()) + " HU"


# ---------------------------------------------------------------------------------------------------------------
# All of them.


def write_pictures(out: Path, run: Path | None = None, autoencoder: Path | None = None, seed: int = 0) -> list[Path]:
    """Write the pictures and return where they are.

    Args:
        out: folder for them.
        run: a trained model; None draws the masks alone.
        autoencoder: run whose autoencoder is used, where not ``run``.
        seed: of phantoms, masks and noise.

    Raises:
        InputError: a stage of the run is missing.
    """
    source = phantom(FIRST_PATIENT, (MASK_VOXELS,) * 3, MASK_SPACING_MM, MASK_PROTOCOL, seed)
    pictures = {"masks.png": draw_offspring(source, 8, seed)}
    if run is not None:
        generator = load_generator(run, autoencoder=autoencoder)
        grid = generator.model.record["grid"]

        def draw(index: int, protocol: int) -> Case:
            return phantom(FIRST_PATIENT + index, grid["shape"], grid["spacing_mm"], protocol, seed)

        reference, neighbor = draw(0, MASK_PROTOCOL), draw(1, MASK_PROTOCOL)
        templates = [draw(2 + i, protocol) for i, protocol in enumerate(TEMPLATE_PROTOCOLS)]
        pictures["templates.png"] = draw_templates(generator, reference, templates, seed)
        synthetic = generator.generate(reference, neighbor, seed)
        pictures["confidence.png"] = draw_error_and_confidence(reference, synthetic)
    for name, picture in pictures.items():
        save_png(picture, out / name)
    return [out / name for name in pictures]


app = App(help=__doc__)


@app.default
def main(out: Path, /, *, run: Path | None = None, autoencoder: Path | None = None, seed: int = 0) -> None:
    """Write the pictures.

    Args:
        out: folder for them.
        run: a trained model, such as the demo's generator; without one only the masks are drawn.
        autoencoder: run whose autoencoder is used, where not the model's own.
        seed: of phantoms, masks and noise.
    """
    for path in write_pictures(out, run, autoencoder, seed):
        print(path)  # noqa: T201


if __name__ == "__main__":
    app()
