import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.picture import focus
from cardiosynth.data.dataset import write_dataset
from cardiosynth.evaluation.results import CaseFigure, CasePointer, GalleryFigure, ProjectionFigure, Tile
from cardiosynth.report.figures import Library, Panel, case_panels, gallery_panels, projection_panels

MARK = (255, 214, 102)


def pixels(panel: Panel | None) -> np.ndarray:
    assert panel is not None
    return panel.picture


def is_marked(panel: Panel | None) -> bool:
    picture = pixels(panel)
    corner = picture[picture.shape[0] * 3 // 4 :]
    return bool((corner == MARK).all(-1).any())


def test_a_case_is_shown_in_three_planes_beside_its_partner(folder, results):
    grid = case_panels(results.figures[0], Library(folder))
    assert [heading for heading, _ in grid.columns] == ["Real", "Synthetic", "Difference", "Mask", "Confidence"]
    assert [plane for plane, _ in grid.rows] == ["Axial", "Coronal", "Sagittal"]
    assert [title for title, _ in grid.legend] == ["coronary artery", "left ventricle"]
    assert "level 200 HU, width 800 HU" in grid.facts
    assert grid.confidence
    assert grid.error == "200 HU"
    assert grid.missing == ()


def test_every_synthetic_picture_carries_the_mark_and_no_real_one_does(folder, results):
    library = Library(folder)
    grid = case_panels(results.figures[0], library)
    for _, panels in grid.rows:
        assert [is_marked(panel) for panel in panels] == [False, True, True, True, True]
    ((_, projections),) = projection_panels(results.figures[1], library).rows
    assert [is_marked(panel) for panel in projections] == [False, True]


def test_a_phantom_is_named_and_marked(folder, results, a_case):
    write_dataset([a_case("r0", "phantom")], folder / "data/real")
    grid = case_panels(results.figures[0], Library(folder))
    assert grid.columns[0] == ("Phantom", "r0")
    assert is_marked(grid.rows[0][1][0])


def test_unpaired_cases_are_each_cut_through_their_own_heart(folder, results, a_case):
    real = a_case("r0", "real")
    moved = real.with_(mask=np.roll(real.mask, 3, axis=3), image=np.roll(real.image, 3, axis=3))
    assert focus(moved)[2] == focus(real)[2] + 3
    write_dataset([moved], folder / "data/real")
    figure = results.figures[0].model_copy(update={"paired": False})
    own = case_panels(figure, Library(folder)).rows[0][1][0]
    same = case_panels(results.figures[0], Library(folder)).rows[0][1][0]
    assert pixels(own).mean() > pixels(same).mean()


def test_what_is_missing_is_said_in_one_sentence(folder, results):
    gone = CasePointer(dataset="data/nowhere", case_id="s0")
    grid = case_panels(results.figures[0].model_copy(update={"synthetic": gone}), Library(folder))
    assert grid.rows == []
    assert len(grid.missing) == 1
    assert grid.missing[0].startswith("s0 cannot be shown: ")
    without_partner = results.figures[0].model_copy(update={"real": gone})
    grid = case_panels(without_partner, Library(folder))
    assert [heading for heading, _ in grid.columns] == ["Synthetic", "Mask", "Confidence"]
    assert len(grid.missing) == 1
    with pytest.raises(InputError):
        Library(folder).case(CasePointer(dataset="data/real", case_id="unknown"))


def test_projections_count_the_pieces(folder, results):
    ((_, panels),) = projection_panels(results.figures[1], Library(folder)).rows
    assert [panel.caption for panel in panels if panel] == [
        "real: r0; 1 piece, largest 100 %",
        "made; 1 piece, largest 100 %",
    ]
    unknown = ProjectionFigure(title="t", structure="nerve", cases=results.figures[1].cases)
    assert projection_panels(unknown, Library(folder)).rows == []


def test_slices_are_shown_too(tmp_path, a_case):
    case = a_case("s0", "synthetic")
    flat = case.with_(image=case.image[..., 6], mask=case.mask[..., 6], confidence=None, intensity_unit="mr")
    write_dataset([flat], tmp_path / "flat")
    figure = CaseFigure(title="t", synthetic=CasePointer(dataset="flat", case_id="s0"))
    grid = case_panels(figure, Library(tmp_path))
    assert [(plane, len(panels)) for plane, panels in grid.rows] == [("Axial", 2)]
    assert "percentile" in grid.facts


def test_the_difference_is_black_where_images_agree_and_brightest_from_a_quarter_of_the_window(folder, results, a_case):
    off = np.array(a_case("s0", "synthetic").image)
    off[0, :10] += 200
    write_dataset([a_case("s0", "synthetic", image=off)], folder / "data/synthetic")
    grid = case_panels(results.figures[0], Library(folder))
    axial = pixels(grid.rows[0][1][2])
    quarter = axial.shape[1] // 4
    left, right = axial[60, quarter // 2], axial[60, -quarter // 2]
    assert left.max() < 10, "the patient's right is on the left, where nothing differs"
    assert right.min() > 150


def test_unpaired_images_have_no_difference(folder, results):
    grid = case_panels(results.figures[0].model_copy(update={"paired": False}), Library(folder))
    assert "Difference" not in [heading for heading, _ in grid.columns]
    assert grid.error == ""


def test_one_window_for_both_images_of_a_pair_in_arbitrary_units(tmp_path, a_case):
    changes = {"intensity_unit": "unknown", "confidence": None}
    real = a_case("r0", "real", **changes)
    dim = a_case("s0", "synthetic", **changes, image=(np.asarray(real.image) // 2).astype(np.int16))
    write_dataset([real], tmp_path / "real")
    write_dataset([dim], tmp_path / "made")
    here = {name: CasePointer(dataset=name, case_id=case_id) for name, case_id in (("real", "r0"), ("made", "s0"))}
    figure = CaseFigure(title="t", synthetic=here["made"], real=here["real"], paired=True)
    grid = case_panels(figure, Library(tmp_path))
    real_heart, dim_heart = (int(pixels(panel)[120, 160, 0]) for panel in grid.rows[0][1][:2])
    assert 0 < dim_heart < 0.75 * real_heart
    assert "of both" in grid.facts
    assert grid.error == "25 % of the window"


def test_a_gallery_has_its_rows_and_what_cannot_be_found_is_said(folder):
    made = CasePointer(dataset="data/synthetic", case_id="s0")
    gone = made.model_copy(update={"case_id": "s1"})
    rows = (
        (Tile(case=made, text="source", layer="mask"), None),
        (Tile(case=made, layer="surface"), Tile(case=gone, layer="image")),
        (Tile(case=made, layer="image"), Tile(case=made, layer="confidence")),
    )
    grid = gallery_panels(GalleryFigure(title="t", rows=rows, plane="coronal"), Library(folder))
    assert [[panel is not None for panel in row] for _, row in grid.rows] == [
        [True, False],
        [True, False],
        [True, True],
    ]
    assert all(is_marked(panel) for _, row in grid.rows for panel in row if panel)
    assert [title for title, _ in grid.legend] == ["coronary artery", "left ventricle"]
    assert grid.missing[0].startswith("s1 cannot be shown")
    assert grid.confidence
    assert "level 200 HU" in grid.facts
    none = GalleryFigure(title="t", rows=((Tile(case=gone, layer="image"),),))
    assert gallery_panels(none, Library(folder)).rows == []
