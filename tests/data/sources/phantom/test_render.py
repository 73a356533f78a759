import numpy as np
import pytest
from scipy import ndimage

from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.volume import centered_grid
from cardiosynth.data.sources.phantom.patient import FIELD_OF_VIEW_MM
from cardiosynth.data.sources.phantom.protocol import draw_protocol
from cardiosynth.data.sources.phantom.render import render

CORONARY = CARDIAC_CT.named("coronary_artery").code


def cube(center_mm, count, side_mm=FIELD_OF_VIEW_MM):
    return centered_grid(center_mm, (count,) * 3, (side_mm / count,) * 3)


def inner_hu(image, mask, name):
    """Median HU of a structure away from its edge."""
    inside = ndimage.binary_erosion(mask == CARDIAC_CT.named(name).code)
    return float(np.median(image[inside]))


def test_slabs_have_the_bits_of_the_whole(sick_patient, protocol):
    grid = centered_grid(sick_patient.center_mm, (40, 36, 9), (3.0, 3.3, 9.0))
    whole = render(sick_patient, protocol, grid)
    for slab_voxels in (1, 40 * 36 * 4):
        image, mask = render(sick_patient, protocol, grid, slab_voxels)
        assert np.array_equal(image, whole[0])
        assert np.array_equal(mask, whole[1])


def test_the_same_patient_at_every_resolution(patients, protocol):
    """Every third fine voxel has the center of a coarse one and the same label."""
    patient = patients[0]
    _, coarse = render(patient, protocol, cube(patient.center_mm, 24))
    _, fine = render(patient, protocol, cube(patient.center_mm, 72))
    fine = fine[1::3, 1::3, 1::3]
    # A coarse voxel is coronary where the center line passes anywhere in it.
    elsewhere = (coarse != CORONARY) & (fine != CORONARY)
    assert (coarse == fine)[elsewhere].mean() > 0.9999
    assert (coarse == CORONARY)[fine == CORONARY].mean() > 0.8


def test_volumes_do_not_depend_on_the_grid(patients, protocol):
    patient = patients[1]
    masks = {n: render(patient, protocol, cube(patient.center_mm, n))[1] for n in (40, 60)}
    for label in CARDIAC_CT.targets[1:]:
        volumes = [(mask == label.code).sum() * (FIELD_OF_VIEW_MM / n) ** 3 for n, mask in masks.items()]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.06), label.name


def test_structures_measure_what_they_should(cases):
    for case in cases:
        image, mask = case.image[0], case.mask[0]
        for name in ("left_ventricle", "left_atrium", "ascending_aorta", "descending_aorta"):
            assert 250 < inner_hu(image, mask, name) < 550, name
        for name in ("right_ventricle", "right_atrium", "pulmonary_artery"):
            assert 90 < inner_hu(image, mask, name) < 550, name
        assert 75 < inner_hu(image, mask, "left_ventricular_myocardium") < 140
        assert -130 < inner_hu(image, mask, "mediastinal_fat") < -60
        assert -920 < inner_hu(image, mask, "lung") < -760


def test_the_chest_measures_what_it_should(whole_chest):
    image, mask = whole_chest.image[0], whole_chest.mask[0]
    assert 40 < inner_hu(image, mask, "liver") < 130
    assert 100 < np.median(image[mask == CARDIAC_CT.named("spine").code]) < 600
    assert np.median(image[mask == CARDIAC_CT.named("ribs_and_sternum").code]) > 150
    assert np.median(image[0, -1]) < -950


def test_arteries_are_brighter_than_the_fat_around_them(cases):
    for case in cases:
        vessel = case.mask[0] == CORONARY
        ring = ndimage.binary_dilation(vessel, iterations=2) & (
            case.mask[0] == CARDIAC_CT.named("mediastinal_fat").code
        )
        assert case.image[0][vessel].mean() > case.image[0][ring].mean() + 80


def test_calcium_is_brighter_than_any_blood(sick_patient, protocol):
    lesion = next(lesion for lesion in sick_patient.coronaries.lesions if lesion.calcium is not None)
    grid = cube(lesion.calcium.points_mm.mean(0), 24, side_mm=9.6)
    image, mask = render(sick_patient, protocol, grid)
    assert image.max() > 600
    assert mask[np.unravel_index(image.argmax(), image.shape)] == CORONARY


def test_protocols_change_the_image_and_not_the_mask(patients):
    patient = patients[2]
    grid = cube(patient.center_mm, 24)
    first, second = (render(patient, draw_protocol(index, 5), grid) for index in (0, 1))
    assert np.array_equal(first[1], second[1])
    assert not np.array_equal(first[0], second[0])


def test_each_coronary_tree_is_one_piece_as_rendered(patients, protocol):
    for patient, count in zip(patients, (24, 32, 44), strict=True):
        _, mask = render(patient, protocol, cube(patient.center_mm, count))
        assert ndimage.label(mask == CORONARY, np.ones((3, 3, 3)))[1] == 2
