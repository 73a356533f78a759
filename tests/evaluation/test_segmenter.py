import csv
import io
from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import label_table
from cardiosynth.data.dataset import Dataset, write_dataset
from cardiosynth.evaluation.results import Estimate, read_results, write_results
from cardiosynth.evaluation.segmenter import Trial, case_rows, judge, trial_results

TRIAL = Trial(name="own", test="hearts", trained="Trained for 3 steps on 2 cases.", radius_mm=2.5)


@pytest.fixture
def predicted(real: Dataset, tmp_path: Path) -> Dataset:
    """The first case as it is, under other codes; of the second nothing but the ventricle."""
    labels = label_table({"left_ventricle": 2, "coronary_artery": 1})
    masks = []
    for case in real:
        codes = np.zeros(256, np.uint8)
        codes[case.labels.named("left_ventricle").code] = 2
        codes[case.labels.named("coronary_artery").code] = case.case_id == "r0"
        masks.append(case.with_(image=None, mask=codes[case.required_mask()], labels=labels))
    return write_dataset(masks, tmp_path / "predicted")


def test_structures_are_matched_by_name_and_means_have_intervals(real: Dataset, predicted: Dataset):
    results = trial_results(judge(predicted, real), real.labels, TRIAL)
    titles = [column.title for column in results.tables[0].columns]
    rows = {row[0]: dict(zip(titles, row, strict=True)) for row in results.tables[0].rows}
    assert rows["left ventricle"]["Dice"] == Estimate(value=1, low=1, high=1)
    assert rows["left ventricle"]["clDice"] is None
    assert rows["left atrium"]["cases"] == 0
    vessel = rows["coronary artery"]
    assert (vessel["cases"], vessel["missed or invented"]) == (2, 1)
    assert vessel["Dice"] == vessel["clDice"] == Estimate(value=0.5, low=0, high=1)
    assert vessel["HD95"] == Estimate(value=0, low=0, high=0)  # of the one case with a distance
    assert rows["mean over structures"]["Dice"] == Estimate(value=0.75, low=0.5, high=1)


def test_the_protocol_says_how_every_number_was_made(real: Dataset, predicted: Dataset, tmp_path: Path):
    prompted = Trial(name="medsam", test="hearts", trained="", prompts="Boxes around the true structures.")
    for trial in (TRIAL, prompted):
        results = trial_results(judge(predicted, real, trial.radius_mm), real.labels, trial)
        for table in results.tables:
            assert "Test set hearts: 2 cases of 2 patients" in table.protocol
            assert f"radius of {trial.radius_mm:g} mm" in table.protocol
            assert ("nothing but the images" in table.protocol) == (trial is TRIAL)
            assert trial.prompts in table.protocol
    write_results(results, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == results


def test_every_case_has_its_row_with_every_measure(real: Dataset, predicted: Dataset):
    judged = judge(predicted, real, 2.5)
    table = trial_results(judged, real.labels, TRIAL).tables[1]
    assert len(table.rows) == len(real) * len(real.labels.targets)
    rows = {(row["case"], row["structure"]): row for row in csv.DictReader(io.StringIO(case_rows(judged, 2.5)))}
    found, missed = rows["r0", "coronary_artery"], rows["r1", "coronary_artery"]
    measures = ("dice", "rdice_literal", "rdice_symmetric", "cl_dice", "hausdorff95_mm", "missed", "rdice_radius_mm")
    assert [float(found[name]) for name in measures] == [1, 1, 1, 1, 0, 0, 2.5]
    assert [float(missed[name]) for name in measures] == [0, 0, 0, 0, float("inf"), 1, 2.5]
    assert rows["r0", "left_atrium"]["dice"] == ""


def test_a_mask_on_another_grid_is_refused(real: Dataset, tmp_path: Path):
    moved = write_dataset((case.with_(affine=np.diag([2.0, 2.0, 3.0, 1.0])) for case in real), tmp_path / "moved")
    with pytest.raises(InputError, match="another grid"):
        judge(moved, real)
