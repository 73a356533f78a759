import numpy as np
import pytest

from cardiosynth.data.check.intensity import BINS, brightness, brightness_findings
from cardiosynth.data.check.tissues import ALIASES, EXPECTED_HU, structure_of

from .conftest import found, only, voxels


def test_a_histogram_counts_every_voxel_those_beyond_its_range_too():
    told = brightness(np.array([-2000, -5, 0, 5, 5000]), (-10.0, 10.0))
    assert sum(told.counts) == 5
    assert told.counts[0] == told.counts[BINS - 1] == 1
    assert told.median == 0


def test_swapped_codes_show_in_the_medians(planted, clean):
    case, mask = clean[2], clean[2].required_mask().copy()
    mask[0][voxels(case, "left_ventricle")] = case.labels.named("left_ventricular_myocardium").code
    mask[0][voxels(case, "left_ventricular_myocardium")] = case.labels.named("left_ventricle").code
    finding = found(planted(mask=mask), "unusual_hu")[0]
    assert finding.case_id == case.case_id
    assert set(finding.facts) == {"left_ventricle", "left_ventricular_myocardium"}
    assert finding.facts["left_ventricle"]["expected_hu"] == [200, 700]
    assert "left_ventricle median" in finding.text


def test_a_scan_without_contrast_is_one_finding(planted, clean):
    image = clean[2].required_image().copy()
    image[image > 45] = 45
    examination = planted(image=image)
    assert "hardly enhanced" in found(examination, "unusual_hu")[0].text
    assert len(found(examination, "unusual_hu")) == 1


def test_an_image_that_was_cut_off_is_told(planted, clean):
    finding = only(planted(image=clean[2].required_image().clip(None, 380)), "clipped")
    assert finding.facts["high_hu"] == 380


def test_values_that_cannot_be_hu_are_an_error(planted, clean):
    image = (clean[2].required_image().astype(np.int16) + 1024).clip(0) * 3
    assert found(planted(image=image.astype(np.int16)), "not_hu")[0].level == "error"


def test_a_constant_image_is_an_error(planted, clean):
    assert found(planted(image=clean[2].required_image() * 0), "constant_image")[0].level == "error"


def test_mr_has_an_order_but_no_unit(clean):
    def medians(ventricle: float, muscle: float):
        case = clean[0].with_(intensity_unit="mr", mask=None)
        each = {"lv": ventricle, "myocardium": muscle}
        return brightness_findings(case, {k: brightness(np.full(3, v), (0.0, 1e4)) for k, v in each.items()})

    assert medians(3000, 900) == []
    assert medians(3, 0.9) == []
    (finding,) = medians(800, 900)
    assert finding.kind == "unusual_order"
    assert "lv (median 800) is not brighter than myocardium (900)" in finding.text


@pytest.mark.parametrize(
    ("alias", "name"), [("lv", "left_ventricle"), ("heart_myocardium", "left_ventricular_myocardium")]
)
def test_structures_are_known_by_the_names_that_data_sets_give_them(alias, name):
    assert structure_of(alias) == name
    assert structure_of(name) == name
    assert structure_of("kidney") == "kidney"


def test_no_alias_means_two_structures_and_every_range_has_a_basis():
    aliases = [alias for names in ALIASES.values() for alias in names]
    assert len(aliases) == len(set(aliases))
    assert all(tissue.low_hu < tissue.high_hu and tissue.basis for tissue in EXPECTED_HU.values())
