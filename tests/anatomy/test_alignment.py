"""Maps that are known must be found, maps that no heart makes refused, and what is moved must lie where it should."""

from itertools import islice, permutations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cardiosynth.anatomy.alignment import Fit, Moments, aligned, fit, moments_of, positions
from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import label_table
from cardiosynth.core.volume import Grid, centered_grid
from cardiosynth.data.sources.acdc import acdc

LABELS = label_table({"left_ventricle": 1, "right_ventricle": 2, "left_atrium": 3, "aorta": 4, "spine": 5}, ["spine"])
OTHER_CODES = label_table({"aorta": 9, "left_atrium": 7, "right_ventricle": 5, "left_ventricle": 3})
CENTERS_MM = np.array([[10.0, -6, -8], [-16, 0, -4], [4, 14, 6], [-2, -4, 20]])
RADII_MM = np.array([[11.0, 8, 13], [8, 12, 9], [12, 9, 8], [6, 6, 10]])


def heart(grid: Grid, matrix: np.ndarray | None = None, labels=LABELS, **changes) -> Case:
    """Four ellipsoids, moved by a homogeneous map of patient millimeters, in an image that tells them apart."""
    n = len(grid.shape)
    back = np.linalg.inv(np.eye(4) if matrix is None else matrix)
    index = np.stack([*np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), *[np.zeros(grid.shape)] * (3 - n)])
    points = np.tensordot((back @ grid.affine)[:3, :3], index, 1) + (back @ grid.affine)[:3, 3].reshape(3, *[1] * n)
    mask = np.zeros((1, *grid.shape), np.uint8)
    for name, center, radii in zip(
        ("left_ventricle", "right_ventricle", "left_atrium", "aorta"), CENTERS_MM, RADII_MM, strict=True
    ):
        apart = sum(((points[axis] - center[axis]) / radii[axis]) ** 2 for axis in range(n))
        mask[0][apart <= 1] = labels.named(name).code
    image = (100 * (mask > 0) - 50).astype(np.int16)
    return Case(
        **{"case_id": "heart", "image": image, "mask": mask, "affine": grid.affine, "labels": labels, **changes}
    )


def moved(rotation_deg=(0.0, 0.0, 0.0), scale=(1.0, 1.0, 1.0), shift_mm=(0.0, 0.0, 0.0)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", rotation_deg, degrees=True).as_matrix() @ np.diag(scale)
    matrix[:3, 3] = shift_mm
    return matrix


GRID = centered_grid(np.zeros(3), (36, 36, 36), (2.0, 2.0, 2.0))
PLANE = centered_grid(np.zeros(3), (40, 40), (2.0, 2.0))


def exact(matrix: np.ndarray) -> dict[str, Moments]:
    """The moments of the moved ellipsoids in closed form: a filled ellipsoid has the variance r^2 / 5."""
    linear = matrix[:3, :3]
    moments = {}
    for index, (center, radii) in enumerate(zip(CENTERS_MM, RADII_MM, strict=True)):
        covariance = linear @ np.diag(radii**2 / 5) @ linear.T
        moments[str(index)] = Moments(float(np.prod(radii)), linear @ center + matrix[:3, 3], covariance)
    return moments


def fitted(template, reference, align) -> Fit:
    found = fit(template, reference, align)
    assert found is not None
    return found


def test_moments_are_those_of_the_drawn_ellipsoids():
    fine = centered_grid(np.array([3.0, 1.0, -2.0]), (72, 72, 72), (1.0, 1.0, 1.0))
    found = moments_of(heart(fine))["left_ventricle"]
    np.testing.assert_allclose(found.center_mm, CENTERS_MM[0], atol=0.1)
    np.testing.assert_allclose(found.size, 4 / 3 * np.pi * np.prod(RADII_MM[0]), rtol=0.02)
    np.testing.assert_allclose(found.covariance_mm2, np.diag(RADII_MM[0] ** 2 / 5), atol=0.3)


@pytest.mark.parametrize("matrix", [
    moved(shift_mm=(12.0, -7.0, 3.0)),
    moved((8.0, -12.0, 15.0), shift_mm=(2.0, 0.0, -5.0)),
    moved((0.0, 0.0, 80.0)),
    moved((5.0, 10.0, -8.0), (1.15, 0.9, 1.05), (-4.0, 6.0, 1.0)),
])  # fmt: skip
def test_a_known_affine_map_is_found(matrix):
    found = fitted(exact(np.eye(4)), exact(matrix), "affine")
    assert (found.kind, found.reason) == ("affine", "")
    change = abs(matrix[:3, :3] - np.eye(3)).max()
    np.testing.assert_allclose(found.matrix[:3, :3], matrix[:3, :3], atol=0.03 * change + 1e-9)  # drawn to no change
    assert (found.distance_mm or 0) < 0.5


def test_centers_are_brought_together_by_the_shift_alone():
    found = fitted(exact(np.eye(4)), exact(moved((20.0, 0, 0), shift_mm=(5.0, 6.0, 7.0))), "centroid")
    np.testing.assert_array_equal(found.matrix[:3, :3], np.eye(3))
    same = fitted(exact(np.eye(4)), exact(moved(shift_mm=(5.0, 6.0, 7.0))), "centroid")
    np.testing.assert_allclose(same.matrix[:3, 3], (5, 6, 7), atol=1e-9)


def test_what_no_heart_does_becomes_less_and_says_why():
    two = {name: exact(np.eye(4))[name] for name in ("0", "1")}
    found = fitted(two, exact(moved(scale=(1.2, 1.2, 1.2))), "affine")
    assert found.kind == "similarity"
    assert "needs 3 structures that both masks hold, there are 2" in found.reason
    np.testing.assert_allclose(found.matrix[:3, :3], 1.2 * np.eye(3), atol=0.01)
    stretched = fitted(exact(np.eye(4)), exact(moved(scale=(1.0, 1.0, 1.8))), "affine")
    assert stretched.kind == "similarity"
    assert "stretch the template 1.7" in stretched.reason
    swollen = fitted(exact(np.eye(4)), exact(moved(scale=(2.0, 2.0, 2.0))), "affine")
    assert swollen.kind == "centroid"
    np.testing.assert_array_equal(swollen.matrix[:3, :3], np.eye(3))
    larger = fitted(exact(np.eye(4)), exact(moved(scale=(1.4, 1.4, 1.4))), "affine")
    assert "volume" in larger.reason
    turned = fitted(exact(np.eye(4)), exact(moved((0.0, 0.0, 150.0))), "affine")
    assert "degrees" in turned.reason
    mirrored = exact(np.diag([-1.0, 1, 1, 1]))
    assert fitted(exact(np.eye(4)), mirrored, "affine").kind != "affine"


@pytest.mark.parametrize("grid", [GRID, PLANE])
@pytest.mark.parametrize("align", ["centroid", "affine"])
def test_a_shifted_heart_of_other_codes_and_another_grid_comes_to_lie_on_the_mask(grid, align):
    n = len(grid.shape)
    shift_mm = np.array([6.0, -4.0, 8.0 if n == 3 else 0.0])
    spacing = (1.5,) * n
    elsewhere = centered_grid(shift_mm, (60,) * n, spacing)
    template = heart(elsewhere, moved(shift_mm=tuple(shift_mm)), OTHER_CODES)
    reference = heart(grid, image=None)
    found, facts = aligned(template, reference, align)
    assert found.grid.same_as(reference.grid)
    assert found.labels == OTHER_CODES
    assert facts["asked"] == align
    for name in facts["structures"]:
        ours, theirs = (case.required_mask() == case.labels.named(name).code for case in (reference, found))
        assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.9, name
        assert found.required_image()[ours & theirs].mean() > 35
    assert len(facts["structures"]) == 4
    assert facts["filled"] == 0


def test_an_affine_map_brings_a_differently_shaped_heart_closer_than_a_shift():
    template, reference = heart(GRID), heart(GRID, moved((12.0, 0.0, -10.0), (1.15, 0.9, 1.0)), image=None)
    dice = {}
    for align in ("centroid", "affine"):
        found, _ = aligned(template, reference, align)
        same = (found.required_mask() == reference.required_mask()) & (reference.required_mask() > 0)
        dice[align] = 2 * same.sum() / ((found.required_mask() > 0).sum() + (reference.required_mask() > 0).sum())
    assert dice["affine"] > 0.93
    assert dice["centroid"] < dice["affine"] - 0.08


def test_beyond_the_field_of_view_the_image_goes_on_and_the_mask_does_not():
    narrow = centered_grid(np.zeros(3), (28, 36, 36), (2.0, 2.0, 2.0))
    template = heart(narrow)
    ramp = np.broadcast_to(np.arange(28, dtype=np.int16).reshape(1, 28, 1, 1), template.required_image().shape)
    found, facts = aligned(template.with_(image=np.ascontiguousarray(ramp)), heart(GRID, image=None), "centroid")
    assert facts["filled"] == pytest.approx(8 / 36)
    assert (found.required_image()[0, :4] == 0).all()
    assert (found.required_image()[0, 32:] == 27).all()
    assert not found.required_mask()[0, :4].any()


def test_images_without_hounsfield_units_stay_as_fine_as_they_are():
    fine = heart(GRID).with_(image=heart(GRID).required_image().astype(np.float32) / 1000, intensity_unit="mr")
    found, _ = aligned(fine, heart(GRID, moved(shift_mm=(1.0, 0, 0)), image=None), "centroid")
    assert found.required_image().dtype == np.float32
    assert 0.04 < found.required_image().max() <= 0.05


def test_no_alignment_returns_the_very_same_case():
    template = heart(GRID)
    assert aligned(template, heart(PLANE), "none") == (template, {})


def test_masks_without_a_common_structure_are_laid_center_on_center():
    empty = heart(GRID).with_(mask=np.zeros((1, *GRID.shape), np.uint8))
    found, facts = aligned(empty, heart(GRID), "affine")
    assert facts["kind"] == "grid"
    assert "in common" in facts["reason"]
    np.testing.assert_array_equal(found.required_image(), empty.required_image())


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match="a slice and a volume"):
        aligned(heart(PLANE), heart(GRID), "centroid")
    with pytest.raises(InputError, match="case heart has no known voxel size"):
        aligned(heart(GRID).with_(spacing_known=False), heart(GRID), "affine")


def test_slices_of_any_plane_are_aligned_within_their_planes():
    turned = Rotation.from_euler("xyz", (30, 40, 50), degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turned @ PLANE.affine[:3, :3], (100.0, -50.0, 7.0)
    template = heart(PLANE).with_(affine=affine)
    reference = heart(PLANE, moved(shift_mm=(8.0, 4.0, 0.0)), image=None)
    found, facts = aligned(template, reference, "affine")
    assert np.mean(found.required_mask() == reference.required_mask()) > 0.99
    np.testing.assert_allclose(positions(template.grid), np.diag([2, 2, 1]), atol=1e-9)
    assert np.array(facts["matrix"]).shape == (3, 3)


def test_short_axis_slices_of_real_patients_are_turned_into_each_other(real_data):
    cases = [case for case in islice(acdc(real_data / "acdc"), 6) if case.case_id.endswith("01")]
    layers = [int(np.argmax((case.required_mask() > 0).sum((0, 1, 2)))) for case in cases]
    slices = [
        case.with_(image=case.required_image()[..., z], mask=np.ascontiguousarray(case.required_mask()[..., z]))
        for case, z in zip(cases, layers, strict=True)
    ]
    for template, reference in permutations(slices, 2):
        dice = {}
        for align in ("centroid", "affine"):
            found = aligned(template, reference, align)[0].required_mask()
            pairs = [(found == code, reference.required_mask() == code) for code in (1, 2, 3)]
            dice[align] = np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs])
        assert dice["affine"] > max(0.7, dice["centroid"])
