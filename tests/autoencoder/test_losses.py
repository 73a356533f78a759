import pytest
import torch

from cardiosynth.autoencoder.losses import (
    Perceptual,
    ReconstructionSettings,
    reconstruction_loss,
    thin_codes,
    voxel_weight,
    weighted_regions,
)
from cardiosynth.core.labels import CARDIAC_CT, label_table


def latents():
    return torch.zeros(1, 1, 2, 2, 2), torch.ones(1, 1, 2, 2, 2)


def test_a_perfect_reconstruction_with_a_standard_normal_latent_costs_nothing():
    x = torch.rand(1, 1, 4, 4, 4)
    parts = reconstruction_loss(x, x, torch.ones_like(x), *latents(), ReconstructionSettings())
    assert float(parts["total"]) == 0


def test_the_total_is_the_weighted_sum_of_closed_forms():
    image, weight = torch.zeros(1, 1, 4, 4, 4), torch.full((1, 1, 4, 4, 4), 2.0)
    settings = ReconstructionSettings(l1=1.0, l2=3.0, kl=0.5, perceptual=10.0)
    mean, std = torch.full((1, 1, 2, 2, 2), 2.0), torch.ones(1, 1, 2, 2, 2)
    largest = Perceptual(lambda a, b: (a - b).amax(), "largest")
    parts = reconstruction_loss(image + 0.5, image, weight, mean, std, settings, largest)
    assert float(parts["l1"]) == pytest.approx(1.0)
    assert float(parts["l2"]) == pytest.approx(0.5)
    assert float(parts["kl"]) == pytest.approx(2.0)
    assert float(parts["total"]) == pytest.approx(1.0 + 3 * 0.5 + 0.5 * 2 + 10 * 0.5)


def test_heart_and_thin_structures_and_the_voxels_next_to_them_count_more():
    mask = torch.zeros(1, 1, 9, 9, 9, dtype=torch.uint8)
    mask[..., 1, 4, 4] = CARDIAC_CT.named("left_ventricle").code
    mask[..., 7, 4, 4] = CARDIAC_CT.named("coronary_artery").code
    mask[..., 4, 1, 1] = CARDIAC_CT.named("spine").code
    settings = ReconstructionSettings(heart=3.0, thin_weight=15.0)
    weight = voxel_weight(weighted_regions(mask, CARDIAC_CT, settings), settings)
    assert weight[0, 0, 1, 4, 4] == weight[0, 0, 0, 3, 5] == 4
    assert weight[0, 0, 7, 4, 4] == weight[0, 0, 8, 5, 3] == 19
    assert weight[0, 0, 4, 1, 1] == weight[0, 0, 4, 4, 4] == 1
    assert int((weight > 1).sum()) == 2 * 27


def test_names_that_the_table_lacks_are_passed_over():
    labels = label_table({"RV": 1, "myocardium": 2})
    settings = ReconstructionSettings(thin=("coronary_artery", "Myocardium"))
    assert thin_codes(labels, settings) == (2,)
