"""What deforming masks keeps of them: vessels, volumes, chambers and diversity, on phantoms, before any second draw.

Every phantom's mask is deformed once with the default settings, and the same deformation is carried in three ways: as
we do, by Eq. 6 as printed (``literal``), and by the nearest voxel alone (``none``). Then masks are drawn as a user
gets them, with second draws where the first fails.

Run: ``python -m cardiosynth.experiments.mask_study OUT``. The same command goes on after a stop.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pydantic
from cyclopts import App
from scipy import ndimage

from cardiosynth.anatomy.comparison import compare
from cardiosynth.anatomy.deform import Box, Deformation
from cardiosynth.anatomy.masks import MaskSettings, deform_mask, draw_deformation, make_mask, make_masks
from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.picture import contact_sheet, draw_mask, draw_projection, focus, save_png
from cardiosynth.core.progress import say
from cardiosynth.core.random import numpy_generator
from cardiosynth.core.store import read_json, write_json, write_text
from cardiosynth.data.sources.phantom.source import phantom
from cardiosynth.experiments.study import Study
from cardiosynth.metrics.overlap import dice
from cardiosynth.metrics.topology import centerline_graph

Carrying = Literal["closing", "literal", "none"]
THIN = CARDIAC_CT.named("coronary_artery").code
CHAMBERS = tuple(
    CARDIAC_CT.named(name).code for name in ("left_atrium", "left_ventricle", "right_atrium", "right_ventricle")
)
SUPERSAMPLING = 4


class MaskPlan(Settings):
    """How much of everything.

    Attributes:
        grids: voxel size in mm -> voxels per axis; one field of view.
        cases: phantoms, each deformed once.
        reference_cases: of them compared with a supersampled warp; finer grids make this the slowest part.
        diversity_mm: voxel size of the masks whose diversity is measured.
        seed: of phantoms and deformations.
    """

    grids: dict[float, int] = pydantic.Field(default_factory=lambda: {1.6: 72, 0.8: 144})
    cases: int = pydantic.Field(default=50, ge=2)
    reference_cases: dict[float, int] = pydantic.Field(default_factory=lambda: {1.6: 50, 0.8: 10})
    diversity_mm: float = 1.6
    seed: int = 0


def run_study(out: Path, plan: MaskPlan) -> Path:
    """Do what is not done yet of the study in ``out`` and return its table.

    Writes ``out/cases/SPACING/NUMBER.json``, ``diversity.json``, ``masks-SPACING.png`` and ``table.md``.

    Raises:
        InputError: the folder holds a study of another plan.
    """
    expected_s = {f"masks {s:g} mm": 1e-5 * n**2.5 * plan.cases for s, n in plan.grids.items()} | {"diversity": 150.0}
    study = Study(out, plan.model_dump(mode="json"), expected_s)
    again = f"python -m cardiosynth.experiments.mask_study {out}"
    for spacing_mm in plan.grids:
        study.step(f"masks {spacing_mm:g} mm", again, lambda s=spacing_mm: _deform_all(out, plan, s))
    study.step("diversity", again, lambda: write_json(out / "diversity.json", diversity(plan)))
    rows = {s: [read_json(_row(out, s, i)) for i in range(plan.cases)] for s in plan.grids}
    write_text(out / "table.md", table(rows) + "\n" + diversity_table(read_json(out / "diversity.json")))
    return out / "table.md"


# ---------------------------------------------------------------------------------------------------------------
# One case.


def _deform_all(out: Path, plan: MaskPlan, spacing_mm: float) -> None:
    for index in range(plan.cases):
        if not _row(out, spacing_mm, index).exists():
            source = _phantom(plan, spacing_mm, index)
            with_reference = index < plan.reference_cases.get(spacing_mm, 0)
            write_json(_row(out, spacing_mm, index), measure(source, index, plan.seed, with_reference))
        if index % 10 == 9:
            say(f"{spacing_mm:g} mm: {index + 1} of {plan.cases} masks")
    _draw(out / f"masks-{spacing_mm:g}mm.png", _phantom(plan, spacing_mm, 0), plan.seed)


def measure(source: Case, index: int, seed: int, with_reference: bool) -> dict[str, Any]:
    """Return what the first draw for ``source`` keeps, carried in every way, and how many draws a user's mask took."""
    reference = source.labels.only_targets(source.required_mask())[0]
    rng = numpy_generator(seed, "mask", index, 0)
    deformation, facts = draw_deformation(source, reference, MaskSettings(), 1.0, rng)
    supersampled = supersampled_warp(reference, deformation) if with_reference else None
    row: dict[str, Any] = {"smallest_jacobian": float(deformation.jacobian_determinant().min()), "parameters": facts}
    grown = local_volume(reference == THIN, deformation)
    for carrying in get_args(Carrying):
        settings = MaskSettings(closing=carrying)
        carried = deform_mask(reference, source.labels, deformation, settings)
        found = compare(reference, carried, deformation, source.labels, settings.tolerances)
        coronary = found.structures["coronary_artery"]
        assert coronary.vessel is not None
        row[carrying] = {
            "pieces_before": coronary.pieces_before,
            "pieces": coronary.pieces,
            "whole": coronary.pieces_lost + coronary.pieces_broken_off == 0,
            "volume_over_local_jacobian": part_from_view(carried.mask == THIN, deformation) / grown,
            "path": coronary.vessel.longest_path_ratio,
            "caliber": coronary.vessel.caliber_ratio,
            "fault": found.left_view(settings.tolerances) or found.fault(settings.tolerances),
            "dice": [] if supersampled is None else [dice(carried.mask == c, supersampled == c) for c in CHAMBERS],
        }
    made = make_mask(source, index, seed, MaskSettings()).provenance["mask"]
    kept = made["comparison"]["coronary_artery"]
    row["draws"] = made["attempts"]
    row["whole_at_last"] = kept["pieces_lost"] + kept["pieces_broken_off"] == 0
    row["pieces_at_last"] = kept["pieces"]
    return row


def local_volume(inside: np.ndarray, deformation: Deformation) -> float:
    """Return the volume, in voxels, of what is in view of a structure: its voxels times their local Jacobian.

    Independent of how masks are carried: the growth at every voxel of the source is that of a small cube around it.
    """
    places = np.argwhere(inside).T.astype(np.float64)
    n, h = len(places), 0.25
    ends = [[deformation.to_target(places + sign * h * side[:, None]) for sign in (1, -1)] for side in np.eye(n)]
    growth = np.linalg.det(np.stack([(after - before) / (2 * h) for after, before in ends]).transpose(2, 0, 1))
    there = deformation.to_target(places)
    return float(growth[_in_grid(there, deformation)].sum())


def part_from_view(inside: np.ndarray, deformation: Deformation) -> int:
    """Return how many voxels of a new structure come from inside the source's field of view."""
    origins = deformation.to_source(np.argwhere(inside).T.astype(np.float64))
    return int(_in_grid(origins, deformation).sum())


def supersampled_warp(reference: np.ndarray, deformation: Deformation) -> np.ndarray:
    """Return the mask after deformation by the majority of 4 x 4 x 4 nearest neighbors per voxel.

    Costly, and not what thin vessels survive, but as near to the deformed chambers as these voxels allow.
    """
    k = SUPERSAMPLING
    step = np.array(deformation.spacing_mm) / k
    # The fine voxels fill the coarse ones: the first lies (k - 1) / 2 fine steps before the first coarse one.
    fine = replace(
        deformation, shape=tuple(k * n for n in deformation.shape), spacing_mm=tuple(step.tolist()),
        center_mm=deformation.center_mm + (k - 1) / 2 * step,
    )  # fmt: skip
    out = np.zeros(deformation.shape, np.uint8)
    codes = np.unique(reference)
    box = deformation.target_box(reference > 0)
    assert box is not None
    for layer in range(box[0].start, box[0].stop):
        slab: Box = (slice(layer, layer + 1), *box[1:])
        index = fine.source_index(tuple(slice(k * s.start, k * s.stop) for s in slab)).numpy()
        nearest = np.rint((index - (k - 1) / 2) / k).astype(np.intp)
        limits = np.array(reference.shape)[:, None, None, None] - 1
        values = reference[tuple(np.clip(nearest, 0, limits))]
        sides = [side for s in slab for side in (s.stop - s.start, k)]
        blocks = [(values == code).reshape(sides).sum(axis=(1, 3, 5), dtype=np.int16) for code in codes]
        out[slab] = codes[np.argmax(blocks, axis=0)]
    return out


def _in_grid(index: np.ndarray, deformation: Deformation) -> np.ndarray:
    return np.all((index > -0.5) & (index < np.array(deformation.shape)[:, None] - 0.5), axis=0)


# ---------------------------------------------------------------------------------------------------------------
# Diversity.


def diversity(plan: MaskPlan) -> dict[str, dict[str, Any]]:
    """Return how different masks are after rigid alignment: phantoms, offspring of as many, offspring of one."""
    phantoms = [_phantom(plan, plan.diversity_mm, i) for i in range(plan.cases)]
    several = [make_mask(source, i, plan.seed, MaskSettings()) for i, source in enumerate(phantoms)]
    of_one = list(make_masks(phantoms[:1], plan.cases, plan.seed))
    groups = {"different phantoms": phantoms, "offspring of as many": several, "offspring of one": of_one}
    return {name: spread(cases) for name, cases in groups.items()}


def spread(cases: Iterable[Case]) -> dict[str, Any]:
    """Return the pairwise chamber Dice after rigid alignment, and spreads of volumes and of coronary paths."""
    masks, spacings = zip(*((case.required_mask()[0], case.spacing_mm) for case in cases), strict=True)
    aligned = aligned_masks([np.where(np.isin(mask, CHAMBERS), mask, 0) for mask in masks])
    voxel_ml = float(np.prod(spacings[0])) / 1000
    volumes_ml = np.array([[(mask == c).sum() * voxel_ml for c in CHAMBERS] for mask in masks])
    paths_mm = [
        centerline_graph(mask == THIN, spacing).longest_path_mm for mask, spacing in zip(masks, spacings, strict=True)
    ]
    pairs = [(a, b) for i, a in enumerate(aligned) for b in aligned[i + 1 :]]
    overlaps = [np.mean([dice(a == c, b == c) for c in CHAMBERS]) for a, b in pairs]
    return {
        "dice": [float(np.mean(overlaps)), float(np.std(overlaps))],
        "volume_ml": [volumes_ml.mean(0).tolist(), volumes_ml.std(0).tolist()],
        "path_mm": [float(np.mean(paths_mm)), float(np.std(paths_mm))],
    }


def aligned_masks(masks: list[np.ndarray]) -> list[np.ndarray]:
    """Return masks turned and shifted onto the first by their chambers' centers (Kabsch 1976), on its grid."""
    first = _centers(masks[0])
    out = []
    for mask in masks:
        own = _centers(mask)
        u, _, vt = np.linalg.svd((own - own.mean(0)).T @ (first - first.mean(0)))
        turn = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
        offset = own.mean(0) - turn @ first.mean(0)
        out.append(ndimage.affine_transform(mask, turn, offset, order=0))
    return out


def _centers(mask: np.ndarray) -> np.ndarray:
    return np.array(ndimage.center_of_mass(mask > 0, mask, CHAMBERS))


# ---------------------------------------------------------------------------------------------------------------
# Tables and the picture.


def table(rows: dict[float, list[dict[str, Any]]]) -> str:
    """Return the cases as a Markdown table: a column per voxel size and way of carrying."""
    columns = [(s, carrying) for s in rows for carrying in get_args(Carrying)]
    found = {(s, c): [row[c] for row in rows[s]] for s, c in columns}
    lines = {
        "coronary pieces as the source's": lambda s, c: _percent(
            x["pieces"] == x["pieces_before"] for x in found[s, c]
        ),
        "coronary pieces whole or cut by the view only": lambda s, c: _percent(x["whole"] for x in found[s, c]),
        "coronary pieces, mean (source's)": lambda s, c: (
            f"{np.mean([x['pieces'] for x in found[s, c]]):.2f} "
            f"({np.mean([x['pieces_before'] for x in found[s, c]]):.2f})"
        ),
        "coronary volume / (source x local Jacobian)": lambda s, c: _range(
            x["volume_over_local_jacobian"] for x in found[s, c]
        ),
        "longest coronary path / expected": lambda s, c: _range(x["path"] for x in found[s, c]),
        "coronary caliber / expected": lambda s, c: _range(x["caliber"] for x in found[s, c]),
        "chamber Dice to a 4x supersampled warp": lambda s, c: _range(
            [value for x in found[s, c] for value in x["dice"]], 3
        ),
        "within all tolerances": lambda s, c: _percent(not x["fault"] for x in found[s, c]),
    }
    text = [
        "| first draws | " + " | ".join(f"{s:g} mm, {c}" for s, c in columns) + " |",
        "| --- |" + " ---: |" * len(columns),
    ]
    text += [f"| {name} | " + " | ".join(cell(s, c) for s, c in columns) + " |" for name, cell in lines.items()]
    for s, of_size in rows.items():
        draws = [row["draws"] for row in of_size]
        smallest = min(row["smallest_jacobian"] for row in of_size)
        text.append(
            f"\n{s:g} mm, {len(of_size)} cases: smallest Jacobian {smallest:.2f}; with second draws "
            f"{_percent(row['whole_at_last'] for row in of_size)} have whole coronary pieces after "
            f"{np.mean(draws):.2f} draws on average, {max(draws)} at most."
        )
    return "\n".join(text) + "\n"


def diversity_table(found: dict[str, dict[str, Any]]) -> str:
    """Return the spreads as a Markdown table."""
    names = [CARDIAC_CT.labels[code - 1].title for code in CHAMBERS]
    text = [
        "| masks | pairwise chamber Dice | " + " | ".join(f"{x}, ml" for x in names) + " | longest coronary path, mm |"
    ]
    text.append("| --- |" + " ---: |" * (len(names) + 2))
    for group, row in found.items():
        volumes = " | ".join(f"{m:.0f} ± {sd:.0f}" for m, sd in zip(*row["volume_ml"], strict=True))
        (d, d_sd), (p, p_sd) = row["dice"], row["path_mm"]
        text.append(f"| {group} | {d:.3f} ± {d_sd:.3f} | {volumes} | {p:.0f} ± {p_sd:.0f} |")
    return "\n".join(text) + "\n"


def _percent(flags: Iterable[bool]) -> str:
    return f"{100 * np.mean(list(flags)):.0f} %"


def _range(values: Iterable[float | None], digits: int = 2) -> str:
    """Return median (smallest to largest)."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{np.median(known):.{digits}f} ({min(known):.{digits}f} to {max(known):.{digits}f})"


def _draw(out: Path, source: Case, seed: int) -> None:
    """Draw a source, and its first draw carried in every way: chambers, and coronary arteries from the front."""
    reference = source.labels.only_targets(source.required_mask())[0]
    deformation, _ = draw_deformation(source, reference, MaskSettings(), 1.0, numpy_generator(seed, "mask", 0, 0))
    cases = [source.with_(mask=reference[None])]
    for carrying in get_args(Carrying):
        carried = deform_mask(reference, source.labels, deformation, MaskSettings(closing=carrying))
        cases.append(source.with_(mask=carried.mask[None]))
    rows = [[draw_mask(case, "axial", focus(case, "left_ventricle"), 360) for case in cases]]
    rows.append([draw_projection(case, "coronal", THIN, 360) for case in cases])
    save_png(contact_sheet(rows, ("axial", "arteries"), ("source", *get_args(Carrying))), out)


def _phantom(plan: MaskPlan, spacing_mm: float, index: int) -> Case:
    return phantom(index, (plan.grids[spacing_mm],) * 3, spacing_mm, seed=plan.seed)


def _row(out: Path, spacing_mm: float, index: int) -> Path:
    return out / "cases" / f"{spacing_mm:g}mm" / f"{index:03d}.json"


app = App(help=__doc__)


@app.default
def main(out: Path, /, *, cases: int = MaskPlan().cases, seed: int = 0) -> None:
    """Run the study, or what is not done yet of it.

    Args:
        out: folder for everything.
        cases: phantoms, each deformed once.
        seed: of phantoms and deformations.
    """
    print(run_study(out, MaskPlan(cases=cases, seed=seed)).read_text())  # noqa: T201


if __name__ == "__main__":
    app()
