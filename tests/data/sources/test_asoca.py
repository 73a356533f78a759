from pathlib import Path

from cardiosynth.data.sources.asoca import asoca

from .written import image, mask


def test_groups_are_known_and_other_files_are_not_read(tmp_path: Path):
    for group in ("Normal", "Diseased"):
        image(tmp_path / group / "CTCA" / f"{group}_1.nrrd")
        mask(tmp_path / group / "Annotations" / f"{group}_1.nrrd", 1)
    mask(tmp_path / "Normal" / "Other" / "Normal_9.nrrd", 1)
    cases = {case.case_id: case.provenance["group"] for case in asoca(tmp_path)}
    assert cases == {"Diseased_1": "diseased", "Normal_1": "normal"}


def test_one_group_is_enough(tmp_path: Path):
    image(tmp_path / "Normal" / "CTCA" / "Normal_1.nrrd")
    mask(tmp_path / "Normal" / "Annotations" / "Normal_1.nrrd", 1)
    assert asoca(tmp_path / "Normal").case_ids == ("Normal_1",)
