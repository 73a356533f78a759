import numpy as np
import pytest

from cardiosynth.anatomy import library as library_module
from cardiosynth.anatomy.library import Library, outline_of, overlap
from cardiosynth.anatomy.template import TemplateSettings, choose_template, template_settings, without_descendants
from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT, label_table
from cardiosynth.core.random import numpy_generator
from cardiosynth.data.dataset import write_dataset

RANDOM, ALIKE = TemplateSettings(), TemplateSettings(choice="same_acquisition")


def patient(index, **changes):
    block = np.zeros((1, 4, 4, 4), np.int16)
    case = Case(
        case_id=f"patient-{index}",
        image=block,
        mask=block.astype(np.uint8) + 1,
        affine=np.eye(4),
        provenance={"acquisition": f"protocol-{index % 2}"},
    )
    return case.with_(**changes)


def mask_of(index):
    return patient(index, case_id="mask-00000", image=None, provenance={
        "parents": [f"patient-{index}"], "acquisition": f"protocol-{index % 2}",
    })  # fmt: skip


def drawn(mask_case, library, settings, times=40):
    return {choose_template(mask_case, library, settings, numpy_generator(0, i)).case_id for i in range(times)}


def test_every_case_but_the_parent_and_the_case_itself_can_be_the_template():
    library = [patient(i) for i in range(4)]
    assert drawn(mask_of(1), library, RANDOM) == {"patient-0", "patient-2", "patient-3"}
    assert drawn(patient(1), library, RANDOM) == {"patient-0", "patient-2", "patient-3"}


def test_the_same_acquisition_is_kept_to():
    library = [patient(i) for i in range(6)]
    assert drawn(mask_of(1), library, ALIKE) == {"patient-3", "patient-5"}


def test_the_choice_does_not_depend_on_the_order_or_on_where_the_cases_are(tmp_path):
    library = [patient(i) for i in range(5)]
    dataset = write_dataset(library, tmp_path)
    for i in range(10):
        chosen = {
            choose_template(mask_of(0), cases, RANDOM, numpy_generator(0, i)).case_id
            for cases in (library, library[::-1], dataset)
        }
        assert len(chosen) == 1


def test_a_library_without_another_complete_case_is_refused():
    with pytest.raises(InputError, match="another case"):
        choose_template(mask_of(0), [patient(0), patient(1, image=None)], RANDOM, numpy_generator(0))
    with pytest.raises(InputError, match="protocol-0"):
        choose_template(mask_of(0), [patient(0), patient(1)], ALIKE, numpy_generator(0))


# Likeness: hearts of one shape, wherever they lie.


def heart(name, length, shift=0, dims=3, labels=CARDIAC_CT, **changes):
    """A ventricle of this length beside a myocardium, moved by whole voxels."""
    mask = np.zeros((1, *[24] * dims), np.uint8)
    mask[:, 3 + shift : 3 + shift + length, 4:14] = labels.named("left_ventricle").code
    mask[:, 3 + shift : 3 + shift + length, 14:18] = labels.named("left_ventricular_myocardium").code
    return Case(
        case_id=name, image=np.zeros(mask.shape, np.int16), mask=mask, affine=np.eye(4), labels=labels, **changes
    )


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("align", ["none", "centroid", "affine"])
def test_the_nearest_template_has_the_same_shape_wherever_it_lies(tmp_path, dims, align):
    other_codes = label_table({"left_ventricle": 7, "left_ventricular_myocardium": 3})
    alike = heart("z-alike", 8, shift=9, dims=dims, labels=other_codes)
    library = [heart("longer", 14, dims=dims), heart("shorter", 5, dims=dims), alike, heart("source", 8, dims=dims)]
    mask = heart("mask", 8, dims=dims, provenance={"parents": ["source"]}).with_(image=None)
    for cases in (library, library[::-1], Library(library)):
        chosen = choose_template(mask, cases, TemplateSettings(choice="nearest", align=align), numpy_generator(0))
        assert chosen.case_id == "z-alike"
    stored = write_dataset([case for case in library if case is not alike], tmp_path)
    nearest = TemplateSettings(choice="nearest")
    assert choose_template(mask, stored, nearest, numpy_generator(0)).case_id == "shorter"  # Dice 0.77 against 0.73


def test_overlap_is_the_mean_dice_of_the_masks_structures():
    reference, half = heart("reference", 8), heart("half", 8)
    assert overlap(outline_of(half), outline_of(reference), "centroid") == 1
    # Half as long and centered: 2 * 4 / (4 + 8) of both structures.
    assert overlap(outline_of(heart("half", 4)), outline_of(reference), "centroid") == pytest.approx(2 / 3)
    ventricle = half.with_(
        mask=half.required_mask() * (half.required_mask() == CARDIAC_CT.named("left_ventricle").code)
    )
    assert overlap(outline_of(ventricle), outline_of(reference), "centroid") == pytest.approx(0.5)
    assert overlap(outline_of(reference), outline_of(ventricle), "affine") == 1


def test_coarse_outlines_rank_as_full_masks_do():
    mask = np.zeros((1, 200, 150, 4), np.uint8)
    mask[:, 20:180, 30:110] = 4
    wide = Case(case_id="wide", image=None, mask=mask, affine=np.diag([0.5, 0.5, 2, 1]))
    outline = outline_of(wide)
    assert outline.mask.shape == (40, 20, 4)
    assert outline.cell == pytest.approx(2 * 2 * 2)
    thinner = wide.with_(mask=np.where(np.arange(150).reshape(1, 1, 150, 1) < 100, mask, 0))
    expected = 2 * 70 / (70 + 80)
    assert overlap(outline_of(thinner), outline, "centroid") == pytest.approx(expected, abs=0.02)


def test_equals_are_told_apart_by_name_whatever_their_order():
    library = [heart(name, 8) for name in ("b", "a", "c")]
    nearest = TemplateSettings(choice="nearest")
    for cases in (library, library[::-1]):
        assert choose_template(heart("mask", 8), cases, nearest, numpy_generator(0)).case_id == "a"


def test_outlines_are_made_once(monkeypatch):
    made = []
    monkeypatch.setattr(library_module, "outline_of", lambda case: made.append(case.case_id) or outline_of(case))
    library, nearest = (
        Library([heart(name, length) for name, length in (("a", 8), ("b", 6))]),
        TemplateSettings(choice="nearest"),
    )
    for _ in range(3):
        choose_template(heart("mask", 7), library, nearest, numpy_generator(0))
    assert made == ["a", "b"]  # fmt: skip


def test_masks_of_other_structures_have_no_nearest_template():
    liver = heart("mask", 8).with_(
        mask=heart("mask", 8).required_mask().clip(0, 1), labels=label_table({"liver_tumor": 1})
    )
    with pytest.raises(InputError, match="mask mask, whose target structures are: liver_tumor"):
        choose_template(liver, [heart("a", 8)], TemplateSettings(choice="nearest"), numpy_generator(0))


def test_a_mask_is_shown_its_own_case_on_request_only():
    library, own = [patient(i) for i in range(4)], TemplateSettings(choice="self")
    assert drawn(mask_of(2), library, own, 3) == {"patient-2"}
    assert drawn(patient(3), library, own, 3) == {"patient-3"}
    with pytest.raises(InputError, match="hold none of mask-00000, patient-9 with image"):
        choose_template(mask_of(9), library, own, numpy_generator(0))


def test_what_a_parent_was_made_from_is_no_template_either():
    library = [patient(i) for i in range(3)]
    library[0] = patient(0, provenance={"parents": ["patient-1"]})
    for settings in (RANDOM, TemplateSettings(choice="nearest")):
        assert drawn(mask_of(0), library, settings, 10) == {"patient-2"}


def test_a_template_is_named_by_the_user():
    library = [patient(i) for i in range(4)]
    chosen = template_settings("patient-2", library, TemplateSettings(align="affine"))
    assert chosen == TemplateSettings(case="patient-2", align="affine")
    assert drawn(mask_of(1), library, chosen, 5) == {"patient-2"}
    assert template_settings("nearest", library, chosen) == TemplateSettings(choice="nearest", align="affine")
    for word, meant in (("patient-22", "patient-2"), ("nearst", "nearest")):
        with pytest.raises(InputError, match=f"did you mean '{meant}'"):
            template_settings(word, library, RANDOM)
    with pytest.raises(InputError, match="did you mean 'patient-2'"):
        choose_template(mask_of(1), library, TemplateSettings(case="patient-02"), numpy_generator(0))


def test_a_named_template_is_not_for_masks_that_were_made_from_it(tmp_path):
    library, named = [patient(i) for i in range(3)], TemplateSettings(case="patient-1")
    with pytest.raises(InputError, match="patient-1 would show the model the answer"):
        choose_template(mask_of(1), library, named, numpy_generator(0))
    masks = [patient(0), patient(1), mask_of(1), patient(2)]
    stored = write_dataset(masks, tmp_path)
    for cases in (masks, stored):
        assert [c.case_id for c in without_descendants(cases, library, "patient-1")] == ["patient-0", "patient-2"]
        assert without_descendants(cases, library, None) is cases
