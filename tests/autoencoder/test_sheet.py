import numpy as np

from cardiosynth.autoencoder.sheet import SIZE_PX, verdict_sheet
from cardiosynth.core.picture import contact_sheet, draw_image, focus, with_letters, with_mark
from cardiosynth.core.random import numpy_generator

from .blobs import blob


def column(sheet: np.ndarray, number: int) -> np.ndarray:
    """A picture's middle in the first line, away from letters and marks."""
    left = sheet.shape[1] - 3 * (SIZE_PX + 4) + number * (SIZE_PX + 4)
    top = sheet.shape[0] - 3 * (SIZE_PX + 4)
    return sheet[top + 60 : top + 200, left + 60 : left + 200]


def test_a_perfect_autoencoder_shows_the_same_picture_twice_and_gray():
    noise = numpy_generator(0, "sheet").integers(-150, 550, blob(0).image.shape).astype(np.int16)
    sheet = verdict_sheet(lambda case: case.image, [blob(0).with_(image=noise)])
    original, reconstruction, difference = (column(sheet, number) for number in range(3))
    assert original.std() > 0
    assert np.array_equal(original, reconstruction)
    assert np.all(np.abs(difference.astype(int) - 128) <= 1)


def test_a_brighter_reconstruction_is_brighter_and_so_is_the_difference():
    sheet = verdict_sheet(lambda case: case.image + 100.0, [blob(0)])
    assert column(sheet, 1).mean() > column(sheet, 0).mean()
    assert np.all(column(sheet, 2) == round((100 + 200) / 400 * 255))


def test_a_reconstruction_is_never_taken_for_a_scan():
    case = blob(0)
    made = case.with_(image=case.image.astype(np.float32))
    plain = with_letters(draw_image(made, "axial", focus(made), SIZE_PX), "axial")
    expected = contact_sheet([[with_mark(plain, "RECONSTRUCTION SYNTHETIC (PHANTOM)")]])[:SIZE_PX, -SIZE_PX - 4 :]
    sheet = verdict_sheet(lambda one: one.image, [case])
    left, top = sheet.shape[1] - 2 * (SIZE_PX + 4), sheet.shape[0] - 3 * (SIZE_PX + 4)
    assert np.array_equal(sheet[top : top + SIZE_PX, left : left + SIZE_PX], expected[:, :SIZE_PX])
