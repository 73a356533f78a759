from pathlib import Path

import numpy as np
import pytest

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import label_table
from cardiosynth.data.dataset import write_dataset
from cardiosynth.evaluation.comparison import Comparison
from cardiosynth.evaluation.lpips import Lpips
from cardiosynth.evaluation.results import CaseFigure, ProjectionFigure, Results, Spread, Table
from cardiosynth.evaluation.suite import evaluate, find_partner


def cell(table: Table, row: str, column: str):
    index = [c.title for c in table.columns].index(column)
    return next(r for r in table.rows if r[0] == row)[index]


def table(results: Results, title: str) -> Table:
    return next(t for t in results.tables if t.title == title)


def titles(results: Results) -> list[str]:
    return [t.title for t in results.tables]


def test_a_pair_is_measured_beside_its_real_image(synthetic, real, tmp_path: Path):
    made = write_dataset([synthetic("s0", "r0", 50), synthetic("s1", "r0", -10)], tmp_path / "made")
    results = evaluate(real, made, relative_to=tmp_path)
    similarity = table(results, "Image similarity")
    assert cell(similarity, "synthetic", "RMSE") == Spread(mean=30, sd=np.sqrt(800), n=2)
    assert "2 pairs" in similarity.protocol
    assert "[-1000, 2000] HU" in similarity.protocol
    intensity = table(results, "Intensity per structure")
    assert cell(intensity, "left ventricle", "error in pairs") == Spread(mean=20, sd=np.sqrt(1800), n=2)
    assert cell(intensity, "left ventricle", "real") == Spread(mean=300, sd=0, n=2)
    assert cell(table(results, "Contrast kept"), "coronary artery", "kept by the synthetic image").mean == 100
    shape = table(results, "Shape of the masks")
    assert cell(shape, "coronary artery", "pieces expected") == 2
    assert cell(shape, "coronary artery", "pieces, real").mean == 1
    assert cell(shape, "left ventricle", "volume, synthetic").mean == pytest.approx(1.728)
    confidence = table(results, "Confidence")
    assert cell(confidence, "all target structures", "mean confidence").mean == pytest.approx(0.8)
    assert cell(confidence, "everything else", "mean confidence").mean == pytest.approx(0.2)


def test_steps_across_slices_stand_beside_the_real_ones(heart, synthetic, real, tmp_path: Path):
    case = synthetic("s0", "r0")
    stripes = np.where(np.arange(16) % 2, 100, 0).astype(np.int16)
    made = write_dataset([case.with_(image=case.required_image() * np.int16(0) + stripes)], tmp_path / "made")
    found = table(evaluate(real, made), "Continuity across slices")
    assert cell(found, "axial (Z)", "synthetic").mean == 100
    assert cell(found, "coronal (Y)", "synthetic").mean == 0
    assert 0 < cell(found, "axial (Z)", "real").mean < 100


def test_surroundings_that_only_the_real_masks_hold_have_no_row(synthetic, real, tmp_path: Path):
    made = write_dataset([synthetic("s0", "r0")], tmp_path / "made")
    rows = [row[0] for row in table(evaluate(real, made), "Intensity per structure").rows]
    assert rows == ["coronary artery", "left ventricle"]


def test_deformed_masks_are_not_paired(synthetic, real, tmp_path: Path):
    moved = synthetic("s0", "r1")  # r1 is the shifted heart
    declared = synthetic("s1", "r0").with_(provenance={"parents": ["r0"], "mask": {"amplitude": 0}})
    made = write_dataset([moved, declared], tmp_path / "made")
    assert all(find_partner(case, real) is None for case in made)
    results = evaluate(real, made)
    assert titles(results) == [
        "Contrast kept", "Intensity per structure", "Shape of the masks", "Topology of the masks",
        "Continuity across slices", "Confidence", "Diversity",
    ]  # fmt: skip
    assert any("not measured" in note for note in results.notes)
    assert not any(figure.paired for figure in results.figures if isinstance(figure, CaseFigure))


def test_a_namesake_with_the_same_mask_is_a_partner_even_under_other_codes(synthetic, real, tmp_path: Path):
    case = synthetic("r0", "nobody")
    codes = {"coronary_artery": 5, "left_ventricle": 9}
    renumbered = np.zeros(256, np.uint8)
    renumbered[[1, 4]] = 5, 9
    other = case.with_(labels=label_table(codes), mask=renumbered[case.required_mask()])
    made = write_dataset([other], tmp_path / "made")
    partner = find_partner(made[0], real)
    assert partner is not None
    assert partner.case_id == "r0"
    results = evaluate(real, made)
    assert "Image similarity" in titles(results)
    assert any("matched by name" in note and "spine" in note for note in results.notes)


def test_a_perfect_autoencoder_has_a_perfect_ceiling(synthetic, real, tmp_path: Path):
    made = write_dataset([synthetic("s0", "r0", 10)], tmp_path / "made")
    results = evaluate(real, made, reconstruct=lambda case: case.required_image())
    similarity = table(results, "Image similarity")
    assert cell(similarity, "autoencoder's ceiling", "SSIM") == Spread(mean=1, sd=None, n=1)
    assert cell(similarity, "autoencoder's ceiling", "MS-SSIM").mean == pytest.approx(1)
    assert cell(similarity, "autoencoder's ceiling", "RMSE").mean == 0
    assert cell(similarity, "autoencoder's ceiling", "PSNR") is None
    assert not any("less than half" in note for note in results.notes)


def test_lpips_has_a_column_where_its_weights_are_given(synthetic, real, tmp_path: Path):
    made = write_dataset([synthetic("s0", "r0", 300)], tmp_path / "made")
    lpips = Lpips("LPIPS of a test", 11, lambda x, y: (x - y).abs().mean((1, 2, 3)))
    found = table(evaluate(real, made, comparison=Comparison(lpips=lpips)), "Image similarity")
    assert cell(found, "synthetic", "LPIPS").mean == pytest.approx(0.1, rel=1e-4)
    assert "LPIPS of a test" in found.protocol
    assert "LPIPS" not in [column.title for column in table(evaluate(real, made), "Image similarity").columns]


def test_lost_contrast_is_said_first(synthetic, real, tmp_path: Path):
    made = write_dataset([synthetic("s0", "r0")], tmp_path / "made")

    def blurred(case):
        vessel = case.required_mask() == 1
        return np.where(vessel, np.int16(0), case.required_image())

    results = evaluate(real, made, reconstruct=blurred)
    assert results.notes[0].startswith("The autoencoder keeps less than half of the contrast of: coronary artery")


def test_phantoms_are_not_passed_off_as_scans(heart, synthetic, tmp_path: Path):
    real = write_dataset([heart("r0", origin="phantom")], tmp_path / "real")
    made = write_dataset([synthetic("s0", "r0")], tmp_path / "made")
    assert any("are phantoms" in note for note in evaluate(real, made).notes)


def test_mr_is_not_told_in_hu(heart, synthetic, tmp_path: Path):
    real = write_dataset([heart("r0", intensity_unit="mr")], tmp_path / "real")
    made = write_dataset([synthetic("s0", "r0", intensity_unit="mr")], tmp_path / "made")
    text = evaluate(real, made).model_dump_json()
    assert "HU" not in text.replace("SHU", "")
    assert "percentile" in text


def test_figures_point_to_the_datasets(heart, synthetic, real, tmp_path: Path):
    made = write_dataset([heart("s0", shift=1), synthetic("s1", "r0")], tmp_path / "made")
    figures = evaluate(real, made, relative_to=tmp_path / "out", num_figures=2).figures
    first, second, vessels = figures
    assert isinstance(first, CaseFigure)
    assert (first.synthetic.case_id, first.synthetic.dataset, first.paired) == ("s1", "../made", True)
    assert isinstance(second, CaseFigure)
    assert (second.synthetic.case_id, second.paired) == ("s0", False)
    assert isinstance(vessels, ProjectionFigure)
    assert [title for title, _ in vessels.cases] == ["real: r0", "real: r1", "synthetic: s1", "synthetic: s0"]


def test_unknown_voxel_sizes_leave_volumes_out(heart, synthetic, tmp_path: Path):
    real = write_dataset([heart("r0", spacing_known=False)], tmp_path / "real")
    made = write_dataset([synthetic("s0", "r0")], tmp_path / "made")
    results = evaluate(real, made)
    assert cell(table(results, "Shape of the masks"), "left ventricle", "volume, real") is None
    assert any("voxel size of 1 case" in note for note in results.notes)


def test_what_cannot_be_compared_is_refused(heart, real, tmp_path: Path):
    masks = write_dataset([heart("m", image=None)], tmp_path / "masks")
    with pytest.raises(InputError, match="no case with image and mask"):
        evaluate(real, masks)
    mr = write_dataset([heart("m", intensity_unit="mr")], tmp_path / "mr")
    with pytest.raises(InputError, match="one unit"):
        evaluate(real, mr)
    other = heart("o").with_(labels=label_table({"a": 1, "b": 4, "c": 11}))
    with pytest.raises(InputError, match="no structure in common"):
        evaluate(real, write_dataset([other], tmp_path / "other"))


def test_what_was_told_of_no_mask_is_compared_as_a_set_only(synthetic, real, tmp_path: Path):
    case = synthetic("s0", "r0").with_(mask=None, confidence=None, provenance={"parents": [], "conditional": False})
    made = write_dataset([case, case.with_(case_id="s1")], tmp_path / "made")
    results = evaluate(real, made, relative_to=tmp_path)
    assert titles(results) == ["Continuity across slices", "Diversity"]
    assert any("show no mask" in note for note in results.notes)
    with pytest.raises(InputError, match="no case with image and mask"):
        evaluate(real, write_dataset([case.with_(provenance={})], tmp_path / "lacking"))
