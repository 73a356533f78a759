import numpy as np
import pytest

from cardiosynth.core.case import Case
from cardiosynth.core.labels import label_table
from cardiosynth.data.check.structures import measure_structures, structure_findings

from .conftest import found, only, voxels

TABLE = label_table(
    {"left ventricle": 1, "left ventricular myocardium": 2, "papillary muscle": 3}, ["papillary muscle"]
)


def block(sides_mm: tuple[float, float, float] = (1, 1, 1)) -> Case:
    """A left ventricle of 8 x 8 x 8 voxels in the middle of the grid, with muscle below it."""
    mask = np.zeros((1, 14, 14, 14), np.uint8)
    mask[0, 3:11, 3:11, 3:11], mask[0, 3:11, 3:11, 1:3] = 1, 2
    return Case(case_id="block", image=None, mask=mask, affine=np.diag([*sides_mm, 1.0]), labels=TABLE)


def changed(case: Case, where: tuple, code: int) -> Case:
    mask = case.required_mask().copy()
    mask[0][where] = code
    return case.with_(mask=mask)


def kinds(case: Case) -> list[str]:
    return [finding.kind for finding in structure_findings(case, measure_structures(case))]


def test_a_sound_block_is_measured(planted):
    (ventricle, muscle) = measure_structures(block((1, 1, 2)))
    assert ventricle.volume_ml == pytest.approx(1.02, abs=0.01)  # 512 voxels of 2 mm3
    assert ventricle.pieces is not None
    assert [piece.voxels for piece in ventricle.pieces] == [512]
    assert (ventricle.cavities, ventricle.tunnels, ventricle.faces) == ((), 0, ())
    assert ventricle.brightness is None
    assert muscle.voxels == 128
    assert kinds(block()) == []


def test_a_lost_structure_is_told(planted, clean):
    mask = clean[2].required_mask().copy()
    mask[0][voxels(clean[2], "left_atrium")] = 0
    assert only(planted(mask=mask), "missing_structure").facts == {"structures": ["left_atrium"]}


def test_a_stray_piece_is_told_with_its_place(planted, clean):
    case, mask = clean[2], clean[2].required_mask().copy()
    mask[0, 2:4, 16, 16] = case.labels.named("left_ventricle").code
    finding = only(planted(mask=mask), "fragments")
    assert finding.facts["extra"] == [{"voxels": 2, "voxel": [2, 16, 16]}]
    assert "left_ventricle is in 2 pieces, 1 would be right" in finding.text
    assert "2 16 16" in finding.text


def test_a_piece_that_the_border_cuts_off_is_no_fault():
    cut = changed(block(), (slice(0, 1), 5, 5), 1)
    finding = structure_findings(cut, measure_structures(cut))[0]
    assert (finding.level, finding.kind) == ("info", "fragments")


def test_a_hole_without_a_label_is_told(planted, clean):
    case, mask = clean[2], clean[2].required_mask().copy()
    mask[(0, *deep(case, "left_ventricle"))] = 0
    finding = only(planted(mask=mask), "cavity")
    assert finding.facts == {"structure": "left_ventricle", "voxels": [1]}


def test_what_another_structure_fills_is_no_hole():
    assert kinds(changed(block(), (6, 6, 6), 3)) == []
    assert kinds(changed(block(), (6, 6, 6), 0)) == ["cavity"]


def test_a_tunnel_is_told(planted, clean):
    case, mask = clean[2], clean[2].required_mask().copy()
    x, y, _ = deep(case, "left_ventricle")
    column = mask[0, x, y]
    column[column == case.labels.named("left_ventricle").code] = 0
    examination = planted(mask=mask)
    assert [f.facts["structure"] for f in found(examination, "tunnel")] == ["left_ventricle"]


def test_thick_slices_are_looked_at_one_by_one():
    through = (6, 6, slice(None))
    assert kinds(changed(block(), through, 0)) == ["tunnel"]
    # Eight slices of the cavity's 8 are open, each of them a hole; what runs from slice to slice says nothing.
    thick = changed(block((1, 1, 8)), through, 0)
    findings = structure_findings(thick, measure_structures(thick))
    assert findings[0].facts["voxels"] == [1] * 8
    assert {finding.kind for finding in findings} == {"cavity"}


def test_the_sides_that_cut_a_structure_are_named():
    case = changed(block(), (slice(11, 14), 6, 6), 1)
    finding = structure_findings(case, measure_structures(case))[0]
    assert (finding.level, finding.kind) == ("info", "field_of_view")
    assert finding.facts["faces"] == {"left_ventricle": ["right"]}


def test_slices_are_measured_too():
    mask = np.zeros((1, 9, 9), np.uint8)
    mask[0, 2:7, 2:7], mask[0, 4, 4] = 1, 0
    case = Case(case_id="slice", image=None, mask=mask, affine=np.eye(4), labels=TABLE)
    assert kinds(case) == ["missing_structure", "cavity"]


def deep(case: Case, name: str) -> tuple[int, int, int]:
    """The voxel farthest from the surface of a structure."""
    from scipy import ndimage

    depth = np.asarray(ndimage.distance_transform_edt(voxels(case, name)))
    x, y, z = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x), int(y), int(z)
