"""Looks do to an image what they say, to the blood alone or everywhere, and nothing to its anatomy."""

import numpy as np
import pytest
from scipy import ndimage

from cardiosynth.anatomy.appearance import (
    Appearance,
    AppearanceSettings,
    Contrast,
    appearances,
    changed,
    check_blood_pools,
    through_kernel,
)
from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT, label_table
from cardiosynth.core.random import numpy_generator

LEFT, RIGHT, LUNG, BONE = (CARDIAC_CT.named(n).code for n in ("left_ventricle", "right_ventricle", "lung", "spine"))
MEANS_HU = {LEFT: 400.0, RIGHT: 150.0, LUNG: -800.0, BONE: 300.0, 0: 40.0}
SETTINGS = AppearanceSettings(variants=6)


def chest(noise_hu=0.0, dims=3, **changes) -> Case:
    """Two ventricles between lung and spine, in noise."""
    mask = np.zeros((1, *(40, 40, 24)[:dims]), np.uint8)
    mask[:, :6], mask[:, 34:] = LUNG, BONE
    mask[:, 8:19, 8:32], mask[:, 21:32, 8:32] = LEFT, RIGHT
    image = sum(mean * (mask == code) for code, mean in MEANS_HU.items())
    image = image + numpy_generator(0, "chest").normal(0, 1, mask.shape) * noise_hu
    values = {"case_id": "chest", "image": np.rint(image).astype(np.int16), "mask": mask, "affine": np.eye(4)}
    return Case(**{**values, **changes})


def look(noise_hu=0.0, kernel_mm=0.0, contrast=(), variant=1, border_mm=0.5) -> Appearance:
    return Appearance(variant, 0, tuple(contrast), noise_hu, kernel_mm, border_mm)


def cores(case: Case, code: int) -> np.ndarray:
    inside = ndimage.binary_erosion(case.required_mask()[0] == code, iterations=3, border_value=1)
    return case.required_image()[0][inside].astype(float)


@pytest.mark.parametrize("dims", [2, 3])
def test_blood_changes_by_the_drawn_contrast_and_nothing_else_does(dims):
    groups = (Contrast(("left_ventricle", "left_atrium"), 1.2, -10.0), Contrast(("right_ventricle",), 0.5, 30.0))
    before, after = chest(20, dims), changed(chest(20, dims), look(contrast=groups))
    wanted = {
        LEFT: 0.2 * (cores(before, LEFT).mean() - 45) - 10,
        RIGHT: -0.5 * (cores(before, RIGHT).mean() - 45) + 30,
        LUNG: 0, BONE: 0, 0: 0,
    }  # fmt: skip
    for code, change in wanted.items():
        assert cores(after, code).mean() - cores(before, code).mean() == pytest.approx(change, abs=1)
        assert cores(after, code).std() == pytest.approx(cores(before, code).std(), rel=0.01), "texture stays"
    np.testing.assert_array_equal(after.required_mask(), before.required_mask())


def test_the_border_of_blood_is_smooth():
    after = changed(chest(), look(contrast=[Contrast(("left_ventricle",), 1.0, 100.0)], border_mm=2.0))
    profile = (after.required_image() - chest().required_image())[0, 3:14, 20, 12]
    assert (np.diff(profile) >= 0).all()
    assert np.diff(profile).max() < 25  # a step of 100 through a Gaussian of 2 voxels: 100 / (2 sqrt(2 pi)) at most
    sharp = changed(chest(), look(contrast=[Contrast(("left_ventricle",), 1.0, 100.0)], border_mm=0))
    assert np.diff((sharp.required_image() - chest().required_image())[0, 3:14, 20, 12].astype(int)).max() == 100


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kernel_mm", [0.0, 0.8, -0.8])
def test_noise_adds_up_to_the_drawn_standard_deviation(dims, kernel_mm):
    water = chest(dims=dims).with_(image=np.full(chest(dims=dims).required_mask().shape, 100, np.int16))
    noise = changed(water, look(noise_hu=24.0, kernel_mm=kernel_mm)).required_image()[0] - 100.0
    assert noise.std() == pytest.approx(24, rel=0.01)
    halves = [half.std() for half in np.array_split(noise, 2)]
    assert halves == pytest.approx([24, 24], rel=0.12 if dims == 2 else 0.06), "as much everywhere"
    assert noise.mean() == pytest.approx(0, abs=4 if dims == 2 else 1)
    both = changed(chest(noise_hu=18), look(noise_hu=24.0))
    assert cores(both, LEFT).std() == pytest.approx(30, rel=0.06)  # 18 and 24 in quadrature


def test_smooth_noise_is_correlated_and_sharp_noise_is_not():
    def correlation(kernel_mm):
        noise = changed(chest(), look(noise_hu=20.0, kernel_mm=kernel_mm)).required_image()[0, 22:31, 9:31, 2:22]
        noise = noise - noise.mean()
        return (noise[:, 1:] * noise[:, :-1]).mean() / noise.var()

    # White noise through a Gaussian of s voxels: exp(-1 / (4 s^2)) at the next voxel, where s is not small.
    assert correlation(1.2) == pytest.approx(np.exp(-1 / (4 * 1.2**2)), abs=0.08)
    assert abs(correlation(0.0)) < 0.06
    assert correlation(-0.8) < -0.05


def test_kernels_smooth_and_sharpen_edges_and_keep_means():
    step = np.where(np.arange(40) < 20, 0.0, 100.0).astype(np.float32)[:, None] * np.ones((40, 40), np.float32)
    smooth, sharp = (through_kernel(step, kernel_mm, (0.5, 0.5)) for kernel_mm in (1.0, -1.0))
    # A Gaussian of 2 voxels: the slope in the middle is 100 / (2 sqrt(2 pi)).
    assert np.diff(smooth[:, 20]).max() == pytest.approx(100 / (2 * np.sqrt(2 * np.pi)), rel=0.02)
    assert np.diff(sharp[:, 20]).max() > 150
    for image in (smooth, sharp):
        assert image.mean() == pytest.approx(50, abs=1e-3)


def test_looks_are_a_function_of_seed_and_number_within_their_ranges():
    looks = appearances(SETTINGS)
    assert looks[:2] == appearances(SETTINGS.model_copy(update={"variants": 2}))
    assert len({str(found.facts()) for found in (*looks, *appearances(SETTINGS.model_copy(update={"seed": 1})))}) == 12
    assert appearances(AppearanceSettings()) == ()
    for found in looks:
        assert 0 <= found.noise_hu <= 30
        assert -0.7 <= found.kernel_mm <= 0.9
        assert len(found.contrast) == 2
        for group in found.contrast:
            assert 0.6 <= group.gain <= 1.3
            assert -40 <= group.shift_hu <= 40


def test_a_changed_case_is_a_function_of_case_and_look():
    first, again, other = (changed(chest(case_id=name), look(noise_hu=10)) for name in ("a", "a", "b"))
    np.testing.assert_array_equal(first.required_image(), again.required_image())
    assert (first.required_image() != other.required_image()).any()
    assert first.provenance["appearance"]["noise_hu"] == 10


def test_air_stays_air():
    padded = chest().with_(image=np.full((1, 40, 40, 24), -1024, np.int16))
    assert changed(padded, look(noise_hu=50)).required_image().min() == -1024


def test_images_without_hounsfield_units_change_on_their_own_scale():
    groups = [Contrast(("left_ventricle",), 1.5, 20.0)]
    values = chest(5).required_image().astype(np.float32) + 900
    for factor in (1.0, 0.01):
        mr = chest(5, image=values * np.float32(factor), intensity_unit="mr")
        low, high = np.percentile(mr.required_image(), (0.5, 99.5))
        after = changed(mr, look(contrast=groups))
        gained = cores(after, LEFT).mean() - cores(mr, LEFT).mean()
        assert gained == pytest.approx(0.5 * (cores(mr, LEFT).mean() - low) + 0.02 * (high - low), rel=0.02)
        assert cores(after, RIGHT).mean() == pytest.approx(cores(mr, RIGHT).mean())
        noisy = changed(mr, look(noise_hu=50.0))
        assert cores(noisy, BONE).std() == pytest.approx(0.05 * (high - low), rel=0.1)
        assert after.required_image().dtype == np.float32


def test_what_cannot_be_changed_is_refused():
    with pytest.raises(InputError, match="no known voxel size"):
        changed(chest(spacing_known=False), look(kernel_mm=0.5))
    with pytest.raises(InputError, match="names no structure of the label table; name those that hold blood"):
        check_blood_pools(SETTINGS, label_table({"liver_tumor": 1}))
    check_blood_pools(AppearanceSettings(), label_table({"liver_tumor": 1}))
    check_blood_pools(SETTINGS, CARDIAC_CT)
    for wrong in ({"gain": (1.2, 0.8)}, {"gain": (0.0, 1.0)}, {"noise_hu": (-1.0, 2.0)}, {"kernel_mm": (1.0, 0.0)}):
        with pytest.raises(ValueError, match="must be"):
            AppearanceSettings.model_validate(wrong)
