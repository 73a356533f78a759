import sys
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.data.formats.files import read_image, read_mask

h5py = pytest.importorskip("h5py", reason="the hdf5 extra is not installed")


def save(path: Path, **datasets: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return path


def test_image_and_mask_of_one_file_are_read_from_their_datasets(tmp_path: Path):
    rows = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    path = save(tmp_path / "a.h5", image=rows, label=(rows > 0.5).astype(np.uint8), scribble=rows)
    image, mask = read_image(path), read_mask(path)
    assert image.array.shape == mask.array.shape == (1, 4, 3)
    assert np.array_equal(mask.array, image.array > 0.5)
    assert image.array[0, -1, -1] == rows[0, 0]
    assert not image.spacing_known


def test_slices_stand_first(tmp_path: Path):
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    volume = read_image(save(tmp_path / "a.hdf5", image=values))
    assert volume.array.shape == (1, 4, 3, 2)
    assert np.array_equal(volume.array[0, ::-1, ::-1, 1].T, values[1])


def test_what_is_missing_or_broken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = save(tmp_path / "a.h5", volume=np.zeros((3, 4)))
    with pytest.raises(InputError, match=r"a\.h5 holds volume and none of image, .*rename the image's dataset"):
        read_image(path)
    (tmp_path / "b.h5").write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"b\.h5 is truncated, damaged or no HDF5"):
        read_image(tmp_path / "b.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"needs h5py; install it with: pip install 'cardiosynth\[hdf5\]'"):
        read_image(path)
