import numpy as np
import pytest
import torch

from cardiosynth.core.errors import InputError
from cardiosynth.core.random import generator
from cardiosynth.segmentation.networks import target_classes
from cardiosynth.segmentation.volumes import Augmentation, TrainingVolume, draw_crop, model_image, training_volume

from .cases import LABELS, SCALE, case

CLASSES = target_classes(LABELS)


def one_voxel(shape: tuple[int, ...], where: tuple[int, ...]) -> TrainingVolume:
    classes = torch.zeros(1, *shape, dtype=torch.uint8)
    classes[(0, *where)] = 1
    return TrainingVolume("point", torch.zeros(1, *shape).half(), classes)


def test_a_volume_keeps_intensities_to_two_hu():
    original = case(0)
    volume = training_volume(original, SCALE, CLASSES)
    back = SCALE.window.from_model(volume.image.float()).numpy()
    assert np.abs(back - original.required_image()).max() < 2
    assert np.array_equal(CLASSES.to_codes(volume.classes.numpy()), LABELS.only_targets(original.required_mask()))
    assert volume.confidence is None


@pytest.mark.parametrize(("where", "shape"), [((0, 0, 0), (9, 9, 9)), ((8, 4, 5), (9, 9, 9)), ((3, 8), (9, 9))])
def test_a_crop_around_a_structure_holds_it_anywhere(where, shape):
    volume, size = one_voxel(shape, where), (4,) * len(shape)
    places = set()
    for index in range(200):
        crop = draw_crop(volume, size, 1.0, generator(0, index))
        assert volume.classes[crop].sum() == 1
        assert volume.classes[crop].shape == (1, *size)
        places.add(tuple(w - s.start for w, s in zip(where, crop[1:], strict=True)))
    possible = [min(w, n - 4) - max(0, w - 3) + 1 for w, n in zip(where, shape, strict=True)]
    assert len(places) == np.prod(possible)


def test_without_oversampling_crops_lie_anywhere_alike():
    volume = one_voxel((6, 6), (0, 0))
    starts = [tuple(s.start for s in draw_crop(volume, (4, 4), 0.0, generator(0, i))[1:]) for i in range(900)]
    counts = np.array([starts.count((x, y)) for x in range(3) for y in range(3)])
    assert counts.sum() == 900
    assert np.abs(counts - 100).max() < 4 * np.sqrt(100)


def test_structures_are_drawn_alike_whatever_their_size():
    classes = torch.ones(1, 20, 4, dtype=torch.uint8)
    classes[0, 0, 0] = 2
    volume = TrainingVolume("two", torch.zeros(1, 20, 4).half(), classes)
    with_small = sum(2 in volume.classes[draw_crop(volume, (2, 2), 1.0, generator(1, i))] for i in range(400))
    assert 160 < with_small < 260


def test_a_volume_without_structures_is_cropped_anywhere():
    volume = TrainingVolume("empty", torch.zeros(1, 5, 5).half(), torch.zeros(1, 5, 5, dtype=torch.uint8))
    assert volume.structures == []
    assert volume.image[draw_crop(volume, (5, 5), 1.0, generator(0))].shape == (1, 5, 5)


def test_augmentation_is_as_strong_as_it_says():
    rng = generator(0, "augmentation")
    gray = torch.full((1, 4000), 0.5)
    settings = Augmentation(noise=0.1, contrast=0.5, brightness=0.0)
    assert settings.change(gray, rng).std().item() == pytest.approx(0.1, rel=0.05)
    bright = Augmentation(noise=0, contrast=0.2, brightness=0.03)
    changes = torch.stack([bright.change(torch.tensor([[0.5, 1.0]]), rng)[0] for _ in range(4000)])
    assert changes[:, 0].std().item() == pytest.approx(0.03, rel=0.05)
    assert (changes[:, 1] - changes[:, 0]).std().item() == pytest.approx(0.1, rel=0.05)
    still = Augmentation(noise=0, contrast=0, brightness=0)
    assert torch.equal(still.change(gray, rng), gray)


def test_flips_are_off_by_default_and_even_when_on():
    rng = generator(0, "flips")
    assert all(Augmentation().flips(rng) == [] for _ in range(20))
    drawn = [tuple(Augmentation(flip_axes=(0, 2)).flips(rng)) for _ in range(400)]
    assert set(drawn) == {(), (1,), (3,), (1, 3)}
    assert all(60 < drawn.count(axes) < 140 for axes in set(drawn))


def test_another_unit_is_refused():
    with pytest.raises(InputError, match="case box-0 is in 'mr' and the network takes 'hu'"):
        model_image(case(0, intensity_unit="mr"), SCALE)


def test_a_case_without_mask_is_refused():
    with pytest.raises(InputError, match=r"box-0 has no mask"):
        training_volume(case(0, mask=None), SCALE, CLASSES)
