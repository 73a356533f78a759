import pickle
from functools import partial
from operator import length_hint
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import label_table
from cardiosynth.data.formats.nifti import write_nifti
from cardiosynth.data.stream import CaseStream, Quirks, read_pair

TABLE = label_table({"heart": 1})


def test_a_stream_goes_on_after_a_broken_case_and_knows_what_is_left():
    def broken() -> Case:
        raise InputError("the second is broken")

    def whole() -> Case:
        return Case(case_id="a", image=np.zeros((1, 2, 2, 2), np.int16), affine=np.eye(4))

    stream = CaseStream({"a": whole, "b": broken, "c": whole})
    assert length_hint(stream) == 3
    assert next(stream).case_id == "a"
    with pytest.raises(InputError, match="second"):
        next(stream)
    assert [case.case_id for case in stream] == ["a"]
    assert length_hint(stream) == 0
    assert stream.case_ids == ("a", "b", "c")


def test_a_reader_can_be_handed_to_another_process(tmp_path: Path):
    write_nifti(tmp_path / "a.nii.gz", np.full((1, 4, 4, 4), 7, np.int16), np.eye(4))
    stream = CaseStream({"a": partial(read_pair, "a", tmp_path / "a.nii.gz", None, TABLE, "hu", {})})
    assert pickle.loads(pickle.dumps(stream.reader("a")))().image.max() == 7
    assert length_hint(stream) == 1


def test_mr_that_is_taken_for_ct_is_refused_with_the_mend(tmp_path: Path):
    path = tmp_path / "a.nii.gz"
    write_nifti(path, np.arange(0, 4096, dtype=np.int16).reshape(1, 16, 16, 16), np.eye(4))
    with pytest.raises(InputError, match=r"a\.nii\.gz: values from 0 to 4095 cannot be HU.*unit mr"):
        read_pair("a", path, None, TABLE, "hu", {})
    assert read_pair("a", path, None, TABLE, "mr", {}).intensity_unit == "mr"


def test_a_code_without_a_name_is_refused_naming_the_file(tmp_path: Path):
    path = tmp_path / "a.nii.gz"
    write_nifti(path, np.full((1, 4, 4, 4), 7, np.uint8), np.eye(4))
    with pytest.raises(InputError, match=r"a\.nii\.gz holds the code 7"):
        read_pair("a", None, path, TABLE, "hu", {})


def test_how_the_file_was_stored_is_recorded(tmp_path: Path):
    write_nifti(tmp_path / "a.nii.gz", np.zeros((1, 4, 4, 4), np.int16), np.diag([-1.0, -1, 1, 1]))
    case = read_pair("a", tmp_path / "a.nii.gz", None, TABLE, "hu", {"licence": "CC0"})
    assert case.provenance["stored_as"]["axis_codes"] == "LPS"
    assert case.provenance["licence"] == "CC0"


def unspaced(path: Path, codes: str) -> Path:
    """Write a landmark in a volume whose axes point as ``codes`` say and whose voxels are of 1 x 1 x 1 mm."""
    array = np.zeros((4, 5, 6), np.int16)
    array[1, 2, 3] = 900
    affine = np.diag([0.0, 0, 0, 1])
    for axis, (along, direction) in enumerate(nib.orientations.axcodes2ornt(codes)):
        affine[int(along), axis] = direction
    write_nifti(path, array[None], affine)
    return path


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
def test_a_given_spacing_belongs_to_the_axes_as_stored(tmp_path: Path, codes: str):
    path = unspaced(tmp_path / "a.nii.gz", codes)
    quirks = Quirks(placeholder_spacing=True, spacing_mm=(0.3, 0.4, 2.0))
    case = read_pair("a", path, None, TABLE, "hu", {}, quirks)
    assert case.provenance["stored_as"]["axis_codes"] == codes
    order = nib.orientations.axcodes2ornt(codes)[:, 0].astype(int)
    expected = np.empty(3)
    expected[order] = 0.3, 0.4, 2.0
    np.testing.assert_allclose(case.spacing_mm, expected)
    assert case.provenance["mended"] == ["voxels of 0.3 x 0.4 x 2 mm, as given"]


def test_a_given_spacing_changes_no_file_that_has_its_own(tmp_path: Path):
    write_nifti(tmp_path / "a.nii.gz", np.zeros((1, 4, 4, 4), np.int16), np.diag([0.5, 0.5, 1, 1]))
    quirks = Quirks(placeholder_spacing=True, spacing_mm=(0.3, 0.4, 2.0))
    case = read_pair("a", tmp_path / "a.nii.gz", None, TABLE, "hu", {}, quirks)
    assert case.spacing_mm == (0.5, 0.5, 1)


def test_a_placeholder_is_unknown_and_a_wrong_number_of_sizes_refused(tmp_path: Path):
    path = unspaced(tmp_path / "a.nii.gz", "RAS")
    assert not read_pair("a", path, None, TABLE, "hu", {}, Quirks(placeholder_spacing=True)).spacing_known
    assert read_pair("a", path, None, TABLE, "hu", {}).spacing_known
    with pytest.raises(InputError, match="2 voxel sizes are given for a case of"):
        read_pair("a", path, None, TABLE, "hu", {}, Quirks(placeholder_spacing=True, spacing_mm=(0.3, 0.4)))
