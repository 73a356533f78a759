import numpy as np
from scipy.spatial import KDTree

from cardiosynth.data.sources.phantom.coronaries import CLEARANCE_MM, SEPARATION_MM
from cardiosynth.data.sources.phantom.geometry import arc_lengths
from cardiosynth.data.sources.phantom.lattice import lattice_around
from cardiosynth.data.sources.phantom.patient import FIELD_OF_VIEW_MM

MAIN = ("left main", "LAD", "circumflex", "RCA")


def heights(patient):
    """Center line heights above the epicardium and the depth in every blood pool, beyond the first centimeter."""
    points = patient.coronaries.points_mm
    lattice = lattice_around(points.min(0) - 6, points.max(0) + 6)
    chambers = patient.chambers(lattice)
    above, depth = [], []
    for branch in patient.coronaries.branches:
        far = branch.tube.points_mm[arc_lengths(branch.tube.points_mm) > 10]
        radii = branch.tube.radii_mm[-len(far) :]
        above.append(lattice.at(chambers.surface, far) - radii - CLEARANCE_MM)
        pools = (chambers.left_ventricle, chambers.right_ventricle, chambers.left_atrium, chambers.right_atrium)
        depth.extend(lattice.at(pool, far) for pool in (*pools, chambers.aorta, chambers.pulmonary))
    return np.concatenate(above), np.concatenate(depth)


def test_vessels_run_on_the_epicardium(patients):
    for patient in patients:
        above, to_blood = heights(patient)
        assert np.median(np.abs(above)) < 0.3
        assert np.percentile(np.abs(above), 90) < 1.5
        assert to_blood.min() > -1.0


def test_every_patient_has_the_main_vessels_and_side_branches(patients):
    for patient in patients:
        names = {branch.name for branch in patient.coronaries.branches}
        assert names.issuperset((*MAIN, "first diagonal", "first marginal", "acute marginal"))


def test_healthy_vessels_taper_within_one_and_four_and_a_half_millimeters(patients):
    for patient in patients:
        for branch in patient.coronaries.branches:
            diameters = 2 * branch.tube.radii_mm
            assert (np.diff(diameters) <= 1e-9).all()
            assert diameters[0] > diameters[-1] or branch.name == "left main"
            assert diameters.min() > 0.9
            assert diameters.max() < 4.5


def test_branches_begin_on_another_vessel_of_their_tree(patients):
    for patient in patients:
        branches = patient.coronaries.branches
        for branch in branches:
            if branch.name in ("left main", "RCA"):
                continue
            family = [b for b in branches if b.tree == branch.tree and b is not branch]
            distance, _ = KDTree(np.concatenate([b.tube.points_mm for b in family])).query(branch.tube.points_mm[0])
            assert distance < 1e-9


def test_the_trees_stay_apart(patients):
    for patient in patients:
        left, right = (
            np.concatenate([b.tube.points_mm for b in patient.coronaries.branches if b.tree == tree])
            for tree in ("left", "right")
        )
        assert KDTree(left).query(right)[0].min() > SEPARATION_MM - 1


def test_both_trees_fit_into_the_default_field_of_view(patients):
    for patient in patients:
        away = np.abs(patient.coronaries.points_mm - patient.center_mm).max()
        assert away < FIELD_OF_VIEW_MM / 2


def test_lesions_narrow_their_vessel_and_no_other(patients, sick_patient):
    healthy = {b.name: b.tube.radii_mm for b in patients[0].coronaries.branches}
    sites = {lesion.branch for lesion in sick_patient.coronaries.lesions}
    assert sites
    for branch in sick_patient.coronaries.branches:
        assert (branch.tube.radii_mm <= healthy[branch.name] + 1e-9).all()
        changed = not np.allclose(branch.tube.radii_mm, healthy[branch.name])
        assert changed == (branch.name in sites)


def test_a_lesion_reduces_the_diameter_by_its_narrowing(patients, sick_patient):
    radii = {b.name: b.tube.radii_mm for b in patients[0].coronaries.branches}
    for lesion in sick_patient.coronaries.lesions:
        branch = next(b for b in sick_patient.coronaries.branches if b.name == lesion.branch)
        at = np.abs(arc_lengths(branch.tube.points_mm) - lesion.position_mm).argmin()
        assert branch.tube.radii_mm[at] <= radii[lesion.branch][at] * (1 - 0.95 * lesion.narrowing) + 1e-9


def test_calcium_lies_in_the_wall(patients, sick_patient):
    tubes = {b.name: b.tube for b in patients[0].coronaries.branches}
    deposits = [lesion for lesion in sick_patient.coronaries.lesions if lesion.calcium is not None]
    assert deposits
    for lesion in deposits:
        tube = tubes[lesion.branch]
        away, nearest = KDTree(tube.points_mm).query(lesion.calcium.points_mm)
        assert (away <= tube.radii_mm[nearest] + 1e-6).all()


def test_no_lesions_where_none_are_expected(patients):
    assert all(len(patient.coronaries.lesions) == 0 for patient in patients)
