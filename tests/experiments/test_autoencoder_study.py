"""The study of autoencoders at toy size: complete, done once, and honest about what is not there."""

from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.store import read_json, read_rows
from cardiosynth.evaluation.results import GalleryFigure, ProjectionFigure, spread
from cardiosynth.experiments.autoencoder_study import Cell, StudyPlan, autoencoder_stage, run_study, table
from cardiosynth.report.figures import Library

PLAN = StudyPlan(
    grids={5.0: 24}, training=2, protocols=2, held_out=2, steps=2, warmup_steps=1, segmenter_steps=2, crop=24
)


@pytest.mark.slow
def test_cells_are_done_once_and_the_table_has_what_there_is(tmp_path: Path):
    one = run_study(tmp_path, PLAN, only=["5mm-2x"])
    assert [row[0] for row in one.tables[0].rows] == ["5 mm, 2x"]
    everything = run_study(tmp_path, PLAN)
    assert [row[:2] for row in everything.tables[0].rows] == [
        ("5 mm, 4x", "no"), ("5 mm, 4x", "yes"), ("5 mm, 2x", "no"), ("5 mm, 2x", "yes")
    ]  # fmt: skip
    assert one.tables[0].rows[0] in everything.tables[0].rows
    steps = [row["step"] for row in read_rows(tmp_path / "steps.jsonl")]
    assert len(steps) == len(set(steps)) == 6
    rows = [read_json(file) for file in sorted((tmp_path / "cells").glob("*.json"))]
    assert sorted(row["latent_values"] for row in rows) == [4 * 6**3] * 2 + [4 * 12**3] * 2
    assert all(len(row[key]) == 2 for row in rows for key in ("psnr_heart_db", "contrast_kept", "cl_dice", "dice"))
    gallery, vessels = everything.figures
    assert isinstance(gallery, GalleryFigure)
    assert isinstance(vessels, ProjectionFigure)
    library = Library(tmp_path)
    shown = [library.case(tile.case) for tile in gallery.rows[0] if tile]
    assert [case.origin for case in shown] == ["phantom"] + 4 * ["synthetic"]
    assert vessels.cases[0][0] == "5 mm, original"
    assert {library.case(place).labels.named("coronary_artery").role for _, place in vessels.cases} == {"target"}


def test_cells_differ_in_nothing_but_their_name():
    stages = {
        (c, a): autoencoder_stage(PLAN, Cell(spacing_mm=5.0, compression=c, adversarial=a))
        for c in (4, 2)
        for a in (0, 1)
    }
    plain, finer, fought = (stages[key] for key in ((4, 0), (2, 0), (4, 1)))
    assert finer.model_copy(update={"network": plain.network}) == plain
    assert fought.model_copy(update={"adversarial": None}) == plain
    assert (plain.network.compression, finer.network.compression) == (4, 2)
    assert plain.training.steps == PLAN.steps


def test_a_cell_that_is_not_in_the_plan_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="did you mean '5mm-4x'"):
        run_study(tmp_path / "study", PLAN, only=["5mm-4"])
    assert not (tmp_path / "study").exists()


def test_the_table_gives_mean_and_spread_over_cases_and_nothing_where_nothing_is_known():
    row = {
        "spacing_mm": 0.8, "compression": 2, "adversarial": True, "psnr_heart_db": [30.0, 32.0],
        "psnr_coronary_db": [20.0, 20.0], "contrast_kept": [0.5, None], "cl_dice": [0.25, 0.75],
        "dice": [np.nan, np.nan], "cl_dice_originals": [1.0, 1.0], "dice_originals": [1.0, 1.0],
        "latent_values": 442368, "cpu_s": 99.6,
    }  # fmt: skip
    cells = table([row], "One phantom.").rows[0]
    assert cells[:2] == ("0.8 mm, 2x", "yes")
    assert cells[2] == spread([30.0, 32.0])
    assert cells[4] == spread([0.5])
    assert cells[7] is None
    assert cells[9:] == (442368, 99.6)
