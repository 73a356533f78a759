import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.data.formats.files import read_confidence, read_image, read_mask, read_volume
from cardiosynth.data.formats.nifti import write_nifti
from cardiosynth.data.formats.volume import Volume

OBLIQUE = np.array([[0.9, -0.3, 0, 5], [0.3, 0.9, 0, -7], [0, 0, 2.5, 11], [0, 0, 0, 1.0]])


def save(path: Path, array: np.ndarray, affine: np.ndarray | None, **header) -> Path:
    image = nib.nifti1.Nifti1Image(array, affine)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


def landmark_mm(volume: Volume) -> np.ndarray:
    """Patient coordinates of the brightest voxel."""
    index = np.zeros(4)
    index[3] = 1
    index[: volume.array.ndim - 1] = np.unravel_index(volume.array[0].argmax(), volume.array.shape[1:])
    return (volume.affine @ index)[:3]


def nibabel_landmark_mm(path: Path) -> np.ndarray:
    image = nib.load(path)
    values = image.get_fdata()
    return nib.affines.apply_affine(image.affine, np.unravel_index(values.argmax(), values.shape))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SLA", "AIL"])
def test_a_landmark_stays_at_its_place_whatever_the_axis_order(tmp_path: Path, codes: str):
    array = np.zeros((5, 6, 7), np.int16)
    array[1, 4, 2] = 900
    turned = nib.nifti1.Nifti1Image(array, OBLIQUE).as_reoriented(
        nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    )
    nib.save(turned, tmp_path / "a.nii.gz")
    volume = read_image(tmp_path / "a.nii.gz")
    assert volume.facts["axis_codes"] == codes
    assert np.array_equal(volume.array[0], array)
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-5)
    np.testing.assert_allclose(landmark_mm(volume), OBLIQUE[:3] @ (1, 4, 2, 1), atol=1e-4)


@pytest.mark.parametrize(("form", "codes"), [("sform", (1, 0)), ("qform", (0, 1))])
def test_either_orientation_field_alone_is_enough(tmp_path: Path, form: str, codes: tuple[int, int]):
    straight = np.diag([0.5, 0.7, 2, 1])
    straight[:3, 3] = 3, 4, 5
    image = nib.nifti1.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    image.header.set_sform(straight, code=codes[0])
    image.header.set_qform(straight, code=codes[1])
    nib.save(image, tmp_path / "a.nii")
    volume = read_image(tmp_path / "a.nii")
    assert volume.facts["affine_from"] == form
    assert volume.spacing_known
    np.testing.assert_allclose(volume.affine, straight, atol=1e-6)


def test_with_neither_field_the_voxel_size_is_all_that_is_known(tmp_path: Path):
    volume = read_image(
        save(tmp_path / "a.nii", np.zeros((4, 5, 6), np.int16), None, pixdim=[1, 0.5, 0.7, 2, 0, 0, 0, 0])
    )
    assert volume.facts["affine_from"] == "voxel_size"
    assert volume.spacing_known
    np.testing.assert_allclose(volume.grid.spacing_mm, (0.5, 0.7, 2), atol=1e-6)


def test_with_voxel_sizes_of_one_and_neither_field_the_spacing_is_unknown(tmp_path: Path):
    assert not read_image(save(tmp_path / "a.nii", np.zeros((4, 5, 6), np.int16), None)).spacing_known


def test_micrometers_become_millimeters(tmp_path: Path):
    volume = read_image(
        save(tmp_path / "a.nii", np.zeros((4, 5, 6), np.int16), np.diag([350, 350, 500, 1.0]), xyzt_units=3)
    )
    np.testing.assert_allclose(volume.grid.spacing_mm, (0.35, 0.35, 0.5), atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 1, 1)])
def test_trailing_axes_of_length_one_are_dropped_so_that_a_slice_is_a_slice(tmp_path: Path, shape):
    array = np.arange(20, dtype=np.int16).reshape(shape)
    volume = read_image(save(tmp_path / "a.nii", array, np.diag([-2.0, 3, 8, 1])))
    assert np.array_equal(volume.array[0], array.reshape(4, 5)[::-1])
    assert volume.grid.spacing_mm == (2, 3)


def test_slope_and_intercept_are_applied_and_whole_results_are_int16(tmp_path: Path):
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    whole = save(tmp_path / "a.nii", stored, np.eye(4))
    _set_scale(whole, 2.0, -1024.0)
    assert np.array_equal(read_image(whole).array[0], stored * 2 - 1024)
    assert read_image(whole).array.dtype == np.int16
    _set_scale(whole, 0.5, 0.25)
    assert read_image(whole).array.dtype == np.float32
    np.testing.assert_array_equal(read_image(whole).array[0], stored * 0.5 + 0.25)


def _set_scale(path: Path, slope: float, intercept: float) -> None:
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([slope, intercept], "<f4").tobytes()
    path.write_bytes(content)


def test_values_beyond_int16_stay_floating(tmp_path: Path):
    volume = read_image(save(tmp_path / "a.nii", np.full((2, 2, 2), 40000, np.uint16), np.eye(4)))
    assert volume.array.dtype == np.float32
    assert (volume.array == 40000).all()


def test_a_sheared_affine_is_kept_and_told(tmp_path: Path):
    sheared = np.eye(4)
    sheared[1, 2] = 0.3
    volume = read_image(save(tmp_path / "a.nii", np.zeros((4, 5, 6), np.int16), sheared))
    assert volume.facts["sheared"]
    np.testing.assert_allclose(volume.affine, sheared)


def test_nifti_2_is_read_too(tmp_path: Path):
    nib.save(nib.nifti2.Nifti2Image(np.ones((2, 3, 4), np.int16), OBLIQUE), tmp_path / "a.nii")
    np.testing.assert_allclose(read_image(tmp_path / "a.nii").affine, OBLIQUE, atol=1e-6)


def _with_nan() -> np.ndarray:
    array = np.zeros((3, 3, 3), np.float32)
    array[1, 1, 1] = np.nan
    return array


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (np.zeros((3, 3, 3, 5), np.int16), "5 frames"),
        (np.zeros((3, 3, 3), np.complex64), "magnitude"),
        (np.zeros((3, 3, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "gray"),
        (_with_nan(), "1 voxels are not finite"),
    ],
)
def test_what_is_no_gray_volume_is_refused_with_the_mend(tmp_path: Path, array: np.ndarray, part: str):
    path = save(tmp_path / "a.nii.gz", array, np.eye(4))
    with pytest.raises(InputError, match=part) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_missing_truncated_and_foreign_files_are_refused_by_name(tmp_path: Path):
    with pytest.raises(InputError, match=r"nothing\.nii\.gz does not exist"):
        read_image(tmp_path / "nothing.nii.gz")
    rng = np.random.default_rng(0)
    whole = save(tmp_path / "a.nii.gz", rng.integers(0, 900, (20, 20, 20)).astype(np.int16), np.eye(4))
    for content in (whole.read_bytes()[:3000], whole.read_bytes()[:-40], b"", b"no image at all" * 99):
        (tmp_path / "b.nii.gz").write_bytes(content)
        with pytest.raises(InputError, match=r"b\.nii\.gz is truncated or damaged"):
            read_image(tmp_path / "b.nii.gz")
    (tmp_path / "c.nii").write_bytes(gzip.decompress(whole.read_bytes())[:5000])
    with pytest.raises(InputError, match=r"c\.nii is truncated or damaged"):
        read_image(tmp_path / "c.nii")
    (tmp_path / "d.txt").write_text("text")
    with pytest.raises(InputError, match=r"d\.txt is none of \.nii\.gz"):
        read_image(tmp_path / "d.txt")


def test_a_singular_affine_is_refused(tmp_path: Path):
    path = save(tmp_path / "a.nii", np.zeros((3, 3, 3), np.int16), None)
    content = bytearray(path.read_bytes())
    content[254:256] = np.array([1], "<i2").tobytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match="sform is not an invertible"):
        read_image(path)


@pytest.mark.parametrize(
    ("values", "part"),
    [
        (np.array([0.5, 1]), "fractions"),
        (np.array([0.0, np.nan]), "fractions"),
        (np.array([0, 256]), "0 to 256"),
        (np.array([-1, 1]), "-1 to 1"),
    ],
)
def test_masks_must_hold_codes(tmp_path: Path, values: np.ndarray, part: str):
    dtype = np.float32 if values.dtype.kind == "f" else np.int16
    path = save(tmp_path / "a.nii", np.tile(values, (2, 2, 1)).astype(dtype), np.eye(4))
    with pytest.raises(InputError, match=part):
        read_mask(path)


def test_masks_stored_as_floating_point_are_codes_all_the_same(tmp_path: Path):
    codes = np.arange(8).reshape(2, 2, 2)
    volume = read_mask(save(tmp_path / "a.nii", codes.astype(np.float64), np.eye(4)))
    assert volume.array.dtype == np.uint8
    assert np.array_equal(volume.array[0], codes)


@pytest.mark.parametrize("shape", [(1, 4, 5, 6), (1, 4, 5)])
def test_what_is_written_is_read_again(tmp_path: Path, shape):
    array = np.random.default_rng(0).integers(-1024, 3000, shape).astype(np.int16)
    write_nifti(tmp_path / "a.nii.gz", array, OBLIQUE, description="SYNTHETIC by a test")
    volume = read_image(tmp_path / "a.nii.gz")
    assert np.array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-5)
    header = nib.load(tmp_path / "a.nii.gz").header
    assert (header["qform_code"], header["sform_code"]) == (1, 1)
    np.testing.assert_allclose(header.get_qform(), OBLIQUE, atol=1e-4)
    assert volume.facts["description"] == "SYNTHETIC by a test"


def test_a_sheared_affine_goes_to_the_sform_alone(tmp_path: Path):
    sheared = np.eye(4)
    sheared[0, 1] = 0.4
    write_nifti(tmp_path / "a.nii.gz", np.zeros((1, 4, 4, 4), np.int16), sheared)
    header = nib.load(tmp_path / "a.nii.gz").header
    assert (header["qform_code"], header["sform_code"]) == (0, 1)
    np.testing.assert_allclose(read_image(tmp_path / "a.nii.gz").affine, sheared, atol=1e-6)


def test_equal_volumes_are_equal_files(tmp_path: Path):
    array = np.random.default_rng(0).integers(0, 99, (1, 8, 8, 8)).astype(np.int16)
    for name in ("a", "b"):
        write_nifti(tmp_path / f"{name}.nii.gz", array, OBLIQUE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_confidence_keeps_within_half_a_step_and_never_leaves_its_range(tmp_path: Path):
    confidence = np.linspace(0, 1, 1000, dtype=np.float32).reshape(1, 10, 10, 10)
    stored = np.rint(confidence * 255).astype(np.uint8)
    write_nifti(tmp_path / "a.nii.gz", stored, np.eye(4), scale=(1 / 255, 0.0))
    found = read_confidence(tmp_path / "a.nii.gz").array
    assert found.dtype == np.float32
    assert found.max() <= 1
    np.testing.assert_allclose(found, confidence, atol=1 / 509)
    write_nifti(tmp_path / "b.nii.gz", stored, np.eye(4))
    with pytest.raises(InputError, match="scale it"):
        read_confidence(tmp_path / "b.nii.gz")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left"):
        write_nifti(tmp_path / "a.nii.gz", np.zeros((1, 4, 4, 4), np.int16), np.eye(4))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["LAS", "LPI", "PIR", "PLS", "RAS", "ARI"])
def test_axis_variants_of_one_head_are_the_same_head(real_data: Path, name: str):
    folder = real_data / "odd_files"
    turned, upright = read_image(folder / f"{name}.nii.gz"), read_image(folder / "RAS.nii.gz")
    assert turned.facts["axis_codes"] == name
    np.testing.assert_array_equal(turned.array, upright.array)
    np.testing.assert_allclose(turned.affine, upright.affine, atol=1e-3)
    np.testing.assert_allclose(landmark_mm(turned), nibabel_landmark_mm(folder / "RAS.nii.gz"), atol=1e-3)


def test_the_sheared_ct_is_read_in_hounsfield_units_with_its_shear(real_data: Path):
    path = real_data / "odd_files" / "shear.nii.gz"
    volume = read_image(path)
    assert volume.facts["sheared"]
    assert volume.array.min() == -1024
    assert volume.array.max() == pytest.approx(789, abs=0.01)
    np.testing.assert_allclose(volume.array[0], nib.load(path).get_fdata(), atol=1e-3)
    np.testing.assert_allclose(landmark_mm(volume), nibabel_landmark_mm(path), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "part"),
    [("complex", "complex numbers"), ("ct_perfusion", "RGB"), ("mpld_asl", "25 frames"), ("pcasl", "10 frames")],
)
def test_odd_files_that_are_no_gray_volume_are_refused(real_data: Path, name: str, part: str):
    with pytest.raises(InputError, match=part):
        read_image(real_data / "odd_files" / f"{name}.nii.gz")


def test_one_frame_of_the_oblique_series_keeps_its_landmark(real_data: Path, tmp_path: Path):
    series = nib.load(real_data / "odd_files" / "pcasl.nii.gz")
    nib.save(series.slicer[..., 3:4], tmp_path / "frame.nii.gz")
    volume = read_volume(tmp_path / "frame.nii.gz")
    assert volume.array.ndim == 4
    assert not volume.facts["sheared"]
    frame = series.slicer[..., 3]
    expected = nib.affines.apply_affine(frame.affine, np.unravel_index(frame.get_fdata().argmax(), frame.shape))
    np.testing.assert_allclose(landmark_mm(volume), expected, atol=1e-3)
