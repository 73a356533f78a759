from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.intensity import NORMALIZED_MR
from cardiosynth.data.preparation import suited_scale
from cardiosynth.evaluation.comparison import patient
from cardiosynth.experiments.phantom_slices import STRUCTURES, write_phantom_slices


@pytest.mark.slow
def test_slices_are_those_of_normalized_mr_with_the_structures_of_acdc(tmp_path: Path):
    slices = write_phantom_slices(tmp_path, 10, 24)
    assert {label.name for label in slices.labels} == set(STRUCTURES)
    assert suited_scale(slices) == NORMALIZED_MR
    assert {row["origin"] for row in slices.rows.values()} == {"phantom"}
    assert all(slices.part(name) for name in ("train", "validation", "test"))
    assert len({patient(slices, name) for name in slices.case_ids}) == 10
    values = np.stack([case.required_image() for case in slices])
    assert values.min() < 100
    assert values.max() > 900
