from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import Window
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.picture import (
    CT_WINDOW,
    PLANES,
    confidence_colors,
    contact_sheet,
    display_slice,
    draw_case,
    draw_confidence,
    draw_image,
    draw_mask,
    draw_projection,
    draw_surface,
    focus,
    label_legend,
    marked,
    picture_size,
    planes_of,
    save_png,
    window_for,
    window_text,
    with_letters,
    with_mark,
)

SHAPE = (10, 12, 14)


def volume_case(**changes) -> Case:
    image = np.full((1, *SHAPE), -200, np.int16)
    case = Case(case_id="a", image=image, affine=np.eye(4), mask=np.zeros((1, *SHAPE), np.uint8))
    return case.with_(**changes)


def bright_side(picture: np.ndarray) -> str:
    """Name the side of the picture that the brightest pixels lie nearest to."""
    rows, columns = np.nonzero(picture[..., 0] > 128)
    height, width = picture.shape[:2]
    down, right = rows.mean() / height - 0.5, columns.mean() / width - 0.5
    if abs(down) > abs(right):
        return "bottom" if down > 0 else "top"
    return "right" if right > 0 else "left"


@pytest.mark.parametrize(
    ("plane", "landmark", "side"),
    [
        ("axial", "anterior", "top"), ("axial", "right", "left"), ("coronal", "superior", "top"),
        ("coronal", "right", "left"), ("sagittal", "superior", "top"), ("sagittal", "anterior", "left"),
    ],
)  # fmt: skip
def test_landmarks_lie_where_a_radiologist_expects_them(plane, landmark, side):
    image = np.full((1, *SHAPE), -200, np.int16)
    axis = {"right": 0, "anterior": 1, "superior": 2}[landmark]
    place: list[slice | int] = [0, slice(None), slice(None), slice(None)]
    place[axis + 1] = slice(SHAPE[axis] - 2, SHAPE[axis])
    image[tuple(place)] = 600
    picture = draw_image(volume_case(image=image), plane, (5, 6, 7), 140)
    assert bright_side(picture) == side


def test_a_slice_is_the_slice_of_that_index():
    volume = np.zeros(SHAPE, np.uint8)
    volume[3, 4, 5] = 7
    for plane, index in zip(PLANES, (5, 4, 3), strict=True):
        assert display_slice(volume, plane, index).max() == 7
        assert display_slice(volume, plane, index + 1).max() == 0


def test_pixels_are_square_for_thick_slices():
    case = volume_case(affine=np.diag([1.0, 1.0, 6.0, 1.0]))
    assert picture_size(case, "axial", 120) == (120, 100)
    assert picture_size(case, "coronal", 168) == (168, 20)
    assert picture_size(case, "sagittal", 168) == (168, 24)
    assert draw_image(case, "coronal", (0, 0, 0), 168).shape == (168, 20, 3)


def test_no_voxel_gets_lost_in_a_small_picture():
    assert picture_size(volume_case(), "sagittal", 3) == (14, 12)


def test_the_window_maps_its_ends_to_black_and_white():
    image = np.full((1, *SHAPE), 200, np.int16)
    image[:, :5] = -1000
    picture = draw_image(volume_case(image=image), "axial", (0, 0, 0), 120)
    assert picture.min() == 0
    assert picture[:, :20, 0].tolist() == np.full((120, 20), 128).tolist()
    assert window_text(volume_case(), CT_WINDOW) == "level 200 HU, width 800 HU"
    narrow = draw_image(volume_case(image=image), "axial", (0, 0, 0), 120, Window(low=0.0, high=100.0))
    assert set(narrow[:, :20].ravel().tolist()) == {255}


def test_mr_gets_its_own_percentiles():
    image = np.linspace(0, 1000, np.prod(SHAPE), dtype=np.float32).reshape(1, *SHAPE)
    case = volume_case(image=image, intensity_unit="mr")
    assert window_for(case).low == pytest.approx(10, abs=0.1)
    assert window_for(case).high == pytest.approx(990, abs=0.1)
    assert window_text(case, window_for(case)) == "level 500, width 980"
    assert window_for(volume_case(intensity_unit="mr")).width > 0


def test_masks_are_drawn_in_the_colors_of_the_table():
    mask = np.zeros((1, *SHAPE), np.uint8)
    mask[0, 2:8, 2:9, 7] = 3
    case = volume_case(mask=mask)
    filled = draw_mask(case, "axial", (0, 0, 7), 120)
    assert {tuple(c) for c in filled.reshape(-1, 3).tolist()} == {(0, 0, 0), CARDIAC_CT.named("left_atrium").color}
    assert filled.any(-1).sum() == 6 * 7 * 100
    outline = draw_mask(case, "axial", (0, 0, 7), 120, style="outline")
    assert outline.any(-1).sum() == 2 * (60 + 70) - 4
    gray = draw_image(case, "axial", (0, 0, 7), 120)
    half = draw_mask(case, "axial", (0, 0, 7), 120, over=gray + np.uint8(100), opacity=0.5)
    expected = np.rint((np.array(CARDIAC_CT.named("left_atrium").color) + 100) / 2)
    assert np.abs(half[60, 50].astype(int) - expected).max() <= 1


def test_confidence_goes_from_dark_to_light():
    confidence = np.zeros((1, *SHAPE), np.float32)
    confidence[0, 5:] = 1
    picture = draw_confidence(volume_case(confidence=confidence), "axial", (0, 0, 0), 120)
    assert picture[0, 0].sum() > 2 * picture[0, -1].sum()
    ramp = confidence_colors(np.linspace(0, 1, 50)[None])[0].astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(ramp) > 0).all()
    with pytest.raises(InputError, match="no confidence map"):
        draw_confidence(volume_case(), "axial", (0, 0, 0), 120)


def test_focus_is_the_heart_at_the_height_of_the_coronaries():
    mask = np.zeros((1, *SHAPE), np.uint8)
    mask[0, 2:7, 3:8, 4:9] = 4
    mask[0, 0, 0, 0] = 12
    assert focus(volume_case(mask=mask)) == (4, 5, 6)
    mask[0, 2:5, 3, 8] = 1
    assert focus(volume_case(mask=mask)) == (4, 5, 8)
    assert focus(volume_case(mask=None)) == focus(volume_case()) == (5, 6, 7)


def test_projection_shows_the_nearest_voxel_brightest():
    mask = np.zeros((1, *SHAPE), np.uint8)
    mask[0, 2, 10, 3] = mask[0, 7, 1, 3] = 1
    picture = draw_projection(volume_case(mask=mask), "coronal", 1, 140).sum(-1)
    front, back = picture[:, 70:], picture[:, :70]
    assert front.max() > back.max() > 0
    assert draw_projection(volume_case(), "coronal", 1, 140).max() == 0


def test_a_surface_shows_what_is_in_front_and_is_darker_on_its_slopes():
    mask = np.zeros((1, 24, 24, 24), np.uint8)
    ball = np.linalg.norm(np.indices((24,) * 3) - 11.5, axis=0)
    near, far = CARDIAC_CT.named("left_ventricle"), CARDIAC_CT.named("left_atrium")
    mask[0][ball < 9] = near.code
    mask[0][(ball < 9) & (np.arange(24)[None, :, None] < 12)] = far.code
    case = volume_case(image=None, mask=mask)
    front, feet = draw_surface(case, "coronal", 96).astype(int), draw_surface(case, "axial", 96).astype(int)
    direction = front[48, 48] / np.linalg.norm(front[48, 48])
    assert direction == pytest.approx(np.array(near.color) / np.linalg.norm(near.color), abs=0.02), "anterior half"
    assert front[48, 48].sum() > 1.2 * front[48, 18].sum() > 0, "the rim is seen at a slant"
    assert front[2, 2].sum() == 0
    up, down = feet[30, 48] / np.linalg.norm(feet[30, 48]), feet[66, 48] / np.linalg.norm(feet[66, 48])
    assert up == pytest.approx(np.array(near.color) / np.linalg.norm(near.color), abs=0.05), "anterior is up"
    assert down == pytest.approx(np.array(far.color) / np.linalg.norm(far.color), abs=0.05)


def test_two_dimensional_cases_have_one_plane():
    image = np.full((1, 10, 12), -200, np.int16)
    image[0, 8:, :] = 600
    case = Case(
        case_id="slice", image=image, affine=np.diag([1.0, 2.0, 8.0, 1.0]), mask=np.zeros((1, 10, 12), np.uint8)
    )
    assert planes_of(case) == ("axial",)
    assert focus(case) == (5, 6)
    picture = draw_image(case, "axial", focus(case), 240)
    assert picture.shape == (240, 100, 3)
    assert bright_side(picture) == "left"
    assert [len(row) for row in draw_case(case, 100)] == [3]
    assert draw_projection(case, "axial", 1, 100).shape == (100, 42, 3)


def test_only_simulated_cases_are_marked():
    picture = np.zeros((100, 120, 3), np.uint8)
    assert not marked(picture, volume_case()).any()
    for origin in ("synthetic", "phantom"):
        shown = marked(picture, volume_case(origin=origin))
        assert shown[60:, :100].any()
        assert not shown[:50].any()


def test_the_mark_and_the_letters_stay_in_the_picture():
    mark = with_mark(np.zeros((40, 90, 3), np.uint8), "SYNTHETIC (PHANTOM)")
    assert mark.any()
    assert not mark[:, -2:].any()
    letters = with_letters(np.zeros((100, 100, 3), np.uint8), "axial")
    assert all(part.any() for part in (letters[:20], letters[-20:], letters[:, :20], letters[:, -20:]))
    assert not letters[25:75, 25:75].any()


def test_a_sheet_holds_all_pictures():
    white = np.full((50, 40, 3), 255, np.uint8)
    sheet = contact_sheet([[white, None], [white, white]])
    assert (sheet == 255).all(-1).sum() == 3 * 50 * 40
    titled = contact_sheet([[white]], ["a row"], ["a column"])
    assert titled.shape[0] > 50
    assert titled.shape[1] > 60


def test_the_png_holds_the_picture(tmp_path: Path):
    picture = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    save_png(picture, tmp_path / "a" / "picture.png")
    with Image.open(tmp_path / "a" / "picture.png") as image:
        assert np.array_equal(np.asarray(image), picture)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["picture.png"]


def test_the_legend_names_what_is_shown():
    assert [title for title, _ in label_legend(CARDIAC_CT, [0, 4, 1])] == ["coronary artery", "left ventricle"]
