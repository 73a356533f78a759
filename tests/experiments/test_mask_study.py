"""The study of masks at toy size, and its measures on deformations whose truth is known."""

from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.store import read_rows
from cardiosynth.evaluation.results import GalleryFigure, Results
from cardiosynth.experiments.mask_study import (
    THIN,
    MaskPlan,
    aligned_masks,
    local_volume,
    part_from_view,
    run_study,
    supersampled_warp,
)
from cardiosynth.experiments.mask_tables import CHAMBERS
from cardiosynth.experiments.registry import find_experiment
from cardiosynth.report.figures import Library
from tests.anatomy.test_deform import ball, deformation, field

PLAN = MaskPlan(grids={3.2: 36}, cases=2, reference_cases={3.2: 1}, diversity_mm=3.2)


@pytest.mark.slow
def test_the_study_is_done_once_and_its_table_has_every_way(tmp_path: Path):
    found = run_study(tmp_path, PLAN)
    carrying, draws, diversity = found.tables
    assert [row[0] for row in carrying.rows] == ["3.2 mm, closing", "3.2 mm, literal", "3.2 mm, none"]
    assert [row[0] for row in diversity.rows] == ["different phantoms", "offspring of as many", "offspring of one"]
    assert [column.title for column in diversity.columns][2:4] == ["left atrium", "left ventricle"]
    assert draws.rows[0][3] >= 1
    assert run_study(tmp_path, PLAN) == found
    assert [row["step"] for row in read_rows(tmp_path / "steps.jsonl")] == ["masks 3.2 mm", "diversity"]
    assert find_experiment("masks").sizes["tiny"].plan == PLAN.model_dump(exclude={"seed"})
    _the_gallery_shows_the_masks(tmp_path, found)


def _the_gallery_shows_the_masks(out: Path, found: Results) -> None:
    (figure,) = found.figures
    assert isinstance(figure, GalleryFigure)
    masks = [Library(out).case(tile.case).required_mask() for tile in figure.rows[0] if tile]
    grown = [int((mask == THIN).sum()) for mask in masks]
    assert grown[2] > 2 * grown[1], "printed as it is, Eq. 6 makes vessels thick"


def test_local_volume_is_what_is_in_view_times_its_growth():
    inside = ball((20, 20, 20), 6)
    grown = deformation((20, 20, 20), (1.0,) * 3, np.diag([1.1, 0.9, 1.2]))
    assert local_volume(inside, grown) == pytest.approx(inside.sum() * 1.1 * 0.9 * 1.2)
    away = deformation((20, 20, 20), (1.0,) * 3, translation_mm=(10.0, 0.0, 0.0))
    # The middle of the ball comes to lie on the border.
    assert local_volume(inside, away) == pytest.approx(inside.sum() / 2, rel=0.01)
    assert part_from_view(np.ones((20, 20, 20), bool), away) == 10 * 20 * 20


def test_the_supersampled_warp_is_the_mask_where_nothing_moves_and_the_shifted_one_by_voxels():
    mask = ball((16, 16, 16), 5, (6, 8, 8)).astype(np.uint8) * 7
    np.testing.assert_array_equal(supersampled_warp(mask, deformation((16,) * 3, (1.0, 2.0, 0.5))), mask)
    shifted = supersampled_warp(mask, deformation((16,) * 3, (1.0, 2.0, 0.5), translation_mm=(2.0, 0.0, 0.5)))
    np.testing.assert_array_equal(shifted, np.roll(mask, (2, 1), (0, 2)))
    moved = supersampled_warp(mask, deformation((16,) * 3, (1.0,) * 3, field=field()))
    assert 0 < (moved != mask).mean() < 0.2


def test_turned_and_shifted_hearts_are_laid_on_the_first():
    mask = np.zeros((40, 40, 40), np.uint8)
    for code, center in zip(CHAMBERS, ((14, 14, 20), (24, 14, 24), (14, 24, 16), (26, 26, 22)), strict=True):
        mask[ball(mask.shape, 5, center)] = code
    other = np.roll(np.rot90(mask, axes=(0, 1)), (2, -3), (0, 2))
    first, laid = aligned_masks([mask, other])
    np.testing.assert_array_equal(first, mask)
    assert (laid != mask).mean() < 0.005
