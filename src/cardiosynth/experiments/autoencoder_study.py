"""What an autoencoder keeps of coronary arteries: voxel size, compression and adversarial term, on phantoms.

The same patients at every voxel size. At each size one segmenter is trained on original images, for coronary arteries
alone; what it still finds in reconstructions of patients nobody saw tells whether a vessel can be followed there.

``cardiosynth experiment autoencoder OUT`` runs it.
"""

import time
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from cardiosynth.autoencoder.codec import Codec, load_codec
from cardiosynth.autoencoder.discriminators import AdversarialSettings
from cardiosynth.autoencoder.networks import AutoencoderSettings
from cardiosynth.autoencoder.task import AutoencoderStage, train_autoencoder
from cardiosynth.autoencoder.verdict import verdict
from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.labels import CARDIAC_CT, LabelTable
from cardiosynth.core.progress import say
from cardiosynth.core.store import read_json, whole_folder, write_json
from cardiosynth.data.dataset import read_dataset, write_dataset
from cardiosynth.evaluation.results import (
    CasePointer,
    Column,
    GalleryFigure,
    ProjectionFigure,
    Results,
    Spread,
    Table,
    Tile,
    pointer,
    spread,
)
from cardiosynth.experiments.request import Request
from cardiosynth.experiments.study import Study
from cardiosynth.metrics.overlap import dice
from cardiosynth.metrics.topology import cl_dice
from cardiosynth.recipes.fcas import DEMO
from cardiosynth.recipes.phantoms import Population, write_phantoms
from cardiosynth.segmentation.predict import Segmenter, load_segmenter, predict_mask
from cardiosynth.segmentation.task import SegmentationStage, train_segmenter

TITLE = "What an autoencoder keeps of coronary arteries"
THIN = "coronary_artery"
FIRST_HELD_OUT = 10_000
"""Index of the first patient that no network has seen."""

NETWORKS = {
    4: AutoencoderSettings(compression=4, channels=(24, 64), num_res_blocks=(1, 2)),
    2: AutoencoderSettings(compression=2, channels=(32,), num_res_blocks=(2,)),
}
"""About the same time per step on a CPU."""


class StudyPlan(Settings):
    """How much of everything.

    Attributes:
        grids: voxel size in mm -> voxels per axis; nearly the same field of view.
        training: patients to learn from.
        protocols: scanner protocols they come in.
        held_out: patients to judge on, in protocols of their own.
        steps: optimizer steps of every autoencoder, the same for all.
        warmup_steps: of them before the adversarial term.
        segmenter_steps: optimizer steps of every segmenter.
        crop: voxels per axis of a training example.
        seed: of phantoms and training.
    """

    grids: dict[float, int] = pydantic.Field(default_factory=lambda: {2.5: 48, 1.6: 72, 0.8: 144})
    training: int = pydantic.Field(default=24, ge=2)
    protocols: int = pydantic.Field(default=8, ge=1)
    held_out: int = pydantic.Field(default=6, ge=1)
    steps: int = pydantic.Field(default=600, ge=1)
    warmup_steps: int = pydantic.Field(default=200, ge=0)
    segmenter_steps: int = pydantic.Field(default=600, ge=1)
    crop: int = pydantic.Field(default=48, ge=8)
    seed: int = 0


class Cell(Settings):
    """One autoencoder of the study.

    Attributes:
        spacing_mm: voxel size.
        compression: image voxels per latent voxel along each axis.
        adversarial: whether it had an opponent.
    """

    spacing_mm: float
    compression: int
    adversarial: bool

    @property
    def name(self) -> str:
        """Folder and step of the cell."""
        return f"{self.spacing_mm:g}mm-{self.compression}x{'-adversarial' if self.adversarial else ''}"


def experiment(request: Request) -> Results:
    """Run the study as it was asked for."""
    return run_study(request.out, request.plan(StudyPlan), request.only, request.device, request.command())


def run_study(out: Path, plan: StudyPlan, only: Sequence[str] = (), device: str = "cpu", again: str = "") -> Results:
    """Do what is not done yet of the study in ``out`` and return what it found, of the cells that there are.

    Writes ``out/cells/NAME.json`` and ``out/shown/NAME`` for every cell.

    Args:
        out: the study's folder.
        plan: how much of everything.
        only: names of the cells to do now, such as ``0.8mm-4x``; all by default.
        device: ``cpu`` or ``cuda``.
        again: the command that repeats it.

    Raises:
        InputError: the folder holds a study of another plan, or a name of no cell.
    """
    # All plain autoencoders first: a study that is cut short has compared what matters most.
    cells = [Cell(spacing_mm=s, compression=c, adversarial=a) for a, c, s in product((False, True), (4, 2), plan.grids)]
    unknown = set(only) - {cell.name for cell in cells}
    if unknown:
        raise InputError(f"--only {min(unknown)}" + suggest(min(unknown), [cell.name for cell in cells]))
    expected_s = {f"data {s:g} mm": 40.0 for s in plan.grids} | {f"segmenter {s:g} mm": 80.0 for s in plan.grids}
    expected_s |= {cell.name: 0.2 * plan.steps * (1.6 if cell.adversarial else 1) + 40 for cell in cells}
    study = Study(out, plan.model_dump(mode="json"), expected_s)
    chosen = [cell for cell in cells if cell.name in (only or [cell.name])]
    for spacing_mm in dict.fromkeys(cell.spacing_mm for cell in chosen):
        study.step(f"data {spacing_mm:g} mm", again, lambda s=spacing_mm: _draw(out, plan, s))
        study.step(f"segmenter {spacing_mm:g} mm", again, lambda s=spacing_mm: _train_segmenter(out, plan, s, device))
    for cell in chosen:
        study.step(cell.name, again, lambda cell=cell: _run_cell(out, plan, cell, device))
    done = [cell for cell in cells if _cell_file(out, cell).exists()]
    done.sort(key=lambda cell: (-cell.spacing_mm, -cell.compression, cell.adversarial))
    rows = [read_json(_cell_file(out, cell)) for cell in done]
    summary = (
        f"{plan.training} phantoms of {plan.protocols} protocols learned from, {plan.held_out} of protocols of their "
        f"own judged on, seed {plan.seed}. Every autoencoder took {plan.steps} steps, every segmenter "
        f"{plan.segmenter_steps}."
    )
    return Results(
        title=TITLE, summary=summary, tables=(table(rows, summary),), stages=study.stages(),
        figures=(_gallery(out, done), _vessels(out, done)),
    )  # fmt: skip


def table(rows: list[dict[str, Any]], said: str) -> Table:
    """Return the cells; numbers are mean ± standard deviation over the held-out cases."""
    columns = (
        Column(title="voxel, compression"), Column(title="adversarial"),
        Column(title="PSNR, heart", unit="dB", better="higher", digits=1),
        Column(title="PSNR, coronary", unit="dB", better="higher", digits=1),
        Column(title="contrast kept"), Column(title="clDice", better="higher"), Column(title="clDice, originals'"),
        Column(title="Dice", better="higher"), Column(title="Dice, originals'"),
        Column(title="latent values", digits=0), Column(title="CPU time", unit="s", digits=0),
    )  # fmt: skip
    keys = ("psnr_heart_db", "psnr_coronary_db", "contrast_kept", "cl_dice", "cl_dice_originals", "dice")
    cells = [
        (
            f"{row['spacing_mm']:g} mm, {row['compression']}x", "yes" if row["adversarial"] else "no",
            *(_spread(row[key]) for key in (*keys, "dice_originals")), row["latent_values"], row["cpu_s"],
        )
        for row in rows
    ]  # fmt: skip
    protocol = (
        f"{said} Mean ± standard deviation over the held-out cases. clDice and Dice: of the coronary arteries that a "
        "segmenter finds in reconstructions, beside what it finds in the originals."
    )
    return Table(title="What is kept of coronary arteries", protocol=protocol, columns=columns, rows=tuple(cells))


def _spread(values: Iterable[float | None]) -> Spread | None:
    return spread(value for value in values if value is not None)


def _gallery(out: Path, cells: Sequence[Cell]) -> GalleryFigure:
    """Return one held-out patient, and what every cell makes of it; a row per voxel size."""
    rows = []
    for spacing_mm in dict.fromkeys(cell.spacing_mm for cell in cells):
        of_size = [cell for cell in cells if cell.spacing_mm == spacing_mm]
        places = [(_shown(out, of_size[0], "original"), f"{spacing_mm:g} mm, original")]
        places += [(_shown(out, cell, "reconstruction"), cell.name) for cell in of_size]
        rows.append(tuple(Tile(case=place, text=text, layer="image") for place, text in places))
    return GalleryFigure(title="A patient nobody saw, encoded and decoded", rows=tuple(rows))


def _vessels(out: Path, cells: Sequence[Cell]) -> ProjectionFigure:
    """Return the coronary arteries that the segmenters find in this patient."""
    found = tuple((cell.name, _shown(out, cell, "reconstruction")) for cell in cells)
    firsts = {cell.spacing_mm: cell for cell in reversed(cells)}
    originals = tuple((f"{s:g} mm, original", _shown(out, cell, "original")) for s, cell in firsts.items())
    return ProjectionFigure(
        title="Coronary arteries found in it", caption="By segmenters that learned from original images.",
        structure=THIN, cases=(*originals, *found),
    )  # fmt: skip


def _shown(out: Path, cell: Cell, case_id: str) -> CasePointer:
    return pointer(out / "shown" / cell.name, case_id, out)


def _cell_file(out: Path, cell: Cell) -> Path:
    return out / "cells" / f"{cell.name}.json"


# ---------------------------------------------------------------------------------------------------------------
# The steps.


def _draw(out: Path, plan: StudyPlan, spacing_mm: float) -> None:
    grid = {"shape": (plan.grids[spacing_mm],) * 3, "spacing_mm": spacing_mm, "seed": plan.seed}
    write_phantoms(Population(plan.training, protocols=plan.protocols, **grid), _data(out, spacing_mm, "training"))
    unseen = Population(
        plan.held_out, protocols=plan.held_out, first=FIRST_HELD_OUT, first_protocol=plan.protocols, **grid
    )
    write_phantoms(unseen, _data(out, spacing_mm, "held-out"))


def _train_segmenter(out: Path, plan: StudyPlan, spacing_mm: float, device: str) -> None:
    cases = [case.with_(labels=_coronaries_alone()) for case in read_dataset(_data(out, spacing_mm, "training"))]
    training = DEMO.segmenter.training.model_copy(update={"steps": plan.segmenter_steps, "seed": plan.seed})
    stage = SegmentationStage(crop=(plan.crop,) * 3, foreground=0.8, training=training)
    run = out / "segmenters" / f"{spacing_mm:g}mm"
    train_segmenter(cases, run, stage, DEMO.intensity, device=device, label=f"train segmenter, {spacing_mm:g} mm")
    found = _found(load_segmenter(run, device), _held_out(out, spacing_mm))
    write_json(run / "originals.json", found)
    say(f"{spacing_mm:g} mm, originals: clDice {np.mean(found['cl_dice']):.3f}, Dice {np.mean(found['dice']):.3f}")


def _run_cell(out: Path, plan: StudyPlan, cell: Cell, device: str) -> None:
    run, started = out / "runs" / cell.name, time.process_time()
    held_out = _held_out(out, cell.spacing_mm)
    training = read_dataset(_data(out, cell.spacing_mm, "training"))
    # The run's own verdict is not used; each case is judged by itself below.
    stage = autoencoder_stage(plan, cell)
    train_autoencoder(training, run, stage, DEMO.intensity, device=device, held_out=held_out[:1])
    cpu_s = time.process_time() - started
    segmenter = load_segmenter(out / "segmenters" / f"{cell.spacing_mm:g}mm", device)
    codec = load_codec(run, device)
    made = [case.with_(image=codec.reconstruct(case)) for case in held_out]
    row = cell.model_dump() | {"steps": plan.steps, "cpu_s": round(cpu_s, 1)}
    row["latent_values"] = codec.latent_channels * int(np.prod(codec.latent_shape(held_out[0].grid.shape)))
    row |= _kept(codec, held_out, made) | _found(segmenter, made)
    originals = read_json(out / "segmenters" / f"{cell.spacing_mm:g}mm" / "originals.json")
    row |= {f"{key}_originals": value for key, value in originals.items()}
    _write_shown(held_out[0], made[0], segmenter, out / "shown" / cell.name)
    write_json(_cell_file(out, cell), row)
    kept = ", ".join(f"{key} {np.mean(row[key]):.3f}" for key in ("psnr_heart_db", "contrast_kept", "cl_dice", "dice"))
    say(f"{cell.name}: {kept}")


def _kept(codec: Codec, cases: list[Case], made: list[Case]) -> dict[str, list[float | None]]:
    """Return what the verdict says of each case."""
    images = {case.case_id: case.required_image() for case in made}
    found = [verdict(lambda case: images[case.case_id], codec.window_of, [case]) for case in cases]
    return {
        "psnr_db": [x["psnr_db"] for x in found],
        "psnr_heart_db": [x["psnr_heart_db"] for x in found],
        "psnr_coronary_db": [x["psnr_structure_db"][THIN] for x in found],
        "contrast_kept": [x["contrast_kept"][THIN] for x in found],
        "hu_bias_coronary": [x["hu_bias"][THIN] for x in found],
    }


def autoencoder_stage(plan: StudyPlan, cell: Cell) -> AutoencoderStage:
    """Return how a cell's autoencoder is trained: as the demo's, in half the batch."""
    training = DEMO.autoencoder.training.model_copy(
        update={"steps": plan.steps, "batch_size": 2, "seed": plan.seed, "checkpoint_every": plan.steps}
    )
    opponent = AdversarialSettings(warmup_steps=plan.warmup_steps) if cell.adversarial else None
    changes = {"network": NETWORKS[cell.compression], "adversarial": opponent, "crop": (plan.crop,) * 3}
    return DEMO.autoencoder.model_copy(update={**changes, "training": training})


def _found(segmenter: Segmenter, cases: list[Case]) -> dict[str, list[float]]:
    """Return clDice and Dice of the coronary arteries that a segmenter finds, by case."""
    code, found = CARDIAC_CT.named(THIN).code, {"cl_dice": [], "dice": []}
    for case in cases:
        p, q = predict_mask(segmenter, case).required_mask()[0] == code, case.required_mask()[0] == code
        found["cl_dice"].append(cl_dice(p, q))
        found["dice"].append(dice(p, q))
    return found


def _coronaries_alone() -> LabelTable:
    """Return the default table with coronary arteries as the only target, so that a segmenter learns just them."""
    roles = {True: "target", False: "surrounding"}
    return LabelTable(labels=tuple(x.model_copy(update={"role": roles[x.name == THIN]}) for x in CARDIAC_CT))


def _write_shown(original: Case, made: Case, segmenter: Segmenter, out: Path) -> None:
    """Write one case before and after, each with the arteries that the segmenter finds in it."""
    images = {"original": original, "reconstruction": made.with_(origin="synthetic")}
    cases = [
        image.with_(case_id=name, mask=found.required_mask(), labels=found.labels)
        for name, image in images.items()
        for found in [predict_mask(segmenter, image)]
    ]
    with whole_folder(out) as partial:
        write_dataset(cases, partial, out.name)


def _held_out(out: Path, spacing_mm: float) -> list[Case]:
    return list(read_dataset(_data(out, spacing_mm, "held-out")))


def _data(out: Path, spacing_mm: float, part: str) -> Path:
    return out / "data" / f"{spacing_mm:g}mm" / part
