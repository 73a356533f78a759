import gzip

import numpy as np
import pytest
from scipy import ndimage

from cardiosynth.anatomy.masks import MaskSettings, make_masks
from cardiosynth.core.case import Case
from cardiosynth.core.config import parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT, label_table
from cardiosynth.data.dataset import write_dataset
from cardiosynth.metrics.topology import components

CORONARY, VENTRICLE, MUSCLE, LUNG = (
    CARDIAC_CT.named(name).code for name in ("coronary_artery", "left_ventricle", "left_ventricular_myocardium", "lung")
)
MILD = MaskSettings(amplitude_mm=(2.0, 4.0))


def heart(index=0, size=40):
    """A ventricle in its muscle with two vessels on it, and lung around."""
    x, y, z = np.meshgrid(*[np.arange(size) - (size - 1) / 2] * 3, indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    mask = np.full((1, size, size, size), LUNG, np.uint8)
    mask[0][radius < 14 + index % 3] = 0
    mask[0][radius < 11 + index % 3] = MUSCLE
    mask[0][radius < 8] = VENTRICLE
    shell = abs(radius - 12.5 - index % 3) < 0.9
    mask[0][shell & (abs(z) < 1) & (y > 0)] = CORONARY
    mask[0][shell & (abs(x) < 1) & (y < 0)] = CORONARY
    return Case(
        case_id=f"heart-{index}",
        image=np.zeros_like(mask, np.int16),
        mask=mask,
        affine=np.diag([2.0, 2.0, 2.0, 1.0]),
        origin="phantom",
        provenance={"acquisition": "protocol-3", "licence": "CC0-1.0"},
    )


def short_axis_stack():
    """Three structures in ten thick slices, codes of a user's own."""
    labels = label_table({"RV": 40, "myo": 50, "LV": 60})
    x, y, z = np.meshgrid(np.arange(64) - 31.5, np.arange(60) - 29.5, np.arange(8) - 3.5, indexing="ij")
    radius = np.sqrt(x**2 + y**2) + 0.8 * abs(z)
    mask = np.zeros((1, 64, 60, 8), np.uint8)
    mask[0][np.sqrt((x + 14) ** 2 + y**2) < 9] = 40
    mask[0][radius < 15] = 50
    mask[0][radius < 10] = 60
    return Case(
        case_id="stack", image=None, mask=mask, affine=np.diag([1.5, 1.5, 10.0, 1.0]), labels=labels,
        intensity_unit="mr",
    )  # fmt: skip


def pieces(mask):
    return {code: components(mask == code).count for code in np.unique(mask[mask > 0]).tolist()}


def test_new_masks_keep_structures_pieces_and_about_their_volumes():
    for made in make_masks([heart(i) for i in range(3)], 6, 0, MILD):
        source = CARDIAC_CT.only_targets(heart(int(made.provenance["parents"][0][-1])).required_mask())
        mask = made.required_mask()
        assert pieces(mask[0]) == {CORONARY: 2, VENTRICLE: 1, MUSCLE: 1}
        growth = np.prod(made.provenance["mask"]["scale"])
        for code in (CORONARY, VENTRICLE, MUSCLE):
            assert (mask == code).sum() == pytest.approx(growth * (source == code).sum(), rel=0.5)
        assert (mask != source).mean() > 0.01


def test_a_mask_is_a_function_of_its_index_whatever_the_order_or_the_place_of_the_sources(tmp_path):
    cases = [heart(i) for i in range(3)]
    first = [case.required_mask() for case in make_masks(cases, 3, 0, MILD)]
    alone = next(make_masks(cases[::-1], 1, 0, MILD, first=2))
    stored = next(make_masks(write_dataset(cases, tmp_path), 1, 0, MILD, first=2))
    assert alone.case_id == stored.case_id == "mask-00002"
    np.testing.assert_array_equal(alone.required_mask(), first[2])
    np.testing.assert_array_equal(stored.required_mask(), first[2])
    assert not np.array_equal(next(make_masks(cases, 1, 1, MILD, first=2)).required_mask(), first[2])


def test_a_mask_tells_how_it_was_made():
    made = next(make_masks([heart()], 1, 5, MILD))
    assert made.image is None
    assert made.origin == "synthetic"
    assert made.provenance["parents"] == ["heart-0"]
    assert made.provenance["acquisition"] == "protocol-3"
    assert made.provenance["licence"] == "CC0-1.0"
    facts = made.provenance["mask"]
    assert set(facts) == {
        "rotation_deg", "scale", "shear", "translation_mm", "amplitude_mm", "smoothness_mm", "jacobian", "closing",
        "attempts", "comparison",
    }  # fmt: skip
    assert 0 < facts["jacobian"][0] < 1 < facts["jacobian"][1]
    assert facts["comparison"]["coronary_artery"]["pieces"] == 2
    assert set(facts["comparison"]) == {
        "coronary_artery", "left_ventricle", "left_ventricular_myocardium", "contacts_lost", "contacts_new",
    }  # fmt: skip
    assert all(abs(angle) <= MILD.rotation_deg for angle in facts["rotation_deg"])
    assert facts["attempts"] >= 1


def test_the_printed_max_pool_thickens_vessels_and_the_default_does_not():
    source = int((heart().required_mask() == CORONARY).sum())
    count = {}
    for kind in ("closing", "literal"):
        made = next(make_masks([heart()], 1, 0, MaskSettings(closing=kind, scale=0.0)))
        count[kind] = int((made.required_mask() == CORONARY).sum())
    assert count["closing"] == pytest.approx(source, rel=0.3)
    assert count["literal"] > 1.6 * source


def test_thick_slices_and_codes_of_ones_own():
    made = next(make_masks([short_axis_stack()], 1, 0))
    assert pieces(made.required_mask()[0]) == {40: 1, 50: 1, 60: 1}
    assert made.intensity_unit == "mr"
    assert made.grid.same_as(short_axis_stack().grid)


def test_slices_are_deformed_in_their_plane():
    stack = short_axis_stack()
    flat = stack.with_(mask=stack.required_mask()[..., 4].copy())
    made = next(make_masks([flat], 1, 0))
    assert made.required_mask().shape == (1, 64, 60)
    assert pieces(made.required_mask()[0]) == {40: 1, 50: 1, 60: 1}
    assert len(made.provenance["mask"]["rotation_deg"]) == 1


def read_real(file, names, box=()):
    """Return a real mask, or the part of it in ``box``, as a case."""
    import nibabel as nib

    stored = nib.load(file)
    mask = np.asarray(stored.dataobj)[box].astype(np.uint8)  # pyright: ignore[reportAttributeAccessIssue]
    return Case(
        case_id=file.name.split(".")[0], image=None, mask=mask[None], affine=stored.affine,  # pyright: ignore
        labels=label_table(names),
    )  # fmt: skip


ACDC = {"right_ventricle": 1, "left_ventricular_myocardium": 2, "left_ventricle": 3}


@pytest.mark.parametrize("box", [(), np.s_[..., 4]], ids=["stack", "slice"])
def test_real_short_axis_masks(real_data, box):
    for file in sorted((real_data / "acdc").glob("patient00[12]/*frame01_gt.nii.gz")):
        source = read_real(file, ACDC, box)
        made = next(make_masks([source], 1, 0))
        assert pieces(made.required_mask()[0]).keys() == {1, 2, 3}
        found = made.provenance["mask"]["comparison"]
        assert all(0.85 < found[name]["volume_ratio"] < 1.15 for name in ACDC)
        assert all(found[name]["pieces"] == found[name]["pieces_before"] for name in ACDC)


@pytest.mark.slow
def test_a_real_thorax_with_great_vessels_that_leave_the_field_of_view(real_data):
    source = read_real(
        real_data / "cta_aorta" / "derived" / "label_heart1_aorta2_pa3.nii.gz",
        {"heart": 1, "aorta": 2, "pulmonary_artery": 3},
    )
    made = next(make_masks([source], 1, 0))
    found = made.provenance["mask"]["comparison"]
    assert [found[name]["pieces"] for name in ("heart", "aorta", "pulmonary_artery")] == [1, 1, 1]
    assert found["contacts_lost"] == found["contacts_new"] == []


@pytest.mark.slow
def test_real_calcium_of_many_spots_beside_a_heart_in_codes_of_ones_own(real_data):
    header, data = (real_data / "lidc_heart_masks" / "0506_msk.nrrd").read_bytes().split(b"\n\n", 1)
    assert b"type: short" in header and b"sizes: 512 512 122" in header and b"encoding: gzip" in header  # noqa: PT018
    stored = np.frombuffer(gzip.decompress(data), "<i2").reshape((512, 512, 122), order="F")
    heart = np.isin(stored, (1, 3))
    box = tuple(slice(max(s.start - 15, 0), s.stop + 15) for s in ndimage.find_objects(heart.astype(np.uint8))[0])
    codes = np.array([0, 200, 0, 17], np.uint8)
    source = Case(
        case_id="0506", image=None, mask=codes[stored[box]][None], affine=np.diag([-0.68, -0.68, 2.5, 1.0]),
        labels=label_table({"whole_heart": 200, "calcium": 17}),
    )  # fmt: skip
    made = next(make_masks([source], 1, 0)).required_mask()[0]
    assert pieces(made) == pieces(source.required_mask()[0]) == {17: 15, 200: 2}


def test_sources_that_cannot_be_deformed_are_named():
    case = heart()
    with pytest.raises(InputError, match="no case has a mask"):
        next(make_masks([case.with_(mask=None)], 1, 0))
    with pytest.raises(InputError, match="heart-0 has no target structure"):
        next(make_masks([case.with_(mask=np.full_like(case.required_mask(), LUNG))], 1, 0))
    with pytest.raises(InputError, match="heart-0 has no known voxel size"):
        next(make_masks([case.with_(spacing_known=False)], 1, 0))
    with pytest.raises(InputError, match=r"heart-0 could not be deformed in 1 attempts .*left the field of view"):
        next(make_masks([case], 1, 0, MaskSettings(translation_mm=500.0, attempts=1)))


def test_a_range_that_runs_backward_is_refused():
    with pytest.raises(InputError, match="amplitude_mm"):
        parse_settings(MaskSettings, {"amplitude_mm": [8.0, 3.0]}, "test")
