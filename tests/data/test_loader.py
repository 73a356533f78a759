import numpy as np
import pytest
import torch

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale, Window
from cardiosynth.core.labels import label_table
from cardiosynth.core.random import generator
from cardiosynth.data.loader import CaseCache

TABLE = label_table({"heart": 1, "vessel": 2})
SCALE = IntensityScale(window=Window(low=0, high=1000))
SHAPE = (10, 11, 12)


def make_case(index: int, **changes) -> Case:
    image = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(1, *SHAPE) % 1000
    mask = np.zeros((1, *SHAPE), np.uint8)
    mask[:, 2:6, 2:6, 2:6], mask[:, 8, 9, 7 + index] = 1, 2
    return Case(**{
        "case_id": f"case-{index}", "image": image, "mask": mask, "affine": np.eye(4), "labels": TABLE, **changes
    })  # fmt: skip


def cache(**changes) -> CaseCache:
    return CaseCache([make_case(0, **changes), make_case(1, **changes)], SCALE)


def test_images_come_in_model_units_and_masks_as_codes():
    held = cache()
    assert (len(held), held.case_ids) == (2, ("case-0", "case-1"))
    np.testing.assert_allclose(held.image(1).numpy() * 1000, make_case(1).image, rtol=1e-5)
    assert torch.equal(held.mask(1), torch.from_numpy(make_case(1).mask))


def test_the_record_tells_of_labels_grid_cases_and_licences():
    spaced = np.diag([1.5, 2, 2.5, 1])
    cases = [make_case(i, affine=spaced, provenance={"licence": f"licence-{1 - i}"}) for i in (0, 1)]
    record = CaseCache(cases, SCALE).record
    assert record["grid"] == {"shape": list(SHAPE), "spacing_mm": [1.5, 2.0, 2.5]}
    assert record["licences"] == ["licence-0", "licence-1"]
    assert record["labels"] == TABLE.model_dump(mode="json")
    assert record["cases"] != CaseCache(cases[::-1], SCALE).record["cases"]
    assert cache(spacing_known=False).record["grid"]["spacing_mm"] is None
    assert cache().record["licences"] == []


def test_mr_has_a_window_of_its_own_per_case():
    one = make_case(0, intensity_unit="mr")
    two = make_case(1, intensity_unit="mr", image=one.image * np.int16(2))
    held = CaseCache([one, two], IntensityScale(unit="mr"))
    assert held.window(1).width == pytest.approx(2 * held.window(0).width)
    assert torch.allclose(held.image(0), held.image(1), atol=1e-3)


def test_a_crop_is_a_block_of_the_case():
    held = cache()
    crop = held.crop(0, (4, 5, 6), generator(0, "crop"))
    where = (slice(None), *(slice(a, a + n) for a, n in zip(crop.start, (4, 5, 6), strict=True)))
    assert torch.equal(crop.image, held.image(0)[where])
    assert torch.equal(crop.mask, held.mask(0)[where])
    assert (crop.confidence == 1).all()


def test_the_same_generator_draws_the_same_crop_and_every_place_is_reached():
    held = cache()
    starts = [held.start(0, (4, 5, 6), generator(0, "crop", i)) for i in range(400)]
    assert starts == [held.start(0, (4, 5, 6), generator(0, "crop", i)) for i in range(400)]
    for axis, last in enumerate((6, 6, 6)):
        assert {start[axis] for start in starts} == set(range(last + 1))


def test_a_crop_on_a_structure_always_holds_it():
    held = cache()
    for i in range(20):
        assert (held.crop(1, (3, 3, 3), generator(0, i), codes=(2,)).mask == 2).any()


def test_without_the_structure_a_crop_may_lie_anywhere():
    held = CaseCache([make_case(0, mask=None), make_case(1, mask=None)], SCALE)
    assert held.start(0, SHAPE, generator(0), codes=(2,)) == (0, 0, 0)
    assert held.crop(0, (3, 3, 3), generator(0), codes=(2,)).mask is None


def test_a_block_larger_than_the_case_is_padded_where_nothing_counts():
    crop = cache().crop(0, (14, 11, 12), generator(3))
    assert -4 <= crop.start[0] <= 0
    before = -crop.start[0]
    assert torch.equal(crop.image[:, before : before + 10], cache().image(0))
    assert crop.confidence.sum() == 10 * 11 * 12
    assert (crop.confidence[:, before : before + 10] == 1).all()


def test_confidence_travels_with_its_crop():
    confidence = np.random.default_rng(0).random((1, *SHAPE), np.float32)
    held = cache(confidence=confidence)
    crop = held.crop(0, SHAPE, generator(0))
    np.testing.assert_allclose(crop.confidence.numpy(), confidence, atol=1 / 509)


@pytest.mark.parametrize(
    ("cases", "needs_masks", "part"),
    [
        ([make_case(0)], False, "at least two"),
        ([make_case(0), make_case(1, intensity_unit="mr")], False, "'mr', the model expects 'hu'"),
        ([make_case(0), make_case(1, image=None)], False, "no image"),
        ([make_case(0), make_case(1, mask=None)], True, "no mask"),
        ([make_case(0), make_case(1, mask=np.zeros((1, *SHAPE), np.uint8))], True, "mask is empty"),
    ],
)
def test_what_cannot_train_is_refused(cases: list[Case], needs_masks: bool, part: str):
    with pytest.raises(InputError, match=part):
        CaseCache(cases, SCALE, needs_masks=needs_masks)
