"""Words around pictures leave the pictures alone, and colors stand where they should."""

import numpy as np

from cardiosynth.core.lettering import beside, captioned, color_scale, legend, stacked, titled
from cardiosynth.core.picture import confidence_colors

PICTURE = np.full((60, 200, 3), 77, np.uint8)


def test_captions_and_titles_are_added_outside_the_picture():
    below = captioned(PICTURE, ["left ventricle 91 ml", "Dice 0.76"])
    np.testing.assert_array_equal(below[:60], PICTURE)
    assert below[60:].max() > 200
    above = titled(PICTURE, "A mask")
    np.testing.assert_array_equal(above[-60:], PICTURE)
    assert above[:-60].max() > 200
    assert above[:-60, 150:].max() == 0  # at the left


def test_pictures_keep_their_size_in_rows_and_columns():
    small = np.full((20, 30, 3), 9, np.uint8)
    row = beside([PICTURE, small], gap=5)
    assert row.shape == (60, 240, 3)
    np.testing.assert_array_equal(row[:20, 205:235], small)
    assert row[20:, 205:].max() == 0
    column = stacked([PICTURE, small], gap=5)
    assert column.shape == (90, 200, 3)
    np.testing.assert_array_equal(column[65:85, :30], small)


def test_a_scale_runs_from_the_color_of_0_to_that_of_1():
    scale = color_scale(confidence_colors, ("0", "1"), 300)
    ends = confidence_colors(np.array([[0.0, 1.0]]))[0]
    np.testing.assert_array_equal(scale[12, [60, 239]], ends)
    assert scale[12, 50:58].max() == scale[12, 242:250].max() == 0


def test_a_legend_breaks_into_rows_and_shows_every_color():
    entries = [("coronary artery", (230, 57, 70)), ("left ventricle", (255, 209, 102)), ("left atrium", (46, 196, 182))]
    wide, narrow = legend(entries, 600), legend(entries, 200)
    assert narrow.shape[0] == 3 * wide.shape[0]
    for _, color in entries:
        assert (wide == color).all(-1).sum() > 50
        assert (narrow == color).all(-1).sum() > 50
