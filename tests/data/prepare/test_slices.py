import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import NORMALIZED
from cardiosynth.data.preparation import preparation_of
from cardiosynth.data.prepare.run import prepare
from cardiosynth.data.prepare.settings import PrepareSettings, SliceSettings
from cardiosynth.data.prepare.slices import cut_slices, slice_axis, slice_of
from cardiosynth.data.sources.acdc import acdc

from .scans import scan, stream


def cut(plane: str = "axial", size: int = 32, scale: str = "auto", **settings) -> PrepareSettings:
    slices = SliceSettings.model_validate({"plane": plane, "size": size, "scale": scale})
    return PrepareSettings(slices=slices, **settings)


def thick(axis: int) -> np.ndarray:
    spacing = np.ones(3)
    spacing[axis] = 3
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = np.array([10, 12, 14]) - spacing * (np.array([30, 32, 28]) - 1) / 2
    return affine


def test_slices_are_those_of_the_volume_where_the_pixel_size_is_its_own():
    case = scan(np.eye(4))
    made = cut_slices(case, cut(size=16, spacing_mm=(1.0, 1.0)))
    assert len(made) == 13, "the ball of 6 mm"
    for piece in made:
        x, y, z = np.rint(piece.affine[:3, 3]).astype(int)
        assert z == piece.provenance["slice"]
        assert np.array_equal(piece.image[0], case.image[0, x : x + 16, y : y + 16, z])


def test_the_short_axis_is_across_the_thickest_voxels_and_else_the_fewest():
    short = SliceSettings(plane="short-axis")
    for axis in range(3):
        assert slice_axis(scan(thick(axis)), short) == axis
    assert slice_axis(scan(thick(0), spacing_known=False), short) == 2, "28 voxels are the fewest"
    assert slice_axis(scan(thick(0)), SliceSettings(plane="axial")) == 2


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_lies_where_the_volume_had_it(axis: int):
    case = scan(thick(axis))
    piece = slice_of(case, axis, 5)
    index = np.zeros(3, int)
    index[axis] = 5
    np.testing.assert_allclose(piece.affine[:3, 3], (case.affine @ [*index, 1])[:3])
    np.testing.assert_allclose(np.linalg.norm(piece.affine[:3, 2]), 3)
    assert np.array_equal(piece.image[0], case.image[0].take(5, axis))


def ball_only(**changes) -> Case:
    case = scan(np.eye(4), **changes)
    return case.with_(mask=np.where(case.mask == 1, case.mask, 0).astype(np.uint8))


def test_slices_without_a_target_are_left_out_and_counted():
    case = ball_only()
    made = cut_slices(case, cut(spacing_mm=(1.0, 1.0)))
    assert [m.provenance["slice"] for m in made] == list(range(8, 21)), "the ball of 6 mm around z = 14"
    assert {(m.provenance["slices"], m.provenance["left_out"]) for m in made} == {(13, 15)}
    assert [m.case_id for m in made[:2]] == ["a_slice008", "a_slice009"]
    assert sum((m.mask == 1).sum() for m in made) == (case.mask == 1).sum()
    with pytest.raises(InputError, match="none of its slices"):
        cut_slices(scan(np.eye(4), mask=2 * (case.mask == 1).astype(np.uint8)), cut())
    with pytest.raises(InputError, match="mask is empty"):
        cut_slices(scan(np.eye(4), mask=0 * case.mask), cut())


def test_images_alone_keep_all_their_slices():
    assert len(cut_slices(scan(np.eye(4), mask=None), cut(spacing_mm=(1.0, 1.0)))) == 28


def test_millimeters_scale_where_they_are_known_and_the_width_where_not():
    known = cut_slices(ball_only(), cut(size=96))[0]
    np.testing.assert_allclose(known.spacing_mm, (2.0, 2.0))
    unknown = cut_slices(ball_only(spacing_known=False), cut(size=32))
    np.testing.assert_allclose(unknown[0].grid.spacing_mm, (0.5, 0.5)), "the side of 32 voxels becomes 64 pixels"
    assert not unknown[0].spacing_known
    ball = sum((piece.mask == 1).sum() for piece in unknown)
    assert ball == pytest.approx(4 * (ball_only().mask == 1).sum(), rel=0.05)
    with pytest.raises(InputError, match="--scale width"):
        cut_slices(ball_only(spacing_known=False), cut(scale="mm"))


def test_the_heart_is_in_the_middle_of_every_slice():
    for piece in cut_slices(ball_only(), cut(spacing_mm=(1.0, 1.0))):
        np.testing.assert_allclose(ndimage.center_of_mass(piece.mask[0] == 1), (15.5, 15.5), atol=0.6)


def test_an_oblique_volume_is_turned_for_axial_slices():
    angle = np.radians(20)
    affine = np.eye(4)
    affine[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, 3] = np.array([10, 12, 14]) - affine[:3, :3] @ ((np.array([30, 32, 28]) - 1) / 2)
    made = cut_slices(scan(affine), cut(spacing_mm=(1.0, 1.0)))
    np.testing.assert_allclose(made[0].affine[:3, :3], np.eye(3), atol=1e-9)
    own = cut_slices(scan(affine), cut(plane="short-axis", spacing_mm=(1.0, 1.0)))
    np.testing.assert_allclose(np.abs(own[0].affine[:3, 2]), np.abs(affine[:3, 2]), atol=1e-9)


def test_a_heart_wider_than_the_slices_is_told(capsys: pytest.CaptureFixture[str]):
    cut_slices(ball_only(), cut(size=8, spacing_mm=(1.0, 1.0)))
    assert "wider than the slices" in capsys.readouterr().err


def test_a_slice_is_brought_to_size_as_it_is():
    affine = np.eye(4)
    made = cut_slices(scan(affine, shape=(30, 32)), cut(size=16, spacing_mm=(1.0, 1.0)))
    assert [piece.grid.shape for piece in made] == [(16, 16)]
    assert made[0].case_id == "a"


def test_all_slices_of_a_normalized_volume_have_the_volumes_scale(tmp_path: Path):
    volume = ball_only(intensity_unit="mr")
    settings = cut(spacing_mm=(1.0, 1.0), normalize=True)
    made = prepare(stream(a=volume), tmp_path / "out", settings)
    ends = np.percentile(volume.required_image(), (0.5, 99.5))
    for piece, plain in zip(made, cut_slices(volume, cut(spacing_mm=(1.0, 1.0))), strict=True):
        expected = (plain.required_image() - ends[0]) / (ends[1] - ends[0]) * 1000
        inside = np.abs(piece.required_image() - expected) <= 0.51
        outside = plain.required_image() == 0
        assert (inside | outside).all(), "what lies beyond the volume is 0 in both"
        assert piece.provenance["normalized_from"] == pytest.approx(list(ends))
    found = preparation_of(made)
    assert found is not None
    assert found.window == NORMALIZED
    with pytest.raises(InputError, match="only MR is normalized"):
        prepare(stream(b=ball_only()), tmp_path / "ct", settings)


def test_real_acdc_is_scaled_by_width_and_cropped_on_the_heart(real_data: Path, tmp_path: Path):
    for patient in ("patient001", "patient057"):
        shutil.copytree(real_data / "acdc" / patient, tmp_path / "acdc" / patient)
    settings = cut("short-axis", 128, "width", normalize=True)
    dataset = prepare(acdc(tmp_path / "acdc"), tmp_path / "out", settings)
    areas: dict[str, float] = {}
    for case in dataset:
        assert case.grid.shape == (128, 128)
        assert (case.required_image()[case.mask > 0] > 0).mean() > 0.99, "the heart is within the volume's percentiles"
        assert case.provenance["patient"] == case.case_id.split("_")[0]
        border = np.ones((128, 128), bool)
        border[2:-2, 2:-2] = False
        assert not case.mask[0][border].any(), "the whole heart is in the slice"
        areas[case.provenance["volume"]] = max(areas.get(case.provenance["volume"], 0), float((case.mask > 0).sum()))
    assert len(areas) == 4
    narrow, wide = areas["patient001_frame01"], areas["patient057_frame01"]
    assert 0.5 < wide / narrow < 2, "unscaled, an image 512 wide shows a heart of four times the area"
    source = next(acdc(tmp_path / "acdc"))
    slices = [i for i in range(source.grid.shape[2]) if (source.mask[..., i] > 0).any()]
    first = [c for c in dataset if c.provenance["volume"] == source.case_id]
    assert [c.provenance["slice"] for c in first] == slices
    assert sum((c.mask > 0).sum() for c in first) == pytest.approx((source.mask > 0).sum(), rel=0.02), (
        "256 wide: 1 to 1"
    )
