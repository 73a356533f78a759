from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import label_table
from cardiosynth.data.sources.hdf5 import hdf5

h5py = pytest.importorskip("h5py", reason="the hdf5 extra is not installed")
TABLE = label_table({"right_ventricle": 1, "left_ventricular_myocardium": 2, "left_ventricle": 3})


def save(path: Path, label: np.ndarray | None = None, shape: tuple[int, ...] = (5, 6)) -> None:
    with h5py.File(path, "w") as file:
        file["image"] = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
        file["label"] = np.arange(int(np.prod(shape))).reshape(shape) % 4 if label is None else label


def test_slices_and_volumes_of_acdc_are_read_by_patient(tmp_path: Path):
    save(tmp_path / "patient001_frame01_slice_2.h5")
    save(tmp_path / "patient001_frame12.h5", shape=(3, 5, 6))
    piece, volume = hdf5(tmp_path, TABLE, licence="CC BY-NC-SA 4.0")
    assert (piece.case_id, piece.grid.shape) == ("patient001_frame01_slice2", (6, 5))
    assert (volume.case_id, volume.grid.shape) == ("patient001_frame12", (6, 5, 3))
    assert {case.provenance["patient"] for case in (piece, volume)} == {"patient001"}
    assert piece.provenance["acquisition"] == "patient001_frame01"
    assert (piece.intensity_unit, piece.spacing_known) == ("mr", False)
    assert sorted(np.unique(piece.mask)) == [0, 1, 2, 3]


def test_without_a_label_the_image_alone_is_a_case(tmp_path: Path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = np.zeros((5, 6), np.float32)
    assert next(hdf5(tmp_path)).mask is None


def test_bad_folders_are_named_with_the_mend(tmp_path: Path):
    with pytest.raises(InputError, match=r"holds no \.h5 file; give the folder"):
        hdf5(tmp_path)
    save(tmp_path / "a.h5")
    with pytest.raises(InputError, match=r"has no labels\.json: its masks hold the codes 1, 2, 3"):
        hdf5(tmp_path)
    with pytest.raises(InputError, match=r"a\.h5 holds the code 2, 3"):
        next(hdf5(tmp_path, label_table({"heart": 1})))
    save(tmp_path / "a.h5", label=np.zeros((4, 6), np.uint8))
    with pytest.raises(InputError, match=r"a\.h5 and .*a\.h5:mask have shapes"):
        next(hdf5(tmp_path, TABLE))
