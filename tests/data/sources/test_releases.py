"""What holds for every published data set, on small files in exactly its layout."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.errors import InputError

from .written import LAYOUTS, SHAPE, Layout, mask

every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))


@every_layout
def test_cases_are_read_with_all_that_is_known_of_them(tmp_path: Path, layout: Layout):
    cases = list(layout.source(layout.write(tmp_path)))
    assert len({case.case_id for case in cases}) == len(cases) == 2
    for case in cases:
        assert case.image is not None
        assert case.mask is not None
        assert np.count_nonzero(case.mask) == 1
        assert {"source", "licence", "patient", "acquisition", "files"} <= case.provenance.keys()
        assert "doi:" in case.provenance["source"]
        assert {(tmp_path / file).is_file() for file in case.provenance["files"].values()} == {True}
        assert (case.intensity_unit == "hu") == (case.image.min() == -1000)


@every_layout
def test_listing_reads_no_file_and_a_reader_can_go_elsewhere(tmp_path: Path, layout: Layout):
    for number in (1, 2):
        for path in layout.pair(tmp_path, number):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    stream = layout.source(tmp_path)
    assert len(stream.case_ids) == 2
    layout.write(tmp_path)
    case = pickle.loads(pickle.dumps(stream.reader(stream.case_ids[1])))()
    assert case.case_id == stream.case_ids[1]


@every_layout
def test_a_missing_mask_is_named_and_the_next_case_read(tmp_path: Path, layout: Layout):
    layout.write(tmp_path)
    path = layout.pair(tmp_path, 1)[1]
    path.unlink()
    stream = layout.source(tmp_path)
    with pytest.raises(InputError) as caught:
        next(stream)
    assert str(caught.value).startswith(f"{path} does not exist; add the mask or take ")
    assert next(stream).mask is not None


@every_layout
def test_a_mask_on_another_grid_is_named(tmp_path: Path, layout: Layout):
    layout.write(tmp_path)
    image_path, mask_path = layout.pair(tmp_path, 1)
    mask(mask_path, layout.code, affine=np.diag([-0.5, -0.5, 2.0, 1.0]))
    with pytest.raises(InputError, match="different affines; resample one onto the grid") as caught:
        next(layout.source(tmp_path))
    assert str(image_path) in str(caught.value)
    assert str(mask_path) in str(caught.value)


@every_layout
def test_an_unexpected_code_is_named(tmp_path: Path, layout: Layout):
    layout.write(tmp_path)
    path = mask(layout.pair(tmp_path, 1)[1], layout.unexpected)
    with pytest.raises(InputError, match=f"holds the code {layout.unexpected}") as caught:
        next(layout.source(tmp_path))
    assert str(caught.value).startswith(str(path))


@every_layout
def test_a_data_set_that_lies_there_twice_is_refused(tmp_path: Path, layout: Layout):
    for copy in ("one", "two"):
        layout.write(tmp_path / copy)
    with pytest.raises(InputError, match=r"would both be the case '.*'; (take|rename) one of them"):
        layout.source(tmp_path)


@every_layout
def test_another_folder_is_refused_with_the_one_to_give(tmp_path: Path, layout: Layout):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"holds no .*; give the folder that holds") as caught:
        layout.source(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))
    with pytest.raises(InputError, match="nowhere is not a folder; give the folder that holds"):
        layout.source(tmp_path / "nowhere")


@every_layout
def test_the_image_keeps_its_voxels_and_its_place(tmp_path: Path, layout: Layout):
    case = next(layout.source(layout.write(tmp_path)))
    assert case.grid.shape == SHAPE
    np.testing.assert_allclose(case.grid.spacing_mm, (0.5, 0.5, 1))
    assert case.provenance["stored_as"]["axis_codes"] == "LPS"
