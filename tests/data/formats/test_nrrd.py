from pathlib import Path

import nrrd
import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.data.formats.files import read_image, read_mask
from cardiosynth.data.formats.volume import Volume

LPS = "left-posterior-superior"
DIRECTIONS = np.array([[0.9, -0.3, 0.0], [0.3, 0.9, 0.0], [0.0, 0.0, 2.5]])
"""Row i: where a step along axis i leads, in the space of the header."""
SIGNS = {"right-anterior-superior": (1, 1, 1), "LAS": (-1, 1, 1), LPS: (-1, -1, 1), f"{LPS}-time": (-1, -1, 1)}


def one_bright_voxel() -> np.ndarray:
    array = np.zeros((5, 6, 7), np.int16)
    array[1, 4, 2] = 900
    return array


def save(path: Path, array: np.ndarray, **header) -> Path:
    nrrd.write(str(path), array, header, index_order="F")
    return path


def landmark_mm(volume: Volume) -> np.ndarray:
    index = np.unravel_index(volume.array[0].argmax(), volume.array.shape[1:])
    return (volume.affine @ (*index, 1))[:3]


@pytest.mark.parametrize("space", list(SIGNS))
def test_a_landmark_stays_at_its_place_whatever_the_space(tmp_path: Path, space: str):
    header = {"space": space, "space directions": DIRECTIONS, "space origin": [10, 20, 30]}
    volume = read_image(save(tmp_path / "a.nrrd", one_bright_voxel(), **header))
    in_space = (1, 4, 2) @ DIRECTIONS + (10, 20, 30)
    np.testing.assert_allclose(landmark_mm(volume), in_space * SIGNS[space], atol=1e-9)
    assert volume.array.dtype == np.int16
    assert volume.spacing_known
    assert not volume.facts["sheared"]


def test_lengths_in_other_units_become_millimeters(tmp_path: Path):
    header = {"space": LPS, "space directions": np.diag([0.1, 0.1, 0.2]), "space units": ["cm", "cm", "cm"]}
    volume = read_image(save(tmp_path / "a.nrrd", one_bright_voxel(), **header))
    np.testing.assert_allclose(volume.grid.spacing_mm, (1, 1, 2))


def test_without_a_space_voxel_sizes_count_and_without_those_the_spacing_is_unknown(tmp_path: Path):
    sized = read_image(save(tmp_path / "a.nrrd", one_bright_voxel(), spacings=[0.5, 0.7, 2.0]))
    assert sized.spacing_known
    assert sized.facts["axis_codes"] == "LPS"
    np.testing.assert_allclose(sized.grid.spacing_mm, (0.5, 0.7, 2))
    assert not read_image(save(tmp_path / "b.nrrd", one_bright_voxel())).spacing_known


def test_a_detached_header_leads_to_its_voxels(tmp_path: Path):
    save(tmp_path / "a.nhdr", one_bright_voxel(), spacings=[1.0, 1.0, 2.0], encoding="raw")
    assert not (tmp_path / "a.nhdr").read_bytes().endswith(b"\0" * 50)
    assert np.array_equal(read_image(tmp_path / "a.nhdr").array[0, ::-1, ::-1], one_bright_voxel())


def test_axes_that_are_none_of_space_may_be_of_length_one(tmp_path: Path):
    directions = np.vstack([np.full(3, np.nan), DIRECTIONS])
    header = {"space": LPS, "space directions": directions, "kinds": ["list", "domain", "domain", "domain"]}
    mask = read_mask(save(tmp_path / "a.seg.nrrd", one_bright_voxel()[None].astype(np.uint8) // 4, **header))
    assert mask.array.shape == (1, 5, 6, 7)
    two = np.stack([one_bright_voxel()] * 2)
    with pytest.raises(InputError, match="holds 2 frames"):
        read_image(save(tmp_path / "b.nrrd", two, **header))
    colors = np.zeros((3, 5, 6, 7), np.uint8)
    with pytest.raises(InputError, match="RGB"):
        read_image(save(tmp_path / "c.nrrd", colors, **{**header, "kinds": ["RGB-color", *["domain"] * 3]}))


def test_a_slice_is_a_slice(tmp_path: Path):
    array = np.arange(20, dtype=np.int16).reshape(4, 5)
    volume = read_image(save(tmp_path / "a.nrrd", array, spacings=[0.5, 0.7]))
    assert np.array_equal(volume.array[0], array[::-1, ::-1])
    np.testing.assert_allclose(volume.grid.spacing_mm, (0.5, 0.7))


def test_what_is_no_patients_volume_is_refused_by_name(tmp_path: Path):
    header = {"space": "scanner-xyz", "space directions": DIRECTIONS}
    with pytest.raises(InputError, match=r"a\.nrrd: its space 'scanner-xyz'.*left-posterior-superior"):
        read_image(save(tmp_path / "a.nrrd", one_bright_voxel(), **header))
    flat = {"space": LPS, "space directions": np.diag([1.0, 1.0, 0.0])}
    with pytest.raises(InputError, match="space directions is not an invertible"):
        read_image(save(tmp_path / "b.nrrd", one_bright_voxel(), **flat))
    noise = np.random.default_rng(0).integers(0, 900, (20, 20, 20)).astype(np.int16)
    whole = save(tmp_path / "c.nrrd", noise).read_bytes()
    for content in (whole[:3000], whole[:40], b"", b"no image at all" * 99):
        (tmp_path / "d.nrrd").write_bytes(content)
        with pytest.raises(InputError, match=r"d\.nrrd is truncated or damaged"):
            read_image(tmp_path / "d.nrrd")


def test_the_oblique_head_stands_where_its_header_says(real_data: Path):
    path = real_data / "odd_files" / "FLAIR.nrrd"
    volume, (array, header) = read_image(path), nrrd.read(str(path))
    index = np.unravel_index(array.argmax(), array.shape)
    expected = (index @ header["space directions"] + header["space origin"]) * (-1, -1, 1)
    np.testing.assert_allclose(landmark_mm(volume), expected, atol=1e-9)
    assert volume.grid.axis_codes == "RAS"
