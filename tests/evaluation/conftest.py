"""Two hearts small enough to count."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.data.dataset import Dataset, write_dataset

SHAPE = (16, 16, 16)


def heart_case(case_id: str, shift: int = 0, **changes) -> Case:
    """A ventricle of 6^3 voxels (300 HU) in fat (-100 HU) beside a coronary of 8 voxels (400 HU) and a spine."""
    mask = np.zeros((1, *SHAPE), np.uint8)
    mask[0, 4 + shift : 10 + shift, 4:10, 4:10] = CARDIAC_CT.named("left_ventricle").code
    mask[0, 2 + shift, 2, 3:11] = CARDIAC_CT.named("coronary_artery").code
    mask[0, 6:9, 0, :] = CARDIAC_CT.named("spine").code
    hu = np.full(256, -100, np.int16)
    hu[[0, 1, 4, 11]] = -100, 400, 300, 700
    case = Case(case_id=case_id, image=hu[mask], mask=mask, affine=np.diag([2.0, 2.0, 2.0, 1.0]))
    return case.with_(**changes)


def synthetic_case(case_id: str, parent: str, offset: int = 0, **changes) -> Case:
    """The same heart, brighter by ``offset`` HU, with confidence 0.8 inside the targets and 0.2 elsewhere."""
    case = heart_case(case_id)
    mask = case.required_mask()
    confidence = np.where(np.isin(mask, case.labels.target_codes), 0.8, 0.2).astype(np.float32)
    return case.with_(
        image=(case.required_image() + np.int16(offset)).astype(np.int16),
        mask=case.labels.only_targets(mask), confidence=confidence,
        origin="synthetic", provenance={"parents": [parent]}, **changes,
    )  # fmt: skip


@pytest.fixture
def heart() -> Callable[..., Case]:
    return heart_case


@pytest.fixture
def synthetic() -> Callable[..., Case]:
    return synthetic_case


@pytest.fixture
def real(tmp_path: Path) -> Dataset:
    return write_dataset([heart_case("r0"), heart_case("r1", shift=3)], tmp_path / "real")
