import math

import pytest
import torch

from cardiosynth.core.random import generator
from cardiosynth.segmentation.augmentation import GEOMETRIC, NONE, STANDARD, Augmentation, blurred


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
    assert all(Augmentation().draw_flips(rng) == [] for _ in range(20))
    drawn = [tuple(Augmentation(flip_axes=(0, 2)).draw_flips(rng)) for _ in range(400)]
    assert set(drawn) == {(), (1,), (3,), (1, 3)}
    assert all(60 < drawn.count(axes) < 140 for axes in set(drawn))


def test_a_blurred_point_is_a_gaussian_and_an_even_image_stays():
    point = torch.zeros(1, 31, 31)
    point[0, 15, 15] = 1
    made = blurred(point, 1.5)
    offset = torch.arange(31.0) - 15
    assert made.sum().item() == pytest.approx(1)
    assert (made.sum((0, 2)) * offset**2).sum().item() == pytest.approx(1.5**2, rel=0.05)
    torch.testing.assert_close(made, made.transpose(1, 2))
    torch.testing.assert_close(blurred(torch.full((1, 3, 4, 5), 0.3), 2.0), torch.full((1, 3, 4, 5), 0.3))


def test_gamma_raises_gray_values_to_a_random_power():
    settings, rng = Augmentation(noise=0, contrast=0, brightness=0, gamma=0.2, share=0.5), generator(0, "gamma")
    made = torch.stack([settings.change(torch.tensor([[0.0, 0.25, 0.5, 1.0]]), rng)[0] for _ in range(1000)])
    power = made[:, 2].log() / math.log(0.5)
    assert (made[:, 0] == 0).all()
    torch.testing.assert_close(made[:, 1], made[:, 2] ** 2)
    assert (made[:, 3] == 1).all()
    assert 400 < (power == 1).sum() < 600
    assert power[power != 1].log().std().item() == pytest.approx(0.2, rel=0.1)


def test_standard_augmentation_changes_places_and_grays_and_flips_nothing():
    assert not STANDARD.spatial.is_none
    assert STANDARD.flip_axes == ()
    assert STANDARD.gamma > 0


def test_fqcdms_augmentation_moves_and_crops_and_changes_no_gray():
    image = torch.rand((1, 8, 8), generator=generator(0, "image"))
    for augmentation in (NONE, GEOMETRIC):
        torch.testing.assert_close(augmentation.change(image, generator(0, "change")), image)
    assert NONE.spatial.is_none
    drawn = [GEOMETRIC.spatial.draw((32, 32), (1.5, 1.5), generator(0, "motion", i)) for i in range(200)]
    sizes = torch.tensor([math.sqrt(float(motion.matrix.det())) for motion in drawn])
    assert 60 < (sizes != 1).sum() < 140
    assert (sizes.min(), sizes.max()) == pytest.approx((1 / 1.2, 1.2), abs=0.02), "a smaller part fills the example"
    assert 60 < sum(motion.field is not None for motion in drawn) < 140
    assert 60 < sum(bool(motion.shift_mm.any()) for motion in drawn) < 140
