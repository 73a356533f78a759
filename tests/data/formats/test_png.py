from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardiosynth.core.errors import InputError
from cardiosynth.data.formats.files import read_image, read_mask

ROWS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_the_picture_is_seen_from_the_feet(tmp_path: Path):
    Image.fromarray(ROWS).save(tmp_path / "a.png")
    volume = read_image(tmp_path / "a.png")
    assert volume.array.shape == (1, 4, 3)
    assert volume.array[0, 0, 0] == ROWS[-1, -1]  # the least right, least anterior voxel is the last pixel
    assert volume.array[0, -1, -1] == ROWS[0, 0]
    assert not volume.spacing_known
    assert volume.facts["axis_codes"] == "LPS"


def test_sixteen_bits_and_single_bits_are_read(tmp_path: Path):
    Image.fromarray(ROWS.astype(np.uint16) * 300).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").array.max() == 3300
    Image.fromarray(ROWS > 5).save(tmp_path / "b.png")
    assert sorted(np.unique(read_mask(tmp_path / "b.png").array)) == [0, 1]


def test_of_a_palette_a_mask_takes_the_index_and_an_image_the_gray(tmp_path: Path):
    picture = Image.new("P", (4, 3))
    picture.putdata(ROWS.ravel().tolist())
    picture.putpalette([value for i in range(256) for value in [255 - i] * 3])
    picture.save(tmp_path / "a.png")
    assert np.array_equal(np.unique(read_mask(tmp_path / "a.png").array), np.arange(12))
    assert read_image(tmp_path / "a.png").array.max() == 255
    picture.putpalette([value for i in range(256) for value in (i, 0, 255 - i)])
    picture.save(tmp_path / "b.png")
    assert np.array_equal(np.unique(read_mask(tmp_path / "b.png").array), np.arange(12))
    with pytest.raises(InputError, match=r"b\.png holds colors; export gray values"):
        read_image(tmp_path / "b.png")


def test_gray_stored_as_colors_is_gray_and_colors_are_refused(tmp_path: Path):
    Image.fromarray(np.repeat(ROWS[..., None], 3, -1)).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").array.max() == 11
    Image.fromarray(ROWS).convert("LA").save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png").array.max() == 11
    Image.fromarray(np.stack([ROWS, ROWS, 0 * ROWS], -1)).save(tmp_path / "c.png")
    with pytest.raises(InputError, match=r"c\.png holds colors; export one gray value per structure"):
        read_mask(tmp_path / "c.png")


def test_a_broken_picture_is_refused_by_name(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 255, (50, 50)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    for content in (whole[:900], b"", b"no picture" * 99):
        (tmp_path / "b.png").write_bytes(content)
        with pytest.raises(InputError, match=r"b\.png is truncated, damaged or no PNG"):
            read_image(tmp_path / "b.png")
