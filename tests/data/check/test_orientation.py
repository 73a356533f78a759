import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.data.check.orientation import lies_of

from .conftest import found, only

MIRROR = np.diag([-1.0, 1, 1, 1])


def flipped(case: Case) -> Case:
    """The image left-right in its array, the header as it was: what a careless conversion makes."""
    return case.with_(image=case.required_image()[:, ::-1].copy(), mask=case.required_mask()[:, ::-1].copy())


def test_phantoms_lie_as_patients_do(clean):
    for case in clean:
        lies = lies_of(case)
        assert all(lie.told and not lie.reversed for lie in lies)


def test_a_mirror_image_is_a_warning_with_its_evidence_and_never_an_error(planted, clean):
    finding = only(planted([*clean[:2], flipped(clean[2])]), "orientation")
    assert finding.case_id == clean[2].case_id
    assert finding.facts["reversed"] == ["right-left"]
    assert "right_ventricle lies" in finding.text
    assert "to the left of left_ventricle" in finding.text
    assert "congenital" in finding.text


def test_half_a_turn_reverses_two_axes(planted, clean):
    turned = clean[2].with_(image=clean[2].required_image()[:, ::-1, ::-1].copy(),
                            mask=clean[2].required_mask()[:, ::-1, ::-1].copy())  # fmt: skip
    finding = only(planted([*clean[:2], turned]), "orientation")
    assert finding.facts["reversed"] == ["right-left", "front-back"]
    assert "half a turn" in finding.text


def test_a_set_that_was_written_so_is_one_finding(planted, clean):
    finding = only(planted([flipped(case) for case in clean]), "orientation")
    assert finding.case_id is None
    assert finding.facts["count"] == 3


def test_a_patient_who_lies_otherwise_in_space_is_no_suspicion(planted, clean):
    # Stored from left to right and said so: the same patient.
    told = clean[2].with_(image=clean[2].required_image()[:, ::-1].copy(), affine=clean[2].affine @ MIRROR,
                          mask=clean[2].required_mask()[:, ::-1].copy())  # fmt: skip
    assert not found(planted([*clean[:2], told]), "orientation")


def test_one_axis_that_is_lost_makes_single_relations_on_others_no_news(planted, clean):
    def odd(case: Case, *axes: int) -> Case:
        kept = [case.labels.named(name).code for name in ("left_ventricle", "right_ventricle")]
        mask = np.where(np.isin(case.required_mask(), kept), case.required_mask(), 0)
        return case.with_(mask=np.flip(mask, axes).copy(), image=np.flip(case.required_image(), axes).copy())

    examination = planted([odd(clean[0], 2), odd(clean[1], 2), odd(clean[2], 1, 2)])
    (finding,) = found(examination, "orientation")
    assert finding.facts["reversed"] == ["front-back"]


def test_without_a_mask_nothing_is_told(clean):
    assert not any(lie.told for lie in lies_of(clean[0].with_(mask=None)))
