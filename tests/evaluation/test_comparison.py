from pathlib import Path

from cardiosynth.evaluation.comparison import patient
from tests.experiments.slices import real_slices, synthetic_slices


def test_images_for_the_masks_of_a_patient_are_of_that_patient(tmp_path: Path):
    real, made = real_slices(tmp_path / "real"), synthetic_slices(tmp_path / "made", "p3")
    assert {patient(real, name) for name in real.case_ids} == {"p0", "p1", "p2", "p3", "p4"}
    assert {patient(made, name) for name in made.case_ids} == {"p3"}
