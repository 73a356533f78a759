"""Datasets and results small enough to look through."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.case import Case, Origin
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.data.dataset import write_dataset
from cardiosynth.evaluation.results import (
    Arm,
    ArmsFigure,
    CaseFigure,
    CasePointer,
    Column,
    GalleryFigure,
    PointGroup,
    PointsFigure,
    ProjectionFigure,
    Results,
    Spread,
    Stage,
    Table,
    Tile,
)

SHAPE = (20, 18, 16)


def make_case(case_id: str, origin: Origin, **changes) -> Case:
    mask = np.zeros((1, *SHAPE), np.uint8)
    mask[0, 5:14, 5:12, 4:12] = CARDIAC_CT.named("left_ventricle").code
    mask[0, 4, 4, 4:10] = CARDIAC_CT.named("coronary_artery").code
    image = np.where(mask > 0, 400, -100).astype(np.int16)
    confidence = np.full((1, *SHAPE), 0.5, np.float32) if origin == "synthetic" else None
    case = Case(case_id=case_id, image=image, mask=mask, affine=np.eye(4), confidence=confidence, origin=origin)
    return case.with_(**changes)


@pytest.fixture
def a_case() -> Callable[..., Case]:
    return make_case


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the datasets that the pointers of ``results`` name."""
    write_dataset([make_case("r0", "real")], tmp_path / "data/real")
    write_dataset([make_case("s0", "synthetic")], tmp_path / "data/synthetic")
    return tmp_path


@pytest.fixture
def results() -> Results:
    real, made = (CasePointer(dataset=f"data/{k}", case_id=c) for k, c in (("real", "r0"), ("synthetic", "s0")))
    columns = (Column(title="structure"), Column(title="kept", unit="%", better="higher", digits=1))
    rows = (("aorta", Spread(mean=-0.01, sd=2.5, n=3)), ("spine", None), ("liver", Spread(mean=50, sd=1, n=2)))
    return Results(
        title="A study",
        summary="What it is.",
        notes=("Look twice.",),
        tables=(
            Table(
                title="Contrast", protocol="Three cases.", columns=columns, rows=rows, bars=("kept",), best=((0, 1),)
            ),
        ),
        figures=(
            CaseFigure(title="first case", caption="Same mask.", synthetic=made, real=real, paired=True),
            ProjectionFigure(title="vessels", structure="coronary_artery", cases=(("real: r0", real), ("made", made))),
            ArmsFigure(
                title="arms", caption="Two arms.", measure="Dice",
                arms=(
                    Arm(name="real only", values={"left_ventricle": (0.5, 0.7), "spine": (None, None)}),
                    Arm(name="synthetic", values={"left_ventricle": (1.0, None)}),
                ),
            ),
            GalleryFigure(title="masks", rows=((Tile(case=made, text="its mask", layer="surface"),),)),
            PointsFigure(title="features", groups=(PointGroup(name="real", points=((0, 0), (1, 1))),)),
        ),
        stages=(Stage(name="train", seconds=125.0, command="cardiosynth train 'a b'"), Stage(name="look")),
        environment={"Python": "3.11"},
    )  # fmt: skip
