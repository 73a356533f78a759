import sys
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.volume import Grid
from cardiosynth.data.formats.dicom import Frame, read_frames
from cardiosynth.data.formats.stack import num_places, read_stack, separated
from cardiosynth.data.formats.volume import Volume
from tests.data.series import AXIAL, SIZES_MM, numbers, pydicom, slice_dataset, write_series

GDCM_NAMES = {
    "JPEG2000Lossless": "JPEG2000Lossless",
    "JPEGLosslessSV1": "JPEGLosslessProcess14_1",
    "JPEGLSLossless": "JPEGLSLossless",
    "RLELossless": "RLELossless",
}


def frames_in(folder: Path) -> list[Frame]:
    return [frame for path in sorted(folder.rglob("*")) if path.is_file() for frame in read_frames(path)[0]]


def read(folder: Path) -> Volume:
    return read_stack(frames_in(folder), "series 7")


def value_at_mm(volume: Volume, position_mm: np.ndarray) -> float:
    """Return the value of the voxel whose center lies at a place in RAS+ mm."""
    index = np.linalg.inv(volume.affine) @ (*position_mm, 1)
    nearest = np.rint(index[:3]).astype(int)
    assert np.abs(index[:3] - nearest).max() < 1e-3
    return volume.array[0][tuple(nearest)]


def turned(degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the directions of rows and columns of a slice turned about two axes."""
    a, b = np.radians(degrees), np.radians(degrees / 3)
    first = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    second = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    both = second @ first
    return both[:, 0], both[:, 1]


@pytest.mark.parametrize("degrees", [0.0, 20.0, -35.0])
@pytest.mark.parametrize("upwards", [1.0, -1.0])
def test_every_voxel_lies_where_the_direction_cosines_put_it(tmp_path: Path, degrees: float, upwards: float):
    along_row, along_column = turned(degrees)
    step = 2.0 * upwards * np.cross(along_row, along_column)
    values, origin = numbers(6), np.array([-10.0, -20.0, 30.0])
    orientation = [*along_row, *along_column]
    write_series(tmp_path, values, step=tuple(step), origin=tuple(origin), ImageOrientationPatient=orientation)
    volume = read(tmp_path)
    assert volume.grid.axis_codes == "RAS"
    for number, row, column in [(0, 0, 0), (5, 4, 3), (2, 1, 3), (4, 3, 0)]:
        # PS3.3 C.7.6.2.1.1: the column index walks along a row, in steps of the distance between columns.
        place = origin + number * step + column * SIZES_MM[1] * along_row + row * SIZES_MM[0] * along_column
        assert value_at_mm(volume, place * (-1, -1, 1)) == values[number, row, column]


def test_slope_and_intercept_are_those_of_each_slice(tmp_path: Path):
    values = numbers(4)
    write_series(tmp_path, values, of_slice=lambda i: {"RescaleSlope": i + 1, "RescaleIntercept": -100 * i})
    volume = read(tmp_path)
    assert volume.array.dtype == np.int16
    for i in range(4):
        expected = values[i].astype(int) * (i + 1) - 100 * i
        assert np.array_equal(np.sort(volume.array[0, :, :, i].ravel()), np.sort(expected.ravel()))


def test_fractions_stay_and_whole_numbers_become_int16(tmp_path: Path):
    write_series(tmp_path, numbers(3), RescaleSlope=0.5)
    volume = read(tmp_path)
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(np.sort(volume.array.ravel()), numbers(3).ravel() * 0.5)


def test_values_beyond_int16_and_fractions_in_one_slice_are_kept(tmp_path: Path):
    large = np.arange(60, dtype=np.uint16).reshape(3, 5, 4)
    large[1, 2, 2] = 60000
    write_series(tmp_path / "a", large)
    assert np.array_equal(np.sort(read(tmp_path / "a").array.ravel()), np.sort(large.ravel()))
    write_series(tmp_path / "b", numbers(3), of_slice=lambda i: {"RescaleSlope": 1 + i / 2})
    volume = read(tmp_path / "b")
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(np.sort(volume.array[..., 1].ravel()), numbers(3)[1].ravel() * 1.5)


def test_unsigned_voxels_and_padding_beyond_air(tmp_path: Path):
    stored = (numbers(3).astype(int) + 1024).astype(np.uint16)
    stored[:, 0, 0] = 63536
    write_series(tmp_path / "a", stored, RescaleIntercept=-1024, PixelPaddingValue=63536)
    array = read(tmp_path / "a").array
    assert (array == -1024).sum() == 3
    assert array.max() == numbers(3).max()


def test_signed_padding_becomes_air_and_padding_within_tissue_is_not_believed(tmp_path: Path):
    values = numbers(3)
    values[:, 0, 0], values[:, 1, 1] = -2000, 0
    write_series(tmp_path / "a", values, PixelPaddingValue=-2000)
    assert read(tmp_path / "a").array.min() == -1024
    for path in (tmp_path / "a").iterdir():  # where nothing but the dictionary says whether the value is signed
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        dataset.save_as(path, implicit_vr=True)
    assert read(tmp_path / "a").array.min() == -1024
    write_series(tmp_path / "b", values, PixelPaddingValue=0)
    array = read(tmp_path / "b").array
    assert (array == 0).sum() == 3
    assert array.min() == -2000


def test_bits_beyond_those_stored_are_no_values(tmp_path: Path):
    stored = np.full((3, 5, 4), 1000, np.uint16)
    stored[:, 2, 2] |= 0x8000  # an overlay in the highest bit
    write_series(tmp_path, stored, BitsStored=12, HighBit=11, RescaleIntercept=-1024)
    assert set(np.unique(read(tmp_path).array)) == {-24}


def test_a_tilted_gantry_keeps_its_sheared_grid(tmp_path: Path):
    tilt = np.radians(15)
    write_series(tmp_path, numbers(5), step=(0.0, 2 * np.tan(tilt), 2.0))
    volume = read(tmp_path)
    assert volume.facts["sheared"]
    assert volume.facts["tilt_degrees"] == pytest.approx(15, abs=0.01)
    np.testing.assert_allclose(volume.affine[:3, 2], (0, -2 * np.tan(tilt), 2), atol=1e-5)


def test_a_single_slice_is_a_slice_of_its_thickness(tmp_path: Path):
    write_series(tmp_path, numbers(1), SliceThickness=3.0)
    volume = read(tmp_path)
    assert volume.array.shape == (1, 4, 5)
    np.testing.assert_allclose(volume.affine[:3, 2], (0, 0, 3))


@pytest.mark.parametrize("syntax", ["JPEG2000Lossless", "JPEGLosslessSV1", "JPEGLSLossless", "RLELossless"])
def test_compressed_files_give_the_same_voxels(tmp_path: Path, syntax: str):
    gdcm = pytest.importorskip("gdcm", reason="needs the extra dicom")
    write_series(tmp_path, numbers(2, 40, 36))
    plain = read(tmp_path).array
    for path in tmp_path.iterdir():
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, GDCM_NAMES[syntax])))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == getattr(pydicom.uid, syntax)
    assert np.array_equal(read(tmp_path).array, plain)


def test_an_enhanced_file_is_read_frame_by_frame(tmp_path: Path):
    values = numbers(4)
    pydicom.dcmwrite(tmp_path / "enhanced", enhanced(values), enforce_file_format=True)
    write_series(tmp_path / "plain", values, RescaleIntercept=-24)
    one, other = read(tmp_path / "plain"), read_stack(read_frames(tmp_path / "enhanced")[0], "enhanced")
    assert np.array_equal(one.array, other.array)
    np.testing.assert_allclose(one.affine, other.affine)


def enhanced(values: np.ndarray):
    """Return an enhanced CT file whose frames lie as those of `write_series`, in reversed order."""
    dataset = slice_dataset(values[0], np.zeros(3), 0, "1.9")
    dataset.SOPClassUID = pydicom.uid.EnhancedCTImageStorage
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        del dataset[keyword]
    shared, measures, plane, rescale = (pydicom.Dataset() for _ in range(4))
    measures.PixelSpacing, measures.SliceThickness = list(SIZES_MM), 2
    plane.ImageOrientationPatient = list(AXIAL)
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, -24, "HU"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    shared.PixelValueTransformationSequence = [rescale]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for number in reversed(range(len(values))):
        group, place = pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = [-10.0, -20.0, 30.0 + 2 * number]
        group.PlanePositionSequence = [place]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.NumberOfFrames = len(values)
    dataset.PixelData = np.ascontiguousarray(values[::-1]).tobytes()
    return dataset


def test_the_enhanced_file_of_a_scanner(real_data: Path):
    frames, reason = read_frames(real_data / "odd_files" / "enh.dcm")
    assert (len(frames), reason) == (6, "")
    volume = read_stack(frames, "enhanced")
    assert volume.array.shape == (1, 64, 64, 6)
    np.testing.assert_allclose(volume.grid.spacing_mm, (3.375, 3.375, 2.4), atol=1e-4)
    # The first frame's first voxel lies at (-109.79, -58.4773, -5.40356) in DICOM's axes, left and posterior.
    first = pydicom.dcmread(real_data / "odd_files" / "enh.dcm").pixel_array[0, 0, 0]
    assert value_at_mm(volume, np.array([109.79, 58.4773, -5.40356])) == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: {"PatientID": "4712"} if i == 3 else {}, "mixes patients: 1 of 6"),
        (lambda i: {"StudyInstanceUID": "1.2.4"} if i > 3 else {}, "mixes studies: 2 of 6"),
        (lambda i: {"PixelSpacing": [0.6, 0.75]} if i == 3 else {}, "mixes pixel spacings"),
        (lambda i: {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]} if i == 3 else {}, "mixes orientations"),
        (lambda i: {"Rows": 4} if i == 3 else {}, "mixes matrix sizes"),
        (lambda i: {"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME1"),
        (lambda i: {"RescaleType": "Z_EFF"}, "holds 'Z_EFF', not HU"),
        (lambda i: {"ImagePositionPatient": [-10, -20, 34]} if i == 1 else {}, "1 slices at the place of another"),
        (lambda i: {"ImagePositionPatient": [-10, -20, 30 + 2 * (i + 3 * (i > 3))]}, "gap, 3 slices are missing"),
        (lambda i: {"ImagePositionPatient": [-10, -20, 30 + 2 * i + 0.4 * (i == 3)]}, "unevenly spaced"),
        (lambda i: {"ImagePositionPatient": [-10 + (i == 3), -20, 30 + 2 * i]}, "unevenly spaced"),
        (lambda i: {"PixelSpacing": [0, 0.75]}, "not usable"),
    ],
)  # fmt: skip
def test_frames_that_make_no_volume_are_refused_by_name(tmp_path: Path, change, message: str):
    write_series(tmp_path, numbers(6), of_slice=change)
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_a_position_rounded_by_the_scanner_is_no_defect(tmp_path: Path):
    places = [30 + round(0.625 * i, 1) for i in range(6)]
    write_series(tmp_path, numbers(6), of_slice=lambda i: {"ImagePositionPatient": [-10, -20, places[i]]})
    assert isinstance(read(tmp_path).grid, Grid)


def test_stacks_at_the_same_places_are_told_apart_by_their_moment(tmp_path: Path):
    phases = {"a": 75, "b": 40}
    for name, phase in phases.items():
        write_series(tmp_path / name, numbers(4), TemporalPositionIdentifier=phase)
    frames = frames_in(tmp_path)
    assert num_places(frames) == 4
    (first, early), (second, late) = separated(frames)
    assert (first, second) == ("temporal position 40", "temporal position 75")
    assert {f.path.parent.name for f in early} == {"b"}
    assert {f.path.parent.name for f in late} == {"a"}


def test_trigger_times_that_differ_from_place_to_place_are_put_in_order(tmp_path: Path):
    for name, start in {"a": 300.0, "b": 20.0, "c": 150.0}.items():
        times = {"of_slice": lambda i, start=start: {"TriggerTime": start + 0.3 * i}}
        write_series(tmp_path / name, numbers(4), uid="1.2.3.4", **times)
    stacks = separated(frames_in(tmp_path))
    assert [words for words, _ in stacks] == [f"trigger time rank {number}" for number in (1, 2, 3)]
    assert [{f.path.parent.name for f in stack} for _, stack in stacks] == [{"b"}, {"c"}, {"a"}]
    assert all(num_places(stack) == len(stack) == 4 for _, stack in stacks)


def test_phases_that_miss_a_place_are_not_torn_apart(tmp_path: Path):
    for name, phase in {"a": 75.0, "b": 40.0}.items():
        write_series(tmp_path / name, numbers(4), NominalPercentageOfCardiacPhase=phase)
    sorted((tmp_path / "a").iterdir())[1].unlink()
    assert [words for words, _ in separated(frames_in(tmp_path))] == [""]


def test_where_nothing_tells_them_apart_they_stay_one_stack(tmp_path: Path):
    for name in ("a", "b"):
        write_series(tmp_path / name, numbers(4))
    assert [words for words, _ in separated(frames_in(tmp_path))] == [""]


@pytest.mark.parametrize("damage", ["truncated", "unknown compression"])
def test_voxels_that_cannot_be_read_name_the_file(tmp_path: Path, damage: str):
    write_series(tmp_path, numbers(3))
    path = sorted(tmp_path.iterdir())[1]
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        dataset = pydicom.dcmread(path)
        dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.840.10008.1.2.4.100")  # MPEG-2, a film
        dataset.save_as(path)
    with pytest.raises(InputError, match=path.name):
        read(tmp_path)


def test_files_that_hold_no_frame_say_why(tmp_path: Path):
    (tmp_path / "text").write_text("no DICOM")
    report = slice_dataset(numbers(1)[0], np.zeros(3), 0, "1.7", Rows=None, Columns=None, Modality="SR")
    color = slice_dataset(numbers(1)[0], np.zeros(3), 0, "1.7", SamplesPerPixel=3)
    placeless = slice_dataset(numbers(1)[0], np.zeros(3), 0, "1.7", ImagePositionPatient=None)
    for name, dataset in {"report": report, "color": color, "placeless": placeless}.items():
        pydicom.dcmwrite(tmp_path / name, dataset, enforce_file_format=True)
    reasons = {path.name: read_frames(path)[1] for path in tmp_path.iterdir()}
    assert reasons == {
        "text": "no DICOM",
        "report": "no image (SR)",
        "color": "a color picture (CT)",
        "placeless": "an image without a place in space (CT)",
    }


def test_a_missing_package_is_one_sentence_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r"pip install 'cardiosynth\[dicom\]'"):
        read_frames(tmp_path / "a")
