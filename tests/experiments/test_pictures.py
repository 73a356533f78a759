"""The pictures of the documentation: complete, and of the places they claim to show."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardiosynth.core.case import Case
from cardiosynth.core.picture import heat_colors
from cardiosynth.data.sources.phantom.source import phantom
from cardiosynth.experiments.pictures import draw_error_and_confidence, draw_templates, four_chambers, write_pictures


class Repainting:
    """Makes the template's image of any mask, sure of everything: what a picture of it must show is known."""

    def fit(self, cases, run):
        """Nothing is learned."""

    def generate(self, mask: Case, template: Case, seed: int) -> Case:
        sure = np.ones(mask.required_mask().shape, np.float32)
        return mask.with_(image=template.required_image(), confidence=sure, origin="synthetic")


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [phantom(i, (32,) * 3, protocol=i) for i in range(2)]


def test_the_axial_slice_shows_all_four_chambers(cases: list[Case]):
    case, chambers = cases[0], ("left_atrium", "left_ventricle", "right_atrium", "right_ventricle")
    shown = set(np.unique(case.required_mask()[0][..., four_chambers(case)[2]]).tolist())
    assert {case.labels.named(name).code for name in chambers} <= shown


def test_every_template_has_its_column(cases: list[Case]):
    one, two = (draw_templates(Repainting(), cases[0], templates, 0) for templates in (cases[1:], cases))
    assert two.shape[1] == one.shape[1] + 236
    np.testing.assert_array_equal(one[40:200, :230], two[40:200, :230])  # the mask's own phantom


def test_an_image_that_is_right_has_a_black_error_and_a_bright_confidence(cases: list[Case]):
    case = cases[0]
    picture = draw_error_and_confidence(case, Repainting().generate(case, case, 0))
    columns = [picture[60:250, 244 * i + 20 : 244 * i + 230] for i in range(4)]
    np.testing.assert_array_equal(columns[0][:150], columns[1][:150])  # above the marks, which differ
    none = heat_colors(np.zeros((1, 1)))[0, 0]
    assert (columns[2] == none).all(-1).mean() > 0.95
    assert (columns[3][..., 0] > 200).mean() > 0.95
    wrong = draw_error_and_confidence(case, Repainting().generate(case, cases[1], 0))
    assert (wrong[60:250, 244 * 2 + 20 : 244 * 2 + 230] == none).all(-1).mean() < 0.5


@pytest.mark.slow
def test_masks_alone_are_drawn_without_a_model(tmp_path: Path):
    (path,) = write_pictures(tmp_path)
    with Image.open(path) as image:
        width, height = image.size
    assert 1100 <= width <= 1250
    assert height < width
    assert path.stat().st_size < 400_000
