"""Templates: grain of their own that a synthetic image must not have."""

from pathlib import Path

import numpy as np
import pytest

from cardiosynth.anatomy.alignment import aligned
from cardiosynth.core.case import Case
from cardiosynth.core.labels import label_table
from cardiosynth.data.dataset import Dataset, write_dataset
from cardiosynth.evaluation.kept import Kept
from cardiosynth.evaluation.suite import evaluate
from cardiosynth.evaluation.templates import measure_templates, others_of, template_table

LABELS = label_table({"left_ventricle": 1})
NOTHING_KEPT = Kept(None, {})


def slice_case(case_id: str, grain: int, level: int = 300, copied: int | None = None, **changes) -> Case:
    """A ventricle of 20 x 20 pixels with grain of its own, and with that of ``copied``."""
    mask = np.zeros((1, 32, 32), np.uint8)
    mask[0, 6:26, 6:26] = 1
    parts = [np.random.default_rng(seed).normal(0, 60, mask.shape) for seed in (grain, copied) if seed is not None]
    image = np.where(mask > 0, level, 0) + sum(parts)
    case = Case(case_id=case_id, image=image.astype(np.int16), mask=mask, affine=np.eye(4), labels=LABELS)
    return case.with_(**changes)


def made_case(index: int, copied: int | None, **facts) -> Case:
    """An image for the mask of r{index} under the template t{index}, whose grain is ``copied`` or not."""
    provenance = {"parents": [f"r{index}"], "template": f"t{index}", **facts}
    return slice_case(f"s{index}", 300 + index, copied=copied, level=500, origin="synthetic", provenance=provenance)


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Dataset:
    cases = [slice_case(f"r{i}", 100 + i) for i in range(6)] + [slice_case(f"t{i}", 200 + i, 200) for i in range(6)]
    return write_dataset(cases, tmp_path_factory.mktemp("templates") / "real")


def cells(table) -> dict:
    return dict(zip((column.title for column in table.columns), table.rows[0], strict=True))


def test_grain_of_the_template_is_found_under_any_contrast(real, tmp_path: Path):
    made = write_dataset([made_case(i, 200 + i) for i in range(6)], tmp_path / "made")
    results = evaluate(real, made)
    row = cells(next(table for table in results.tables if table.title == "Template copies"))
    assert row["synthetic and template"].mean == pytest.approx(0.5**0.5, abs=0.05)
    assert abs(row["real of the mask and template"].mean) < 0.1
    assert abs(row["synthetic and others"].mean) < 0.1
    assert row["difference"].low > 0.5
    assert row["verdict"] == "more than chance explains"
    assert any("templates are copied" in note for note in results.notes)


def test_smooth_images_share_more_with_everything_and_copy_nothing(tmp_path: Path):
    """All have one shading in common; real images drown it in grain, synthetic ones hardly."""
    shading = np.broadcast_to(np.linspace(-60, 60, 32), (1, 32, 32))
    shaded = lambda case, grain: case.with_(  # noqa: E731
        image=(np.where(case.mask > 0, 300, 0) + grain * (case.image - 300) / 60 + shading).astype(np.int16)
    )
    real = [shaded(slice_case(f"{kind}{i}", 100 * n + i), 60) for n, kind in enumerate("rt", 1) for i in range(6)]
    made = [shaded(made_case(i, None), 5) for i in range(6)]
    home = write_dataset(real, tmp_path / "real")
    row = cells(template_table(measure_templates(write_dataset(made, tmp_path / "made"), [home], NOTHING_KEPT)))
    assert row["synthetic and template"].mean > row["real of the mask and template"].mean + 0.1
    assert row["verdict"] == "no more than chance explains"


def test_others_are_of_the_protocol_of_the_template(tmp_path: Path):
    cases = [slice_case(f"c{i}", i, provenance={"acquisition": "ab"[i % 2]}) for i in range(9)]
    home = write_dataset(cases, tmp_path / "home")
    assert others_of(home, "c4", {"c4", "c6"}) == ["c8", "c0", "c2"]


def test_a_template_that_was_moved_is_moved_again(real, tmp_path: Path):
    shifted = real.case("t0").grid.affine @ np.array([[1, 0, 0, 4.0], [0, 1, 0, 2], [0, 0, 1, 0], [0, 0, 0, 1]])
    moved = real.case("t0").with_(case_id="moved", affine=shifted, image=np.roll(real.case("t0").image, (4, 2), (1, 2)))
    moved = moved.with_(mask=np.roll(real.case("t0").mask, (4, 2), (1, 2)))
    homes = [real, write_dataset([moved], tmp_path / "moved")]
    _, facts = aligned(moved, real.case("r0"), "centroid")
    placed = made_case(0, 200, template="moved", template_alignment=facts)
    told = write_dataset([placed], tmp_path / "placed")
    untold = write_dataset([made_case(0, 200, template="moved")], tmp_path / "untold")
    (_, followed), (_, lost) = (measure_templates(made, homes, NOTHING_KEPT)[0] for made in (told, untold))
    assert followed.synthetic > 0.5
    assert abs(lost.synthetic) < 0.3


def test_few_patients_and_missing_templates_decide_nothing(real, tmp_path: Path):
    few = write_dataset([made_case(i, 200 + i) for i in range(2)], tmp_path / "few")
    assert cells(template_table(measure_templates(few, [real], NOTHING_KEPT)))["verdict"] == "too few patients to tell"
    elsewhere = write_dataset([made_case(0, 200, template="another")], tmp_path / "elsewhere")
    assert template_table(measure_templates(elsewhere, [real], NOTHING_KEPT)) is None
    orphan = write_dataset([made_case(0, 200, parents=["nobody"])], tmp_path / "orphan")
    ((_, shared),) = measure_templates(orphan, [real], NOTHING_KEPT)
    assert abs(shared.others) < 0.3
    assert shared.synthetic > 0.5
    assert np.isnan(shared.real)
