import numpy as np
import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.config import with_overrides
from cardiosynth.data.check.examination import check_dataset
from cardiosynth.data.check.finding import Finding
from cardiosynth.data.dataset import write_dataset
from cardiosynth.recipes import fqcdm
from cardiosynth.recipes.examination import examine_dataset
from cardiosynth.recipes.fcas import DEMO, TINY
from cardiosynth.recipes.suitability import findings_of, fit_findings, needs_of

STEP = {"peak_gb": 3.0, "hours": 2.0}
FACTS = {
    "rates": {"memory_gb": 8.0, "device": "gpu"},
    "recipe": {
        "name": "fcas/test",
        "training": {"autoencoder": STEP, "control": STEP},
        "encoding": STEP,
        "sampling": {"decoding": STEP},
    },
}


def test_needs_follow_the_recipe():
    needs = needs_of(DEMO)
    assert needs.shape == (96, 96, 96)
    assert needs.unit == "hu"
    assert all(n % needs.multiple == 0 for n in DEMO.grid.shape)
    assert {"coronary_artery", "left_ventricle"} <= set(needs.names)
    assert needs_of(with_overrides(TINY, ["diffusion.watch.cases=3"])).least_cases == 5


def test_a_recipe_of_slices_asks_for_no_pixel_size():
    needs = needs_of(fqcdm.CPU)
    assert (needs.shape, needs.spacing_mm, needs.unit) == ((128, 128), None, "mr")
    assert not needs.names


def test_a_recipe_that_fits_is_told_with_its_memory_and_time():
    (told,) = findings_of(FACTS)
    assert (told.level, told.facts) == ("info", {"peak_gb": 3.0, "hours": 4.0})


@pytest.mark.parametrize(("fits", "words"), [(True, "--set a.b=1 --set c=2"), (False, "larger GPU")])
def test_a_stage_that_does_not_fit_is_told_with_what_to_change(fits, words):
    change = {"settings": ["a.b=1", "c=2"], "fits": fits}
    training = {"autoencoder": STEP, "control": {**STEP, "peak_gb": 9.0, "change": change}}
    told, _ = findings_of({**FACTS, "recipe": {**FACTS["recipe"], "training": training}})
    assert told.level == "warning"
    assert "fcas/test, train control: 9.0 GB do not fit into 8.0 GB" in told.text
    assert words in told.text


@pytest.mark.slow
def test_what_doctor_counts_becomes_findings():
    (told,) = fit_findings(TINY, gpu_mem_gb=80)
    assert 0 < told.facts["peak_gb"] < 80
    (warned, _) = fit_findings(with_overrides(TINY, ["autoencoder.crop=[96, 96, 96]"]), gpu_mem_gb=1.6)
    assert "train autoencoder" in warned.text


def test_what_a_recipe_asks_for_stands_among_the_findings(tmp_path):
    image, mask = np.zeros((1, 16, 16, 16), np.int16), np.zeros((1, 16, 16, 16), np.uint8)
    image[0, 0], mask[:, 4:9, 4:9, 4:9] = -1000, 4
    write_dataset(
        [Case(case_id=name, image=image, mask=mask, affine=np.diag([4.0, 4, 4, 1])) for name in "ab"], tmp_path
    )
    machine = [Finding("info", "recipe_memory", None, "fcas/tiny fits.")]
    facts = examine_dataset(tmp_path, needs=needs_of(TINY), fit=lambda: machine, sheet=tmp_path / "sheet.html")
    assert {"recipe_grid", "recipe_cases", "recipe_memory"} <= {row["kind"] for row in facts["findings"]}
    assert [row["case_id"] for row in facts["examined"]] == ["a", "b"]
    assert "fcas/tiny fits." in (tmp_path / "sheet.html").read_text()
    assert "recipe_grid" not in {finding.kind for finding in check_dataset(tmp_path).findings}
