"""What an autoencoder keeps of coronary arteries: voxel size, compression and adversarial term, on phantoms.

The same patients at every voxel size. At each size one segmenter is trained on original images, for coronary arteries
alone; what it still finds in reconstructions of patients nobody saw tells whether a vessel can be followed there.

Run: ``python -m cardiosynth.experiments.autoencoder_study OUT``. The same command goes on after a stop.
"""

import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic
from cyclopts import App, Parameter

from cardiosynth.autoencoder.codec import Codec, load_codec
from cardiosynth.autoencoder.discriminators import AdversarialSettings
from cardiosynth.autoencoder.networks import AutoencoderSettings
from cardiosynth.autoencoder.task import AutoencoderStage, train_autoencoder
from cardiosynth.autoencoder.verdict import verdict
from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.labels import CARDIAC_CT, LabelTable
from cardiosynth.core.picture import contact_sheet, draw_image, draw_projection, focus, marked, save_png
from cardiosynth.core.progress import say
from cardiosynth.core.store import read_json, write_json, write_text
from cardiosynth.data.dataset import read_dataset
from cardiosynth.experiments.study import Study
from cardiosynth.metrics.overlap import dice
from cardiosynth.metrics.topology import cl_dice
from cardiosynth.recipes.fcas import DEMO
from cardiosynth.recipes.phantoms import Population, write_phantoms
from cardiosynth.segmentation.predict import Segmenter, load_segmenter, predict_mask
from cardiosynth.segmentation.task import SegmentationStage, train_segmenter

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


def run_study(out: Path, plan: StudyPlan, only: Sequence[str] = ()) -> Path:
    """Do what is not done yet of the study in ``out`` and return its table.

    Writes ``out/cells/NAME.json`` and ``.png`` for every cell, ``results.json`` and ``table.md``.

    Args:
        out: the study's folder.
        plan: how much of everything.
        only: names of the cells to do now, such as ``0.8mm-4x``; all by default.

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
    again = f"python -m cardiosynth.experiments.autoencoder_study {out}"
    chosen = [cell for cell in cells if cell.name in (only or [cell.name])]
    for spacing_mm in dict.fromkeys(cell.spacing_mm for cell in chosen):
        study.step(f"data {spacing_mm:g} mm", again, lambda s=spacing_mm: _draw(out, plan, s))
        study.step(f"segmenter {spacing_mm:g} mm", again, lambda s=spacing_mm: _train_segmenter(out, plan, s))
    for cell in chosen:
        study.step(cell.name, again, lambda cell=cell: _run_cell(out, plan, cell))
    files = [out / "cells" / f"{cell.name}.json" for cell in cells]
    rows = [read_json(file) for file in files if file.exists()]
    rows.sort(key=lambda row: (-row["spacing_mm"], -row["compression"], row["adversarial"]))
    write_json(out / "results.json", rows)
    write_text(out / "table.md", table(rows))
    return out / "table.md"


def table(rows: list[dict[str, Any]]) -> str:
    """Return the cells as a Markdown table; numbers are mean ± standard deviation over the held-out cases."""
    lines = [
        "| voxel | compression | adversarial | PSNR heart | PSNR coronary | contrast kept | clDice, originals' "
        "| Dice, originals' | latent values | CPU s |",
        "| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        shown = {key: _with_spread(row[key], 1) for key in ("psnr_heart_db", "psnr_coronary_db")}
        shown |= {key: _with_spread(row[key], 2) for key in ("contrast_kept", "cl_dice", "dice")}
        ceiling = {key: _with_spread(row[f"{key}_originals"], 2) for key in ("cl_dice", "dice")}
        lines.append(
            f"| {row['spacing_mm']:g} mm | {row['compression']}x | {'yes' if row['adversarial'] else 'no'} "
            f"| {shown['psnr_heart_db']} dB | {shown['psnr_coronary_db']} dB | {shown['contrast_kept']} "
            f"| {shown['cl_dice']}, {ceiling['cl_dice']} | {shown['dice']}, {ceiling['dice']} "
            f"| {row['latent_values'] / 1e3:.0f} k | {row['cpu_s']:.0f} |"
        )
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------------------------
# The steps.


def _draw(out: Path, plan: StudyPlan, spacing_mm: float) -> None:
    grid = {"shape": (plan.grids[spacing_mm],) * 3, "spacing_mm": spacing_mm, "seed": plan.seed}
    write_phantoms(Population(plan.training, protocols=plan.protocols, **grid), _data(out, spacing_mm, "training"))
    unseen = Population(
        plan.held_out, protocols=plan.held_out, first=FIRST_HELD_OUT, first_protocol=plan.protocols, **grid
    )
    write_phantoms(unseen, _data(out, spacing_mm, "held-out"))


def _train_segmenter(out: Path, plan: StudyPlan, spacing_mm: float) -> None:
    cases = [case.with_(labels=_coronaries_alone()) for case in read_dataset(_data(out, spacing_mm, "training"))]
    training = DEMO.segmenter.training.model_copy(update={"steps": plan.segmenter_steps, "seed": plan.seed})
    stage = SegmentationStage(crop=(plan.crop,) * 3, foreground=0.8, training=training)
    run = out / "segmenters" / f"{spacing_mm:g}mm"
    train_segmenter(cases, run, stage, DEMO.intensity, label=f"train segmenter, {spacing_mm:g} mm")
    found = _found(load_segmenter(run), _held_out(out, spacing_mm))
    write_json(run / "originals.json", found)
    say(f"{spacing_mm:g} mm, originals: clDice {np.mean(found['cl_dice']):.3f}, Dice {np.mean(found['dice']):.3f}")


def _run_cell(out: Path, plan: StudyPlan, cell: Cell) -> None:
    run, started = out / "runs" / cell.name, time.process_time()
    held_out = _held_out(out, cell.spacing_mm)
    training = read_dataset(_data(out, cell.spacing_mm, "training"))
    # The run's own verdict is not used; each case is judged by itself below.
    train_autoencoder(training, run, autoencoder_stage(plan, cell), DEMO.intensity, held_out=held_out[:1])
    cpu_s = time.process_time() - started
    codec, segmenter = load_codec(run), load_segmenter(out / "segmenters" / f"{cell.spacing_mm:g}mm")
    made = [case.with_(image=codec.reconstruct(case)) for case in held_out]
    row = cell.model_dump() | {"steps": plan.steps, "cpu_s": round(cpu_s, 1)}
    row["latent_values"] = codec.latent_channels * int(np.prod(codec.latent_shape(held_out[0].grid.shape)))
    row |= _kept(codec, held_out, made) | _found(segmenter, made)
    originals = read_json(out / "segmenters" / f"{cell.spacing_mm:g}mm" / "originals.json")
    row |= {f"{key}_originals": value for key, value in originals.items()}
    _draw_cell(held_out[0], made[0], segmenter, out / "cells" / f"{cell.name}.png")
    write_json(out / "cells" / f"{cell.name}.json", row)
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


def _draw_cell(original: Case, made: Case, segmenter: Segmenter, out: Path) -> None:
    """Draw one case before and after, what the segmenter finds in each, and what is there."""
    point, code, rows = focus(original), CARDIAC_CT.named(THIN).code, []
    for plane in ("axial", "coronal"):
        rows.append([marked(draw_image(case, plane, point, 360), case) for case in (original, made)])
    shown = [predict_mask(segmenter, original), predict_mask(segmenter, made), original]
    rows.append([marked(draw_projection(case, "coronal", code, 360), case) for case in shown])
    out.parent.mkdir(parents=True, exist_ok=True)
    save_png(contact_sheet(rows, ("axial", "coronal", "arteries"), ("original", "reconstruction", "truth")), out)


def _held_out(out: Path, spacing_mm: float) -> list[Case]:
    return list(read_dataset(_data(out, spacing_mm, "held-out")))


def _data(out: Path, spacing_mm: float, part: str) -> Path:
    return out / "data" / f"{spacing_mm:g}mm" / part


def _with_spread(values: list[float | None], digits: int) -> str:
    known = [value for value in values if value is not None and np.isfinite(value)]
    return f"{np.mean(known):.{digits}f} ± {np.std(known):.{digits}f}" if known else "-"


app = App(help=__doc__)


@app.default
def main(
    out: Path,
    /,
    *,
    steps: int = StudyPlan().steps,
    warmup_steps: int = StudyPlan().warmup_steps,
    segmenter_steps: int = StudyPlan().segmenter_steps,
    only: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    seed: int = 0,
) -> None:
    """Run the study, or what is not done yet of it.

    Args:
        out: folder for everything.
        steps: optimizer steps of every autoencoder.
        warmup_steps: of them before the adversarial term.
        segmenter_steps: optimizer steps of every segmenter.
        only: cells to do now, such as 0.8mm-4x; all by default.
        seed: of phantoms and training.
    """
    plan = StudyPlan(steps=steps, warmup_steps=warmup_steps, segmenter_steps=segmenter_steps, seed=seed)
    print(run_study(out, plan, only or []).read_text())  # noqa: T201


if __name__ == "__main__":
    app()
