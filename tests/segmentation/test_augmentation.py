import pytest
import torch

from cardiosynth.core.random import generator
from cardiosynth.segmentation.augmentation import Augmentation


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
