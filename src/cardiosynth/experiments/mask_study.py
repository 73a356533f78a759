"""What deforming masks keeps of them: vessels, volumes, chambers and diversity, on phantoms, before any second draw.

Every phantom's mask is deformed once with the default settings, and the same deformation is carried in three ways: as
we do, by Eq. 6 as printed (``literal``), and by the nearest voxel alone (``none``). Then masks are drawn as a user
gets them, with second draws where the first fails. ``cardiosynth experiment masks OUT`` runs it.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
from scipy import ndimage

from cardiosynth.anatomy.comparison import compare
from cardiosynth.anatomy.deform import Box, Deformation
from cardiosynth.anatomy.masks import MaskSettings, deform_mask, draw_deformation, make_mask, make_masks
from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.progress import say
from cardiosynth.core.random import numpy_generator
from cardiosynth.core.store import read_json, write_json
from cardiosynth.data.dataset import write_dataset
from cardiosynth.data.sources.phantom.source import phantom
from cardiosynth.evaluation.results import GalleryFigure, Results, Spread, Tile, pointer, spread
from cardiosynth.experiments.mask_tables import CHAMBERS, WAYS, carrying_table, diversity_table, draws_table
from cardiosynth.experiments.request import Request
from cardiosynth.experiments.study import Study
from cardiosynth.metrics.overlap import dice
from cardiosynth.metrics.topology import centerline_graph

THIN = CARDIAC_CT.named("coronary_artery").code
SUPERSAMPLING = 4
TITLE = "What deforming masks keeps of them"


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


def experiment(request: Request) -> Results:
    """Run the study as it was asked for."""
    return run_study(request.out, request.plan(MaskPlan), request.command())


def run_study(out: Path, plan: MaskPlan, again: str = "") -> Results:
    """Do what is not done yet of the study in ``out`` and return what it found.

    Writes ``out/cases/SPACING/NUMBER.json``, ``diversity.json`` and, for the gallery, ``masks/SPACING``.

    Args:
        out: the study's folder.
        plan: how much of everything.
        again: the command that repeats it.

    Raises:
        InputError: the folder holds a study of another plan.
    """
    expected_s = {f"masks {s:g} mm": 1e-5 * n**2.5 * plan.cases for s, n in plan.grids.items()} | {
        "diversity": 0.06 * plan.cases**2
    }
    study = Study(out, plan.model_dump(mode="json"), expected_s)
    for spacing_mm in plan.grids:
        study.step(f"masks {spacing_mm:g} mm", again, lambda s=spacing_mm: _deform_all(out, plan, s))
    study.step("diversity", again, lambda: write_json(out / "diversity.json", diversity(plan)))
    return _results(out, plan, study)


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
    _write_gallery(_masks(out, spacing_mm), _phantom(plan, spacing_mm, 0), plan.seed)


def measure(source: Case, index: int, seed: int, with_reference: bool) -> dict[str, Any]:
    """Return what the first draw for ``source`` keeps, carried in every way, and how many draws a user's mask took."""
    reference = source.labels.only_targets(source.required_mask())[0]
    rng = numpy_generator(seed, "mask", index, 0)
    deformation, facts = draw_deformation(source, reference, MaskSettings(), 1.0, rng)
    supersampled = supersampled_warp(reference, deformation) if with_reference else None
    row: dict[str, Any] = {"smallest_jacobian": float(deformation.jacobian_determinant().min()), "parameters": facts}
    grown = local_volume(reference == THIN, deformation)
    for carrying in WAYS:
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
    return {
        name: {title: found and found.model_dump() for title, found in spread_of(cases).items()}
        for name, cases in groups.items()
    }


def spread_of(cases: Iterable[Case]) -> dict[str, Spread | None]:
    """Return the spread of chamber Dice over pairs, rigidly aligned, of chamber volumes and of coronary paths."""
    masks, spacings = zip(*((case.required_mask()[0], case.spacing_mm) for case in cases), strict=True)
    aligned = aligned_masks([np.where(np.isin(mask, CHAMBERS), mask, 0) for mask in masks])
    voxel_ml = float(np.prod(spacings[0])) / 1000
    volumes_ml = np.array([[(mask == c).sum() * voxel_ml for c in CHAMBERS] for mask in masks])
    paths_mm = [
        centerline_graph(mask == THIN, spacing).longest_path_mm for mask, spacing in zip(masks, spacings, strict=True)
    ]
    pairs = [(a, b) for i, a in enumerate(aligned) for b in aligned[i + 1 :]]
    overlaps = [float(np.mean([dice(a == c, b == c) for c in CHAMBERS])) for a, b in pairs]
    return {
        "pairwise chamber Dice": spread(overlaps),
        **{CARDIAC_CT.labels[c - 1].title: spread(of) for c, of in zip(CHAMBERS, volumes_ml.T, strict=True)},
        "longest coronary path": spread(paths_mm),
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
# What is shown.


def _results(out: Path, plan: MaskPlan, study: Study) -> Results:
    rows = {s: [read_json(_row(out, s, i)) for i in range(plan.cases)] for s in plan.grids}
    tables = (
        carrying_table(rows),
        draws_table(rows),
        diversity_table(read_json(out / "diversity.json"), plan.cases, plan.diversity_mm),
    )
    figures = tuple(_gallery(out, s) for s in plan.grids)
    summary = (
        f"The masks of {plan.cases} phantoms were deformed with the default settings, and each deformation was carried "
        "in three ways: as we do (closing), by Eq. 6 as printed (literal), and by the nearest voxel alone (none)."
    )
    return Results(title=TITLE, summary=summary, tables=tables, figures=figures, stages=study.stages())


def _write_gallery(out: Path, source: Case, seed: int) -> None:
    """Write a source's targets, and its first draw carried in every way."""
    reference = source.labels.only_targets(source.required_mask())[0]
    deformation, _ = draw_deformation(source, reference, MaskSettings(), 1.0, numpy_generator(seed, "mask", 0, 0))
    masks = {"source": reference}
    for way in WAYS:
        masks[way] = deform_mask(reference, source.labels, deformation, MaskSettings(closing=way)).mask
    cases = [source.with_(case_id=name, image=None, mask=mask[None]) for name, mask in masks.items()]
    write_dataset(cases, out, "masks")


def _gallery(out: Path, spacing_mm: float) -> GalleryFigure:
    """Return the written masks: a slice of each, and surfaces from the front."""
    root = _masks(out, spacing_mm)
    places = {name: pointer(root, name, out) for name in ("source", *WAYS)}
    rows = [[Tile(case=place, text=name, layer="mask") for name, place in places.items()]]
    rows.append([Tile(case=place, text=name, layer="surface") for name, place in places.items()])
    return GalleryFigure(
        title=f"One mask carried in three ways, {spacing_mm:g} mm",
        caption="Above axial slices, below surfaces seen from above; the source first.",
        rows=tuple(map(tuple, rows)),
    )


def _masks(out: Path, spacing_mm: float) -> Path:
    return out / "masks" / f"{spacing_mm:g}mm"


def _phantom(plan: MaskPlan, spacing_mm: float, index: int) -> Case:
    return phantom(index, (plan.grids[spacing_mm],) * 3, spacing_mm, seed=plan.seed)


def _row(out: Path, spacing_mm: float, index: int) -> Path:
    return out / "cases" / f"{spacing_mm:g}mm" / f"{index:03d}.json"
