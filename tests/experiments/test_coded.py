"""What a coarser grid keeps of a slice."""

from pathlib import Path

import numpy as np

from cardiosynth.data.dataset import read_dataset, write_dataset
from cardiosynth.experiments.coded import write_bicubic

from .slices import real_slices


def test_a_coarser_grid_keeps_gray_and_loses_stripes_of_a_pixel(tmp_path: Path):
    real_slices(tmp_path / "real", mr=True)
    given = read_dataset(tmp_path / "real")[0]
    gray = np.full_like(given.required_image(), 300)
    stripes = gray + np.where(np.arange(gray.shape[-1]) % 2, 100, -100).astype(gray.dtype)
    cases = [given.with_(case_id=name, image=image) for name, image in (("gray", gray), ("stripes", stripes))]
    made = write_bicubic(write_dataset(cases, tmp_path / "given"), 4, tmp_path / "made")
    np.testing.assert_allclose(made.case("gray").required_image(), 300, rtol=1e-5)
    inner = made.case("stripes").required_image()[:, 8:-8, 8:-8]
    np.testing.assert_allclose(inner, 300, atol=2)
    assert made.case("stripes").provenance["reference"] == "stripes"
    assert made.case("stripes").origin == "synthetic"
