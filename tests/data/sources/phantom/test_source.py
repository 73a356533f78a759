import json

import numpy as np
import pytest
from scipy import ndimage

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.data.sources.phantom.source import phantom, phantoms

SMALL = (16, 16, 16)


def center_mm(case, name):
    """Center of mass of a structure in RAS+ millimeters."""
    index = np.argwhere(case.mask[0] == CARDIAC_CT.named(name).code).mean(0)
    return case.affine[:3, :3] @ index + case.affine[:3, 3]


def test_every_target_is_in_as_many_pieces_as_the_table_expects(cases):
    for case in cases:
        for label in CARDIAC_CT.targets:
            _, count = ndimage.label(case.mask[0] == label.code, np.ones((3, 3, 3)))
            assert count == label.components, (case.case_id, label.name)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(48, 48, 48), (64, 64, 64), (96, 96, 96), (96, 96, 48)])
def test_trees_are_connected_at_every_resolution(shape):
    for case in phantoms(8, shape, seed=11):
        for label in CARDIAC_CT.targets:
            _, count = ndimage.label(case.mask[0] == label.code, np.ones((3, 3, 3)))
            assert count == label.components, (case.case_id, label.name)


def test_a_large_field_of_view_holds_every_structure(whole_chest):
    assert set(np.unique(whole_chest.mask)) == {0, *CARDIAC_CT.codes}


def test_landmarks_lie_where_the_affine_says(whole_chest):
    assert whole_chest.grid.axis_codes == "RAS"
    ventricle, atrium = center_mm(whole_chest, "left_ventricle"), center_mm(whole_chest, "left_atrium")
    assert ventricle[0] < atrium[0]
    assert ventricle[1] > atrium[1]
    assert ventricle[2] < atrium[2]
    assert center_mm(whole_chest, "right_atrium")[0] > atrium[0] + 20
    assert center_mm(whole_chest, "right_ventricle")[1] > ventricle[1]
    assert center_mm(whole_chest, "liver")[0] > ventricle[0] + 40
    assert center_mm(whole_chest, "spine")[1] < atrium[1] - 20
    assert center_mm(whole_chest, "descending_aorta")[0] < center_mm(whole_chest, "spine")[0]


def test_the_apex_points_left_forward_and_down(cases):
    for case in cases:
        index = np.argwhere(case.mask[0] == CARDIAC_CT.named("left_ventricular_myocardium").code)
        points = index @ case.affine[:3, :3].T + case.affine[:3, 3]
        away = points - center_mm(case, "left_atrium")
        apex = points[np.linalg.norm(away, axis=1).argmax()] - center_mm(case, "left_ventricle")
        assert apex[0] < -10
        assert apex[1] > 5
        assert apex[2] < -5


def test_the_arch_lies_above_the_heart(whole_chest):
    index = np.argwhere(whole_chest.mask[0] == CARDIAC_CT.named("ascending_aorta").code)
    top = (index @ whole_chest.affine[:3, :3].T + whole_chest.affine[:3, 3])[:, 2].max()
    assert top > center_mm(whole_chest, "pulmonary_artery")[2] + 25


def test_the_default_field_of_view_is_a_cube_of_120_mm(cases):
    assert np.allclose(np.array(cases[0].spacing_mm) * 48, 120)
    assert np.allclose(phantom(0, (16, 20, 18)).spacing_mm, (120 / 16, 120 / 20, 120 / 18))


def test_a_given_spacing_is_kept_around_the_same_center(cases):
    case = phantom(0, SMALL, spacing_mm=(2.0, 2.0, 3.0), seed=5)
    assert case.spacing_mm == (2.0, 2.0, 3.0)
    assert np.allclose(case.grid.center_mm, cases[0].grid.center_mm)


def test_same_seed_same_bits_alone_or_in_a_series():
    series = list(phantoms(3, SMALL, 2.5, protocols=2, seed=3, first=4, first_protocol=6))
    assert [case.case_id for case in series] == ["phantom-00004", "phantom-00005", "phantom-00006"]
    assert [c.provenance["acquisition"] for c in series] == ["protocol-06", "protocol-07", "protocol-06"]
    alone = phantom(5, SMALL, 2.5, protocol=7, seed=3)
    assert np.array_equal(alone.image, series[1].image)
    assert np.array_equal(alone.mask, series[1].mask)
    assert alone.provenance == series[1].provenance


def test_another_seed_or_index_is_another_patient():
    first = phantom(0, SMALL, 2.5, seed=0)
    assert not np.array_equal(first.mask, phantom(1, SMALL, 2.5, seed=0).mask)
    assert not np.array_equal(first.mask, phantom(0, SMALL, 2.5, seed=1).mask)


def test_cases_of_one_protocol_look_alike_and_say_so(cases):
    def level(case, name):
        return np.median(case.image[0][case.mask[0] == CARDIAC_CT.named(name).code])

    assert cases[0].provenance["protocol"] == cases[2].provenance["protocol"]
    assert cases[0].provenance["protocol"] != cases[1].provenance["protocol"]
    for name in ("left_ventricle", "right_ventricle"):
        assert level(cases[0], name) == pytest.approx(level(cases[2], name), rel=0.12)


def test_provenance_is_json_and_tells_what_was_drawn(cases):
    for index, case in enumerate(cases):
        facts = json.loads(json.dumps(case.provenance))
        assert facts["patient"] == index
        assert facts["seed"] == 5
        assert case.origin == "phantom"
        assert case.is_simulated
        assert case.image.dtype == np.int16


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"count": 0}, "--cases 0"),
        ({"shape": (32, 32)}, "give three"),
        ({"shape": (8, 32, 32)}, "too small"),
        ({"spacing_mm": -1.0}, "--spacing-mm -1.0"),
        ({"spacing_mm": (1.0, 1.0)}, "one or three"),
        ({"protocols": 0}, "--protocols 0"),
        ({"mean_lesions": -1.0}, "lesions"),
    ],
)
def test_bad_numbers_are_refused_before_anything_is_made(arguments, words):
    with pytest.raises(InputError, match=words):
        phantoms(**{"count": 1, "shape": SMALL, **arguments})
