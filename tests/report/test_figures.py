import io

import numpy as np
import pytest
from PIL import Image

from cardiosynth.core.errors import InputError
from cardiosynth.core.picture import focus
from cardiosynth.data.dataset import write_dataset
from cardiosynth.evaluation.results import CaseFigure, CasePointer, ProjectionFigure
from cardiosynth.report.figures import Library, Panel, case_panels, projection_panels

MARK = (255, 214, 102)


def pixels(panel: Panel | None) -> np.ndarray:
    assert panel is not None
    with Image.open(io.BytesIO(panel.png)) as image:
        return np.asarray(image)


def is_marked(panel: Panel | None) -> bool:
    picture = pixels(panel)
    corner = picture[picture.shape[0] * 3 // 4 :]
    return bool((corner == MARK).all(-1).any())


def test_a_case_is_shown_in_three_planes_beside_its_partner(folder, results):
    grid = case_panels(results.figures[0], Library(folder))
    assert [heading for heading, _ in grid.columns] == ["Real", "Synthetic", "Mask", "Confidence"]
    assert [plane for plane, _ in grid.rows] == ["Axial", "Coronal", "Sagittal"]
    assert [title for title, _ in grid.legend] == ["coronary artery", "left ventricle"]
    assert "level 200 HU, width 800 HU" in grid.facts
    assert grid.confidence
    assert grid.missing == ()


def test_every_synthetic_picture_carries_the_mark_and_no_real_one_does(folder, results):
    library = Library(folder)
    grid = case_panels(results.figures[0], library)
    for _, panels in grid.rows:
        assert [is_marked(panel) for panel in panels] == [False, True, True, True]
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
