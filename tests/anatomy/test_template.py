import numpy as np
import pytest

from cardiosynth.anatomy.template import TemplateSettings, choose_template
from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
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
